"""What a shell measures between two ticks: worker counts, traffic, latencies.

Unknown is not zero: what could not be measured is ``None``. What can't be true (NaN, infinite, negative) is
refused here with an :class:`~planner_core.ObservationError`, so that no tick ever meets it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import attrs

from planner_core.data.checks import measured_number
from planner_core.data.errors import ObservationError


def _ages(values: Iterable[float]) -> tuple[float, ...]:
    return tuple(float(v) for v in values)


def _ages_are_possible(
    instance: object, attribute: attrs.Attribute[tuple[float, ...]], ages: tuple[float, ...]
) -> None:
    for age in ages:
        if not (math.isfinite(age) and age >= 0):
            raise ObservationError(
                f"WorkerCounts.starting_ages_s holds {age!r}: ages are finite and at least 0"
            )


def _none_if_zero(value: float | None) -> float | None:
    """A mean of token counts is never zero: every request has a token. Zero is a shell's word for "none seen"."""
    return None if value == 0 else value


@attrs.frozen(kw_only=True)
class WorkerCounts:
    """How many replicas of one role there are."""

    ready: int = attrs.field(validator=measured_number(whole=True, least=0))
    """Replicas that serve requests."""
    expected: int | None = attrs.field(
        default=None, validator=measured_number(whole=True, least=0, optional=True)
    )
    """Replicas that the environment is asked to run (its desired count); ``None``: not known."""
    starting_ages_s: tuple[float, ...] = attrs.field(
        default=(), converter=_ages, validator=_ages_are_possible
    )
    """For each replica that is on its way: seconds since its start was asked for."""
    draining: int = attrs.field(default=0, validator=measured_number(whole=True, least=0))
    """Replicas that finish their last requests; they take no new ones and count as no capacity."""


@attrs.frozen(kw_only=True)
class TrafficObservation:
    """Traffic of one window, over the whole deployment. An idle window is ``num_requests=0`` with ``isl=None``."""

    duration_s: float = attrs.field(validator=measured_number(above=0))
    """Length of the window."""
    num_requests: float | None = attrs.field(validator=measured_number(least=0, most=1e12, optional=True))
    """Requests that *arrived* in the window (completed ones hide an overload); ``None``: not known."""
    isl: float | None = attrs.field(
        default=None, converter=_none_if_zero, validator=measured_number(above=0, optional=True)
    )
    """Mean input tokens per request."""
    osl: float | None = attrs.field(
        default=None, converter=_none_if_zero, validator=measured_number(above=0, optional=True)
    )
    """Mean output tokens per request."""
    num_completed: float | None = attrs.field(
        default=None, validator=measured_number(least=0, most=1e12, optional=True)
    )
    """Requests whose last token came out in the window: those behind ``osl``. With it a backlog shows early: long
    outputs complete late, so that those seen first are short."""
    isl_std: float | None = attrs.field(default=None, validator=measured_number(least=0, optional=True))
    """Standard deviation of the input tokens, where it is measured."""
    osl_std: float | None = attrs.field(default=None, validator=measured_number(least=0, optional=True))
    """Standard deviation of the output tokens, where it is measured."""
    kv_hit_rate: float | None = attrs.field(
        default=None, validator=measured_number(least=0, most=1, optional=True)
    )
    """Share of the input tokens that the prefix cache served."""
    accept_length: float | None = attrs.field(default=None, validator=measured_number(above=0, optional=True))
    """Tokens per decode iteration and request under speculative decoding; 1 without it."""


@attrs.frozen(kw_only=True)
class ObservedLatencies:
    """Latencies that users saw since the last tick; for display, and to correct estimates."""

    ttft_ms: float | None = attrs.field(default=None, validator=measured_number(least=0, optional=True))
    itl_ms: float | None = attrs.field(default=None, validator=measured_number(least=0, optional=True))
    request_duration_s: float | None = attrs.field(
        default=None, validator=measured_number(least=0, optional=True)
    )
