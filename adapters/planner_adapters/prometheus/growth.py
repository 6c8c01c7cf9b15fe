"""What counters have counted since they were last read: each increment once, resets seen, dead series left behind."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TypeAlias

import attrs

from planner_adapters.prometheus.api import Series

SeriesKey: TypeAlias = tuple[str, tuple[tuple[str, str], ...]]
Instance: TypeAlias = tuple[str, str, str]
MOST_SERIES = 200_000
"""More than this is remembered of no source; the oldest go first."""


@attrs.frozen
class Mark:
    """How far a series has been read."""

    at_s: float
    value: float


@attrs.frozen
class Growth:
    """One series since it was last read."""

    name: str
    labels: dict[str, str]
    from_s: float
    to_s: float
    increase: float
    """As a counter: a smaller value than before is a restart, and counts from zero."""
    first: float
    last: float

    @property
    def change(self) -> float:
        """As a gauge."""
        return self.last - self.first

    @property
    def instance(self) -> Instance:
        """The process that it comes from."""
        return instance_of(self.labels)


def instance_of(labels: Mapping[str, str]) -> Instance:
    """The process behind a series, by the labels that Prometheus puts on what it scrapes."""
    return labels.get("instance", ""), labels.get("pod", ""), labels.get("job", "")


def key_of(series: Series) -> SeriesKey:
    """What tells a series from all others."""
    return series.name, tuple(sorted(series.labels.items()))


def grow(
    marks: Mapping[SeriesKey, Mark], found: Iterable[Series], from_s: float
) -> tuple[list[Growth], dict[SeriesKey, Mark]]:
    """What each series grew by since its mark, and the marks for the next time.

    A series without a mark begins at its last sample before ``from_s``, else at its first one. If its process has been
    seen before, the series is new there (labels appear with the first request that has them) and began at zero.
    """
    seen = {instance_of(dict(labels)) for _, labels in marks}
    growths, later = [], dict(marks)
    for series in found:
        if not series.samples:
            continue
        key = key_of(series)
        born = key not in marks and instance_of(series.labels) in seen
        start = marks.get(key) or _start(series, from_s, born)
        growths.append(_grown(series, start))
        later[key] = Mark(*max(series.samples[-1], (start.at_s, start.value)))
    return growths, later


def remembered(marks: Mapping[SeriesKey, Mark], since_s: float) -> dict[SeriesKey, Mark]:
    """The marks of series that have been seen since then, the latest ones if there are too many."""
    kept = {key: mark for key, mark in marks.items() if mark.at_s >= since_s}
    if len(kept) <= MOST_SERIES:
        return kept
    return dict(sorted(kept.items(), key=lambda item: item[1].at_s)[-MOST_SERIES:])


def _start(series: Series, from_s: float, born: bool) -> Mark:
    before = [sample for sample in series.samples if sample[0] <= from_s]
    at_s, value = before[-1] if before else series.samples[0]
    return Mark(at_s, 0.0 if born and not before else value)


def _grown(series: Series, start: Mark) -> Growth:
    increase, last, to_s = 0.0, start.value, start.at_s
    if series.samples[0][0] == start.at_s:  # born here, from zero
        increase = last = series.samples[0][1]
        increase -= start.value
    for at_s, value in _after(series.samples, start.at_s):
        increase += value - last if value >= last else value
        last, to_s = value, at_s
    return Growth(series.name, series.labels, start.at_s, to_s, max(increase, 0.0), start.value, last)


def _after(samples: tuple[tuple[float, float], ...], at_s: float) -> Iterator[tuple[float, float]]:
    return (sample for sample in samples if sample[0] > at_s)
