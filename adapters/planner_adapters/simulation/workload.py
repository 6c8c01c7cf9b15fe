"""A workload: when requests arrive and how long they are, as columns."""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

LATEST_START_S = 86_400.0
"""A first arrival later than this is a date, not the time since the start."""


class WorkloadError(ValueError):
    """A workload that can't be replayed; one line that says what, where and how to mend it."""

    def __init__(self, message: str, request: int | None = None) -> None:
        super().__init__(message)
        self.request = request
        """Index of the request that is wrong, where it is one."""


def _column(values: Any, dtype: type[np.generic]) -> npt.NDArray[Any]:
    column = np.array(values, ndmin=1)
    is_whole = column.dtype.kind in "iu" or bool(np.all(np.isfinite(column) & (column == np.rint(column))))
    if np.issubdtype(dtype, np.integer) and not is_whole:
        raise WorkloadError("Workload: token counts have to be whole numbers")
    column = column.astype(dtype)
    column.flags.writeable = False
    return column


def _seconds(values: Any) -> Floats:
    return _column(values, np.float64)


def _tokens(values: Any) -> Ints:
    return _column(values, np.int64)


_same = attrs.cmp_using(eq=np.array_equal)


@attrs.frozen(kw_only=True)
class Workload:
    """Requests as read-only columns of equal length, in the order of their arrival; at least one.

    :class:`WorkloadError` names the first request that can't be true. ``workload[rows]`` picks requests by a
    slice or a mask: ``workload[workload.arrival_s < 600]``.
    """

    name: str
    arrival_s: Floats = attrs.field(converter=_seconds, eq=_same)
    """Seconds since the start of the trace, not falling; the first within a day of it."""
    input_tokens: Ints = attrs.field(converter=_tokens, eq=_same)
    """At least 1."""
    output_tokens: Ints = attrs.field(converter=_tokens, eq=_same)
    """At least 1: the prompt's own pass brings the first one, so a request without output is no request."""
    prefix_hit_tokens: Ints | None = attrs.field(
        default=None,
        converter=attrs.converters.optional(_tokens),
        eq=attrs.cmp_using(eq=lambda a, b: (a is None and b is None) or np.array_equal(a, b)),
    )
    """Input tokens that a prefix cache serves; ``None``: not known, and none are served."""

    def __attrs_post_init__(self) -> None:
        columns = {"input_tokens": self.input_tokens, "output_tokens": self.output_tokens}
        if self.prefix_hit_tokens is not None:
            columns["prefix_hit_tokens"] = self.prefix_hit_tokens
        if any(column.shape != (len(self),) for column in (self.arrival_s, *columns.values())):
            raise WorkloadError("Workload: columns must be one-dimensional and of equal length")
        if not len(self):
            raise WorkloadError("holds no request")
        self._refuse(
            "arrival_s", self.arrival_s, ~(np.isfinite(self.arrival_s) & (self.arrival_s >= 0)), _TIME
        )
        self._refuse("arrival_s", self.arrival_s[:1], self.arrival_s[:1] > LATEST_START_S, _START)
        falls = np.diff(self.arrival_s, prepend=self.arrival_s[0]) < 0
        self._refuse(
            "arrival_s", self.arrival_s, falls, "is earlier than the row before; sort the trace by time"
        )
        for name, least in (("input_tokens", 1), ("output_tokens", 1), ("prefix_hit_tokens", 0)):
            if name in columns:
                self._refuse(
                    name, columns[name], columns[name] < least, f"must be at least {least}; drop the request"
                )
        if self.prefix_hit_tokens is not None:
            beyond = self.prefix_hit_tokens > self.input_tokens
            self._refuse(
                "prefix_hit_tokens", self.prefix_hit_tokens, beyond, "is above the request's input_tokens"
            )

    @staticmethod
    def _refuse(name: str, column: npt.NDArray[Any], bad: npt.NDArray[np.bool_], mend: str) -> None:
        if bad.any():
            request = int(np.argmax(bad))
            raise WorkloadError(f"{name} = {column[request]} {mend}", request)

    def __len__(self) -> int:
        return len(self.arrival_s)

    def __getitem__(self, rows: slice | npt.NDArray[Any]) -> Workload:
        hits = self.prefix_hit_tokens
        return attrs.evolve(
            self,
            arrival_s=self.arrival_s[rows],
            input_tokens=self.input_tokens[rows],
            output_tokens=self.output_tokens[rows],
            prefix_hit_tokens=None if hits is None else hits[rows],
        )


_TIME = "must be a finite number of at least 0"
_START = "is no time since the start of the trace, where the first request comes within a day; subtract it"
