"""A regular series: one value per interval, NaN where nothing is known."""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

PLANNER_INTERVAL_S = 180.0
"""The planner's own interval between two forecasts."""
ARRIVAL_INTERVALS_S = (PLANNER_INTERVAL_S, 60.0, 30.0, 10.0, 5.0, 1.0)
ENOUGH = 100
"""Intervals that a series should have; where it would have fewer, a shorter interval is taken."""
MOST = 5_000_000
"""Intervals that a series may have."""
LEAST = 10
"""Intervals that a series must have."""
KNOWN_SHARE = 0.5
"""An interval is known if this share of its samples is."""


class SeriesError(ValueError):
    """A series that can't be used; one line that says what, where and how to mend it."""

    def __init__(self, message: str, sample: int | None = None) -> None:
        super().__init__(message)
        self.sample = sample
        """Index of the sample that is wrong, where it is one."""


def _row(values: Any) -> Floats:
    row = np.array(values, dtype=np.float64, ndmin=1)
    row.flags.writeable = False
    return row


@attrs.frozen(kw_only=True)
class Series:
    """Values of ``interval_s`` each, from ``start_s`` on (seconds since 1970 where the source has dates)."""

    name: str
    start_s: float
    interval_s: float
    values: Floats = attrs.field(
        converter=_row, eq=attrs.cmp_using(eq=lambda a, b: np.array_equal(a, b, equal_nan=True))
    )
    """Finite and at least 0, or NaN: not known."""

    def __len__(self) -> int:
        return len(self.values)

    @property
    def num_known(self) -> int:
        """Values that are known."""
        return int(np.sum(~np.isnan(self.values)))


def resample(
    name: str,
    time_s: npt.ArrayLike,
    values: npt.ArrayLike,
    interval_s: float | None = None,
    *,
    add: bool = False,
) -> Series:
    """Samples as a regular series.

    The samples' own step is the median distance of two. By default the interval is that step, or 180 s where the
    step is shorter and the series has at least 100 intervals of 180 s. An interval is the mean of its samples, or with
    ``add`` (counts) their sum. Where less than half of the samples are known, the interval isn't; where not all
    are, a sum stands for all of them. :class:`SeriesError` says what can't be true.
    """
    time_s, values = np.asarray(time_s, dtype=np.float64), np.asarray(values, dtype=np.float64)
    _check_samples(time_s, values)
    _check_interval(interval_s)
    step_s = float(np.median(np.diff(time_s)))
    span_s = float(time_s[-1] - time_s[0]) + step_s
    if interval_s is None:
        interval_s = _fitting((PLANNER_INTERVAL_S,), span_s, least_s=step_s) or step_s
    elif interval_s < step_s * (1 - 1e-9):
        raise SeriesError(
            f"interval_s = {interval_s:g} is shorter than the series' own step of {step_s:g} s; make it longer"
        )
    _check_length(interval_s, span_s)
    samples = max(interval_s / step_s, 1.0)
    since_s = time_s - time_s[0] + step_s / 2  # so that jitter moves no sample to another interval
    place = np.floor(since_s / interval_s).astype(np.int64)
    known = ~np.isnan(values)
    num = np.bincount(place[known], minlength=int(place[-1]) + 1)
    total = np.bincount(place[known], weights=values[known], minlength=len(num))
    mean = np.divide(total, num, out=np.full(len(num), np.nan), where=num >= max(KNOWN_SHARE * samples, 1))
    return _checked(
        Series(
            name=name,
            start_s=float(time_s[0]),
            interval_s=interval_s,
            values=mean * samples if add else mean,
        )
    )


def count_arrivals(name: str, arrival_s: npt.ArrayLike, interval_s: float | None = None) -> Series:
    """How many requests arrived in each interval; the last one, which may not be over, is left out.

    By default the longest of 180, 60, 30, 10, 5 and 1 s of which there are at least 100, else 1 s.
    """
    arrival_s = np.asarray(arrival_s, dtype=np.float64)
    _check_times(arrival_s)
    _check_interval(interval_s)
    span_s = float(arrival_s[-1] - arrival_s[0])
    if interval_s is None:
        interval_s = _fitting(ARRIVAL_INTERVALS_S, span_s) or ARRIVAL_INTERVALS_S[-1]
    _check_length(interval_s, span_s)
    place = np.floor(arrival_s / interval_s).astype(np.int64)
    counts = np.bincount(place - place[0])[:-1]
    return _checked(
        Series(name=name, start_s=float(place[0]) * interval_s, interval_s=interval_s, values=counts)
    )


def _fitting(candidates: tuple[float, ...], span_s: float, least_s: float = 0.0) -> float | None:
    return next((s for s in candidates if s >= least_s and span_s >= ENOUGH * s), None)


def _check_times(time_s: Floats) -> None:
    if not len(time_s):
        raise SeriesError("holds no row")
    if not np.isfinite(time_s).all():
        at = int(np.argmin(np.isfinite(time_s)))
        raise SeriesError(f"the time {time_s[at]} is not finite; mend or drop the row", at)
    falls = np.diff(time_s) < 0
    if falls.any():
        at = int(np.argmax(falls)) + 1
        raise SeriesError("is earlier than the row before; sort the rows by time", at)


def _check_samples(time_s: Floats, values: Floats) -> None:
    _check_times(time_s)
    if len(time_s) < 2:
        raise SeriesError(f"holds one row; at least {LEAST} intervals are needed")
    equal = np.diff(time_s) == 0
    if equal.any():
        at = int(np.argmax(equal)) + 1
        raise SeriesError("has the time of the row before; add the two up, or keep one series per file", at)
    for bad, mend in (
        (np.isinf(values), "is not finite; leave the cell empty if it isn't known"),
        (values < 0, "is negative, and forecasts are of what can't be; mend or drop the row"),
    ):
        if bad.any():
            at = int(np.argmax(bad))
            raise SeriesError(f"the value {values[at]:g} {mend}", at)


def _check_interval(interval_s: float | None) -> None:
    if interval_s is not None and not 0 < interval_s < float("inf"):
        raise SeriesError(f"interval_s = {interval_s:g}: must be a finite number above 0")


def _check_length(interval_s: float, span_s: float) -> None:
    if span_s / interval_s > MOST:
        raise SeriesError(
            f"lasts {span_s / interval_s:,.0f} intervals of {interval_s:g} s, and {MOST:,} are the most; "
            "take a longer interval, or look for a wrong time"
        )


def _checked(series: Series) -> Series:
    if series.num_known < LEAST:
        raise SeriesError(
            f"holds {series.num_known} known intervals of {series.interval_s:g} s, and at least {LEAST} are needed; "
            "take a shorter interval or a longer series"
        )
    return series
