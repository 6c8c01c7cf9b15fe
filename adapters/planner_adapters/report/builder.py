"""From ticks, one after the other, to a series."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping

import attrs
import numpy as np

from planner_adapters.figures import NAMES, PLACE, figures, intervals_s, max_gaps_s
from planner_adapters.report.reasons import SILENT, notability
from planner_adapters.report.sampling import CAPACITY, Floats, Mark, Sampler
from planner_adapters.report.series import Curve, Feed, Moment, Series
from planner_core import Decision, LoadReason, PlannerConfig, Role, ThroughputReason, TickInput

LOOPS = ("load", "throughput")
LANES = tuple((role, loop) for role in Role for loop in LOOPS)
"""The timelines: what each loop found for each role."""
WAYS = ("up", "down")
_CHANGE_OF = {change: len(LANES) + place for place, change in enumerate(itertools.product(Role, WAYS))}
_REASONS = tuple(dict.fromkeys([*map(str, LoadReason), *map(str, ThroughputReason)]))
_SUMS = (
    *("ticks", "gpu_s", "gpu_known_s", "observed", "within"),
    *(f"{role}.{way}" for role in Role for way in WAYS),
    *(f"{role}.{loop}.{reason}" for role, loop in LANES for reason in _REASONS),
)
_SUM = {name: place for place, name in enumerate(_SUMS)}


def series_of(ticks: Iterable[tuple[TickInput, Decision]]) -> Series:
    """The whole run; ``ticks`` may be a stream of any length."""
    builder = SeriesBuilder()
    for inputs, decision in ticks:
        builder.add(inputs, decision)
    return builder.series()


@attrs.frozen(kw_only=True)
class Added:
    """What one tick added to a series."""

    values: dict[str, tuple[float, bool]]
    """The figures that are known, each with whether its line breaks before it."""
    marks: Mapping[int, Mark]

    def timelines(self) -> dict[tuple[Role, str], tuple[Moment, ...]]:
        """As of :attr:`Series.timelines`."""
        return {
            lane: _moments([self.marks[place]]) for place, lane in enumerate(LANES) if place in self.marks
        }

    def changes(self) -> dict[tuple[Role, str], tuple[Moment, ...]]:
        """As of :attr:`Series.changes`."""
        return {
            way: _moments([self.marks[place]]) for way, place in _CHANGE_OF.items() if place in self.marks
        }


class SeriesBuilder:
    """Takes ticks, and gives the :class:`Series` of all of them, or of the last ``keep_s``, at any time."""

    def __init__(self, *, keep_s: float = math.inf, capacity: int = CAPACITY) -> None:
        self._sampler = Sampler(num_curves=len(NAMES), num_sums=len(_SUMS), keep_s=keep_s, capacity=capacity)
        self._keep_s = keep_s
        self._start_s: float | None = None
        self._num_skipped = 0
        self._last: tuple[TickInput, Decision] | None = None
        self._gpus: float | None = None
        self._in_force: dict[tuple[Role, str], str] = {}
        self._came_s: dict[str, float] = {}

    @property
    def last(self) -> tuple[TickInput, Decision] | None:
        """The last tick that was taken."""
        return self._last

    def add(self, inputs: TickInput, decision: Decision) -> Added | None:
        """Takes a tick; ``None`` if its time isn't after the last one's, which makes it no tick of this run."""
        before = self._last
        if before is not None and inputs.now_s <= before[0].now_s:
            self._num_skipped += 1
            return None
        elapsed_s = 0.0 if before is None else inputs.now_s - before[0].now_s
        known = figures(inputs, decision)
        marks = dict(_marks(inputs.now_s, before, decision))
        values = np.full(len(NAMES), np.nan)
        values[[PLACE[name] for name in known]] = list(known.values())
        broken = self._sampler.add(
            inputs.now_s,
            values,
            max_gaps_s(inputs.config, elapsed_s),
            self._sums(inputs, decision, known, elapsed_s),
            marks,
        )
        self._start_s = inputs.now_s if self._start_s is None else self._start_s
        self._last, self._gpus = (inputs, decision), known.get("gpus")
        self._came_s |= dict.fromkeys(_came(inputs), inputs.now_s)
        values_with = {name: (value, bool(broken[PLACE[name]])) for name, value in known.items()}
        return Added(values=values_with, marks=marks)

    def _sums(
        self, inputs: TickInput, decision: Decision, known: Mapping[str, float], elapsed_s: float
    ) -> Floats:
        sums = np.zeros(len(_SUMS))
        sums[_SUM["ticks"]] = 1
        if elapsed_s <= hold_s(inputs.config):  # what held at the tick before has held until now
            if self._gpus is not None:
                sums[_SUM["gpu_s"]] = self._gpus * elapsed_s
                sums[_SUM["gpu_known_s"]] = elapsed_s
            for (role, loop), reason in self._in_force.items():
                sums[_SUM[f"{role}.{loop}.{reason}"]] += elapsed_s
        for role, why in decision.explanations.items():
            for loop, found in (("load", why.load_reason), ("throughput", why.throughput_reason)):
                if found not in SILENT:
                    self._in_force[role, loop] = str(found)
        observed = [
            known[f"observed_{name}"] <= known[f"target_{name}"]
            for name in ("ttft_ms", "itl_ms")
            if f"observed_{name}" in known and f"target_{name}" in known
        ]
        if observed:
            sums[_SUM["observed"]], sums[_SUM["within"]] = 1, all(observed)
        for role, step in _steps(self._last, decision):
            sums[_SUM[f"{role}.{_way(step)}"]] += 1
        return sums

    def series(self) -> Series:
        """What there is to see by now."""
        sampler, last = self._sampler, self._last
        end_s = 0.0 if last is None else last[0].now_s
        curves = {}
        for place, name in enumerate(NAMES):
            at_s, values = sampler.curve(place)
            if len(at_s):
                curves[name] = Curve(at_s=at_s, values=values)
        lanes = {lane: _moments(sampler.marks(place)) for place, lane in enumerate(LANES)}
        ways = {way: _moments(sampler.marks(place)) for way, place in _CHANGE_OF.items()}
        return Series(
            config=None if last is None else last[0].config,
            start_s=max(self._start_s or 0.0, end_s - self._keep_s),
            end_s=end_s,
            bucket_s=sampler.width_s,
            num_skipped=self._num_skipped,
            curves=curves,
            timelines={lane: moments for lane, moments in lanes.items() if moments},
            changes={way: moments for way, moments in ways.items() if moments},
            latest={} if last is None else dict(last[1].explanations),
            feeds=self.feeds(),
            totals=self.totals(),
        )

    def frozen(self) -> SeriesBuilder:
        """What there is by now, for another thread to make a series of; it takes no more ticks."""
        frozen = copy.copy(self)
        frozen._sampler, frozen._came_s = self._sampler.frozen(), dict(self._came_s)
        return frozen

    def totals(self) -> dict[str, float]:
        """As of :attr:`Series.totals`, at less cost than the whole."""
        return {name: float(t) for name, t in zip(_SUMS, self._sampler.sums(), strict=True) if t}

    def feeds(self) -> tuple[Feed, ...]:
        """As ``Series.feeds``: the inputs that a planner of the last configuration uses."""
        if self._last is None:
            return ()
        inputs = self._last[0]
        fast_s, slow_s = intervals_s(inputs.config)
        roles = list(inputs.config.engines)
        paces = {f"{kind}.{role}": fast_s for kind in ("workers", "fpm") for role in roles} | {
            "traffic": slow_s
        }
        ages = {name: inputs.now_s - at_s for name, at_s in self._came_s.items()}
        return tuple(
            Feed(name=name, age_s=ages.get(name), fed=ages.get(name, math.inf) <= 2.5 * pace_s)
            for name, pace_s in paces.items()
        )


def hold_s(config: PlannerConfig) -> float:
    """For how long a tick's word holds where no other follows: with longer pauses, the planner wasn't there."""
    return 2.5 * max(intervals_s(config))


def _came(inputs: TickInput) -> Iterator[str]:
    yield from (f"workers.{role}" for role in inputs.workers)
    yield from (f"fpm.{role}" for role, batch in inputs.fpm.items() if len(batch))
    if inputs.traffic is not None and inputs.traffic.num_requests is not None:
        yield "traffic"


def _steps(before: tuple[TickInput, Decision] | None, decision: Decision) -> Iterator[tuple[Role, int]]:
    """By how much another number of replicas is decided than by the tick before, or than there are at first."""
    for role, why in decision.explanations.items():
        was = why.current if before is None else before[1].replicas.get(role)
        now = decision.replicas.get(role)
        if was is not None and now is not None and was != now:
            yield role, now - was


def _way(step: int) -> str:
    return WAYS[step < 0]


def _marks(
    now_s: float, before: tuple[TickInput, Decision] | None, decision: Decision
) -> Iterator[tuple[int, Mark]]:
    """What to remember of a tick, for each timeline and for the changes."""
    for place, (role, loop) in enumerate(LANES):
        why = decision.explanations.get(role)
        if why is not None:
            reason = why.load_reason if loop == "load" else why.throughput_reason
            if reason not in SILENT:
                step = abs((why.replicas or 0) - (why.current or 0)) if why.current is not None else 0
                yield (
                    place,
                    Mark(rank=notability(reason) + step / (step + 1), at_s=now_s, what=(str(reason), why)),
                )
    for role, step in _steps(before, decision):
        why = decision.explanations[role]
        yield _CHANGE_OF[role, _way(step)], Mark(rank=abs(step), at_s=now_s, what=(str(why.reason), why))


def _moments(marks: Iterable[Mark]) -> tuple[Moment, ...]:
    return tuple(
        Moment(at_s=mark.at_s, reason=mark.what[0], sentence=mark.what[1].sentence())
        for mark in sorted(marks, key=lambda mark: mark.at_s)
    )
