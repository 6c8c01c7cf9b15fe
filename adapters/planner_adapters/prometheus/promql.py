"""PromQL from values that nobody vouches for: names are checked, everything else is quoted."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from planner_core import ConfigError

_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*\Z")
_METRIC = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*\Z")


def quoted(value: str) -> str:
    """The value as a PromQL string that ends where it ends: quotes, backslashes and control characters escaped."""
    escaped = (
        f"\\{c}" if c in '"\\' else f"\\x{ord(c):02x}" if ord(c) < 0x20 or ord(c) == 0x7F else c
        for c in _text(value)
    )
    return '"' + "".join(escaped) + '"'


def any_of(values: Iterable[str]) -> str:
    """A regular expression, not quoted yet, that matches exactly these values."""
    return "|".join(re.escape(_text(value)) for value in values)


def _text(value: str) -> str:
    """What UTF-8 can say of it."""
    return value.encode("utf-8", "replace").decode("utf-8")


def selector(names: Iterable[str], matchers: Mapping[str, str]) -> str:
    """The series of any of ``names`` whose labels equal ``matchers``.

    :class:`~planner_core.ConfigError` names a label or a metric that can't be one.
    """
    names = list(names)
    wrong = [name for name in names if not _METRIC.match(name)]
    wrong += [label for label in matchers if not _LABEL.match(label) or label == "__name__"]
    if wrong:
        raise ConfigError([f"{name!r} is no name of a metric or label" for name in wrong])
    parts = [f"__name__=~{quoted('|'.join(names))}"]
    parts += [f"{label}={quoted(value)}" for label, value in matchers.items()]
    return "{" + ",".join(parts) + "}"
