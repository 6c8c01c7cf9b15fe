"""What is due now, when to come back, and what to measure until then."""

from __future__ import annotations

import math

import attrs

from planner_core.config import LoadScaling, PlannerConfig
from planner_core.data.state import ScheduleState
from planner_core.types import Need, NextTick

MERGE_S = 0.5
"""Loops that are due this close to each other share a tick."""
LEARN_INTERVAL_S = LoadScaling().interval_s
"""How often passes are learned from while the load loop is off."""

_WITHOUT_TRAFFIC: frozenset[Need] = frozenset(("workers", "fpm"))
_WITH_TRAFFIC: frozenset[Need] = frozenset(("workers", "fpm", "traffic"))


@attrs.frozen(kw_only=True)
class Due:
    """What one tick has to do."""

    advanced: bool
    """Time went on since the last tick. If not, nothing is learned and no loop runs."""
    elapsed_s: float
    load: bool
    throughput: bool


def start(config: PlannerConfig, now_s: float) -> ScheduleState:
    """The schedule of a planner that begins now: each loop after its first interval."""
    slow = config.throughput_loop
    return ScheduleState(
        last_tick_s=now_s,
        next_load_s=now_s + _fast_interval_s(config),
        next_throughput_s=None if slow is None else now_s + slow.interval_s,
        traffic_from_s=now_s,
    )


def due(schedule: ScheduleState, config: PlannerConfig, now_s: float) -> Due:
    """Which loops run now. A clock that stands still or goes back makes nothing due."""
    advanced = now_s > schedule.last_tick_s
    slow = config.throughput_loop
    return Due(
        advanced=advanced,
        elapsed_s=max(0.0, now_s - schedule.last_tick_s),
        load=advanced
        and config.load_loop is not None
        and now_s >= schedule.next_load_s - _merge_s(_fast_interval_s(config)),
        throughput=advanced
        and slow is not None
        and (
            schedule.next_throughput_s is None
            or now_s >= schedule.next_throughput_s - _merge_s(slow.interval_s)
        ),
    )


def after(schedule: ScheduleState, config: PlannerConfig, now_s: float) -> ScheduleState:
    """The schedule after a tick at ``now_s``. Intervals that were slept through are dropped, not made up for."""
    if now_s == schedule.last_tick_s:
        return schedule
    slow = config.throughput_loop
    asked = _asks_for_traffic(config, _next_at(schedule, config)[2])
    return ScheduleState(
        last_tick_s=now_s,
        next_load_s=_next(schedule.next_load_s, _fast_interval_s(config), now_s),
        next_throughput_s=None if slow is None else _next(schedule.next_throughput_s, slow.interval_s, now_s),
        traffic_from_s=now_s if asked else min(schedule.traffic_from_s, now_s),
    )


def next_tick(schedule: ScheduleState, config: PlannerConfig) -> NextTick:
    """When to come back and what for."""
    at_s, load, throughput = _next_at(schedule, config)
    return NextTick(
        at_s=at_s,
        load=load,
        throughput=throughput,
        needs=_WITH_TRAFFIC if _asks_for_traffic(config, throughput) else _WITHOUT_TRAFFIC,
        traffic_window_s=max(0.0, at_s - schedule.traffic_from_s),
    )


def _next_at(schedule: ScheduleState, config: PlannerConfig) -> tuple[float, bool, bool]:
    """When the next loop is due, and whether the fast and the slow one run then."""
    slow = config.throughput_loop
    slow_s = math.inf if slow is None or schedule.next_throughput_s is None else schedule.next_throughput_s
    at_s = min(schedule.next_load_s, slow_s)
    load = config.load_loop is not None and schedule.next_load_s - at_s <= _merge_s(_fast_interval_s(config))
    return at_s, load, slow is not None and slow_s - at_s <= _merge_s(slow.interval_s)


def _asks_for_traffic(config: PlannerConfig, throughput: bool) -> bool:
    """Whether a tick that runs these loops uses traffic; a fleet of zero is woken by arrivals."""
    if throughput or config.load_loop is None:
        return throughput
    return config.target == "sla" or any(spec.min_replicas == 0 for spec in config.engines.values())


def _fast_interval_s(config: PlannerConfig) -> float:
    fast, slow = config.load_loop, config.throughput_loop
    if fast is not None:
        return fast.interval_s
    return LEARN_INTERVAL_S if slow is None else min(LEARN_INTERVAL_S, slow.interval_s)


def _merge_s(interval_s: float) -> float:
    return min(MERGE_S, interval_s / 2)


def _next(scheduled_s: float | None, interval_s: float, now_s: float) -> float:
    """The first moment of the loop's grid that lies ahead; a new grid after a clock that was set back."""
    if scheduled_s is None or scheduled_s > now_s + interval_s + MERGE_S:
        return now_s + interval_s
    ahead_s = now_s + _merge_s(interval_s) - scheduled_s
    if ahead_s < 0:
        return scheduled_s
    return scheduled_s + interval_s * (math.floor(ahead_s / interval_s) + 1)
