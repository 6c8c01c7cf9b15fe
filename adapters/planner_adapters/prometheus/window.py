"""A selector, read again and again: what its counters have counted since the last time, and how old that is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import attrs

from planner_adapters.environment import Unobserved
from planner_adapters.prometheus.api import Api, Series
from planner_adapters.prometheus.growth import (
    Growth,
    Instance,
    Mark,
    SeriesKey,
    grow,
    instance_of,
    remembered,
)
from planner_adapters.prometheus.promql import any_of, quoted, selector

LONGEST_S = 3600.0
"""An outage longer than this is not made up for: what was counted meanwhile is left out."""
DEAD_S = 600.0
"""So long a process that doesn't answer is waited for; then it is taken for gone."""


@attrs.frozen
class Window:
    """What the processes behind a selector counted since the last time."""

    duration_s: float
    """Mean over the processes, so that count ÷ duration is a rate also where they are scraped at different times."""
    growths: tuple[Growth, ...]

    def by_instance(self) -> dict[Instance, list[Growth]]:
        """The growths of each process."""
        found: dict[Instance, list[Growth]] = {}
        for growth in self.growths:
            found.setdefault(growth.instance, []).append(growth)
        return found

    def increase(self, name: str) -> float | None:
        """Over all processes; ``None`` if there is no such series."""
        found = [growth.increase for growth in self.growths if growth.name == name]
        return sum(found) if found else None

    def mean(self, histogram: str) -> float | None:
        """Mean of what a histogram observed; ``None`` if it observed nothing."""
        total, count = self.increase(f"{histogram}_sum"), self.increase(f"{histogram}_count")
        return total / count if total is not None and count else None


class WindowReader:
    """Reads one selector. Each increment is in exactly one of the windows that :meth:`read` returns."""

    def __init__(
        self, api: Api, names: Iterable[str], matchers: Mapping[str, str], stale_after_s: float
    ) -> None:
        self._api = api
        self._selector = selector(names, matchers)
        self._stale_after_s = stale_after_s
        self._marks: dict[SeriesKey, Mark] = {}
        self._read_at_s: float | None = None

    async def read(self, window_s: float, now_s: float) -> Window | None:
        """``None`` while Prometheus has scraped nothing new; ``now_s`` is its time.

        :class:`~planner_adapters.environment.Unobserved` where there are no series, where all of them are stale, or
        where some process can't be scraped, so that a part is known. ``FetchError`` if Prometheus can't be read.
        """
        reach_s = window_s if self._read_at_s is None else max(window_s, now_s - self._read_at_s)
        reach_s = min(reach_s, max(LONGEST_S, window_s))
        found = await self._api.samples(self._selector, reach_s + self._stale_after_s)
        fresh = self._fresh(found, now_s)
        growths, marks = grow(self._marks, found, now_s - reach_s)
        growths = [growth for growth in growths if growth.to_s > growth.from_s or growth.instance in fresh]
        await self._all_there(fresh, marks, now_s)
        spans: dict[Instance, float] = dict.fromkeys(fresh, 0.0)
        for growth in growths:
            spans[growth.instance] = max(spans.get(growth.instance, 0.0), growth.to_s - growth.from_s)
        duration_s = sum(spans.values()) / len(spans)
        if duration_s <= 0:
            if self._read_at_s is None:  # one sample each: from here on we count
                self._marks, self._read_at_s = marks, now_s
            return None
        self._marks = remembered(marks, now_s - LONGEST_S)
        self._read_at_s = now_s
        return Window(duration_s, tuple(growths))

    def _fresh(self, found: list[Series], now_s: float) -> set[Instance]:
        latest: dict[Instance, float] = {}
        for series in found:
            if series.samples:
                instance = instance_of(series.labels)
                latest[instance] = max(latest.get(instance, 0.0), series.samples[-1][0])
        fresh = {instance for instance, at_s in latest.items() if now_s - at_s <= self._stale_after_s}
        if fresh:
            return fresh
        last_s = max([*latest.values(), *(mark.at_s for mark in self._marks.values())], default=None)
        if last_s is None:
            raise Unobserved(
                f"{self._api.name}: there is no series {self._selector}; compare its labels with those "
                "of your frontend (a frontend has none before its first request)"
            )
        raise Unobserved(
            f"{self._api.name}: {self._selector} is stale, its last sample is {now_s - last_s:.0f} s old; see whether "
            "Prometheus still scrapes it"
        )

    async def _all_there(self, fresh: set[Instance], marks: Mapping[SeriesKey, Mark], now_s: float) -> None:
        """A process that went silent while Prometheus still tries to scrape it may serve unseen."""
        latest: dict[str, float] = {}
        for (_, labels), mark in marks.items():
            instance = instance_of(dict(labels))
            if instance not in fresh:
                latest[instance[0]] = max(latest.get(instance[0], 0.0), mark.at_s)
        silent = [name for name, at_s in latest.items() if name and now_s - at_s < DEAD_S]
        if not silent:
            return
        tried = f"up{{instance=~{quoted(any_of(sorted(silent)[:100]))}}}"
        down = await self._api.samples(tried, self._stale_after_s)
        names = sorted({s.labels.get("instance", "") for s in down if s.samples and not s.samples[-1][1]})
        if names:
            age_s = max(now_s - latest.get(name, now_s) for name in names)
            others = f" and {len(names) - 1} more" if names[1:] else ""
            raise Unobserved(
                f"{self._api.name}: {names[0]}{others} can't be scraped for {age_s:.0f} s, so that traffic is known in "
                "part only; mend it or take it out of the scrape targets"
            )
