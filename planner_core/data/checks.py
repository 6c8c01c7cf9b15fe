"""Checks of single values, shared by the observations and the configuration.

Each is an attrs validator that names class, field and value, and says how the value should look.
"""

from __future__ import annotations

import math
import numbers
import sys
from collections.abc import Callable
from typing import Any

import attrs

from planner_core.data.errors import ConfigError, ObservationError, PlannerError

Validator = Callable[[Any, "attrs.Attribute[Any]", Any], None]


@attrs.frozen
class Check:
    """A validator that knows its own words."""

    want: str
    """How the value should look, to stand behind "must be"."""
    accepts: Callable[[Any], bool] = attrs.field(repr=False)
    """Whether a value is; ``None`` is asked of :attr:`optional`."""
    error: type[PlannerError] = ConfigError
    kind: str = ""
    """``number``, ``integer``, ``boolean``, ``string`` as in JSON schema; empty for objects."""
    optional: bool = False
    bounds: dict[str, float] = attrs.field(factory=dict)
    """By JSON schema's words: ``minimum``, ``exclusiveMinimum``, ``maximum``."""
    choices: tuple[str, ...] = ()

    def admits(self, value: Any) -> bool:
        """Whether the value is as wanted."""
        return (value is None and self.optional) or self.accepts(value)

    def __call__(self, instance: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
        """Raise :attr:`error` if the value isn't as wanted."""
        if not self.admits(value):
            raise self.error(f"{type(instance).__name__}.{attribute.name} = {value!r}: must be {self.want}")


def number(
    error: type[PlannerError],
    *,
    above: float | None = None,
    least: float | None = None,
    most: float | None = None,
    whole: bool = False,
    square: bool = False,
    optional: bool = False,
) -> Check:
    """A check for a finite number in a range; ``optional`` lets ``None`` pass (= not known, or no limit)."""
    kind = "a perfect square, such as 16," if square else "a whole number" if whole else "a finite number"
    bounds = (("above", above), ("at least", least), ("at most", most))
    ranges = " and ".join(f"{words} {bound:g}" for words, bound in bounds if bound is not None)
    schema = (("exclusiveMinimum", above), ("minimum", least), ("maximum", most))

    def accepts(value: Any) -> bool:
        real: Any = numbers.Integral if whole else numbers.Real
        if isinstance(value, bool) or not isinstance(value, real):
            return False
        return (
            abs(value) <= sys.float_info.max  # neither NaN, infinite, nor a whole number that no float holds
            and (above is None or value > above)
            and (least is None or value >= least)
            and (most is None or value <= most)
            and (not square or math.isqrt(int(value)) ** 2 == value)
        )

    return Check(
        want=f"{kind} {ranges}".strip() + (" or None" if optional else ""),
        accepts=accepts,
        error=error,
        kind="integer" if whole else "number",
        optional=optional,
        bounds={word: bound for word, bound in schema if bound is not None},
    )


def config_number(**wants: Any) -> Check:
    """:func:`number` that raises :class:`ConfigError`."""
    return number(ConfigError, **wants)


def measured_number(**wants: Any) -> Check:
    """:func:`number` that raises :class:`ObservationError`."""
    return number(ObservationError, **wants)


def one_of(choices: tuple[str, ...]) -> Check:
    """A check for one of a few words."""
    return Check(
        want=f"one of {', '.join(choices)}",
        accepts=lambda value: isinstance(value, str) and value in choices,
        kind="string",
        choices=choices,
    )


def flag() -> Check:
    """A check for true or false; 0 and 1 are numbers."""
    return Check(want="true or false", accepts=lambda value: isinstance(value, bool), kind="boolean")


def text(*, optional: bool = False) -> Check:
    """A check for text that isn't empty."""
    return Check(
        want="text" + (" or None" if optional else ""),
        accepts=lambda value: isinstance(value, str) and value != "",
        kind="string",
        optional=optional,
    )


def instance_of(cls: type, *, optional: bool = False) -> Check:
    """A check for an object of a class of ours."""
    return Check(
        want=f"a {cls.__name__}" + (" or None" if optional else ""),
        accepts=lambda value: isinstance(value, cls),
        optional=optional,
    )


def object_with(*methods: str) -> Check:
    """A check for an extension: an object (no class, no name) that has these methods."""

    def accepts(value: Any) -> bool:
        return not isinstance(value, type) and all(
            callable(getattr(value, method, None)) for method in methods
        )

    return Check(want=f"an object with {', '.join(f'{method}()' for method in methods)}", accepts=accepts)
