"""Curves of any length in bounded memory, without losing a peak.

Time is cut into buckets, of which there are about as many as a chart has pixels. Of each curve a bucket keeps
the first, lowest, highest and last point, each at its own time: all that a line drawn through every point would show at
a bucket per pixel (Jugel et al., M4, VLDB 2014). When memory is full, pairs of buckets become one.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

CAPACITY = 2048
"""Buckets at most; when they are full, pairs are joined until a quarter is free."""
FINEST_S = 1.0
FIRST, LOWEST, HIGHEST, LAST = range(4)
AT, VALUE = range(2)


@attrs.frozen(kw_only=True)
class Mark:
    """Something to remember of a bucket: the one of highest rank, and of equals the earliest."""

    rank: float
    at_s: float
    what: Any


Marks = dict[int, Mark]


class Sampler:
    """Takes points of many curves, sums and marks, in the order of time; gives them back in as much detail as fits.

    Of what is older than ``keep_s``, nothing is given back.
    """

    def __init__(
        self, *, num_curves: int, num_sums: int, capacity: int = CAPACITY, keep_s: float = np.inf
    ) -> None:
        self.width_s = FINEST_S
        """Length of a bucket."""
        self._keep_s, self._size = keep_s, 0
        self._index = np.zeros(capacity, np.int64)
        self._points = np.full((capacity, 4, 2, num_curves), np.nan)
        self._gap_before = np.zeros((capacity, num_curves), np.bool_)
        self._gap_at_s = np.full((capacity, num_curves), np.nan)  # the first one inside of a bucket
        self._sums = np.zeros((capacity, num_sums))
        self._marks: list[Marks] = []
        self._known_s = np.full(num_curves, -np.inf)  # when each curve was known last
        self._now_s = -np.inf

    def add(
        self, at_s: float, values: Floats, max_gap_s: Floats, sums: Floats, marks: Mapping[int, Mark]
    ) -> Bools:
        """Takes what holds at a time: NaN is a value that isn't known.

        A curve is broken where it wasn't known for longer than its ``max_gap_s``; gives which ones are, here.
        """
        row = self._row(at_s)
        self._now_s = at_s
        points, known = self._points[row], ~np.isnan(values)
        gap = known & (at_s - self._known_s > max_gap_s)
        begins = known & np.isnan(points[FIRST, AT])
        self._gap_before[row, begins] = gap[begins]
        inside = gap & ~begins & np.isnan(self._gap_at_s[row])
        self._gap_at_s[row, inside] = (self._known_s[inside] + at_s) / 2
        better = {
            FIRST: begins,
            LOWEST: begins | (values < points[LOWEST, VALUE]),
            HIGHEST: begins | (values > points[HIGHEST, VALUE]),
            LAST: known,
        }
        for which, mask in better.items():
            points[which, AT, mask] = at_s
            points[which, VALUE, mask] = values[mask]
        self._known_s[known] = at_s
        self._sums[row] += sums
        _outrank(self._marks[row], marks)
        return gap

    def _row(self, at_s: float) -> int:
        """The row of a time's bucket: the last one, or a new one."""
        capacity = len(self._index)
        if self._size == capacity:
            self._forget(at_s)
            while self._size > 3 * capacity // 4:
                self._join_pairs()
        if self._size and self._index[self._size - 1] >= at_s // self.width_s:
            return self._size - 1
        row = self._size
        self._size += 1
        self._index[row] = at_s // self.width_s
        self._points[row], self._gap_at_s[row] = np.nan, np.nan
        self._gap_before[row], self._sums[row] = False, 0.0
        self._marks.append({})
        return row

    def _forget(self, at_s: float) -> None:
        first = self._oldest(at_s)
        if first:
            self._keep(np.arange(first, self._size))

    def _oldest(self, at_s: float) -> int:
        oldest = np.floor((at_s - self._keep_s) / self.width_s)
        return int(np.searchsorted(self._index[: self._size], oldest))

    def _keep(self, rows: npt.NDArray[np.int_]) -> None:
        size = len(rows)
        for array in (self._index, self._points, self._gap_before, self._gap_at_s, self._sums):
            array[:size] = array[rows]
        self._marks = [self._marks[row] for row in rows]
        self._size = size

    def _join_pairs(self) -> None:
        """Makes buckets twice as long."""
        self.width_s *= 2
        index = self._index[: self._size] // 2
        self._index[: self._size] = index
        second = np.flatnonzero(index[1:] == index[:-1]) + 1
        first = second - 1
        a, b = self._points[first], self._points[second]
        a_unknown, b_unknown = np.isnan(a[:, FIRST, AT]), np.isnan(b[:, FIRST, AT])
        from_b = {
            FIRST: a_unknown,
            LOWEST: a_unknown | (b[:, LOWEST, VALUE] < a[:, LOWEST, VALUE]),
            HIGHEST: a_unknown | (b[:, HIGHEST, VALUE] > a[:, HIGHEST, VALUE]),
            LAST: ~b_unknown,
        }
        between = np.where(
            self._gap_before[second] & ~a_unknown & ~b_unknown, (a[:, LAST, AT] + b[:, FIRST, AT]) / 2, np.nan
        )
        for which, mask in from_b.items():
            a[:, which] = np.where(mask[:, None], b[:, which], a[:, which])
        self._points[first] = a
        self._gap_before[first] = np.where(a_unknown, self._gap_before[second], self._gap_before[first])
        inside = self._gap_at_s[first]
        for later in (between, self._gap_at_s[second]):
            inside = np.where(np.isnan(inside), later, inside)
        self._gap_at_s[first] = inside
        self._sums[first] += self._sums[second]
        for one, other in zip(first, second, strict=True):
            _outrank(self._marks[one], self._marks[other])
        self._keep(np.delete(np.arange(self._size), second))

    def frozen(self) -> Sampler:
        """What there is by now, to be read elsewhere while this one goes on; it takes no more points."""
        frozen, size = copy.copy(self), self._size
        frozen._points, frozen._gap_before = self._points[:size].copy(), self._gap_before[:size].copy()
        frozen._gap_at_s, frozen._sums = self._gap_at_s[:size].copy(), self._sums[:size].copy()
        frozen._index, frozen._marks = self._index[:size].copy(), [dict(marks) for marks in self._marks]
        return frozen

    def curve(self, number: int) -> tuple[Floats, Floats]:
        """Times and values of a curve; a value is NaN where the line breaks."""
        rows = np.arange(self._oldest(self._now_s), self._size)
        rows = rows[~np.isnan(self._points[rows, FIRST, AT, number])]
        points = self._points[rows, :, :, number]
        before = np.full(len(rows), np.nan)
        before[1:] = (points[:-1, LAST, AT] + points[1:, FIRST, AT]) / 2
        before[~self._gap_before[rows, number]] = np.nan
        at_s = np.column_stack((before, points[:, :, AT], self._gap_at_s[rows, number]))
        values = np.column_stack(
            (np.full(len(rows), np.nan), points[:, :, VALUE], np.full(len(rows), np.nan))
        )
        order = np.argsort(at_s, axis=1, kind="stable")
        at_s = np.take_along_axis(at_s, order, 1).ravel()
        values = np.take_along_axis(values, order, 1).ravel()
        real = ~np.isnan(at_s)
        at_s, values = at_s[real], values[real]
        new = np.diff(at_s, prepend=-np.inf) > 0
        at_s, values = at_s[new], values[new]
        # a line through three equal values doesn't need the one in the middle
        needed = np.ones(len(values), np.bool_)
        needed[1:-1] = (values[1:-1] != values[:-2]) | (values[1:-1] != values[2:])
        return at_s[needed], values[needed]

    def marks(self, number: int) -> list[Mark]:
        """The marks of a number, one per bucket that has one, oldest first."""
        return [
            marks[number] for marks in self._marks[self._oldest(self._now_s) : self._size] if number in marks
        ]

    def sums(self) -> Floats:
        """Over all buckets."""
        total: Floats = self._sums[self._oldest(self._now_s) : self._size].sum(axis=0)
        return total


def _outrank(marks: Marks, others: Mapping[int, Mark]) -> None:
    for number, mark in others.items():
        if number not in marks or mark.rank > marks[number].rank:
            marks[number] = mark
