"""A new configuration for a planner that runs: what may change, and what of the memory stays."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import attrs

from planner_core import ConfigError, PlannerConfig, PlannerState, ShellSettings, initial_state

_WHILE_RUNNING = {"advisory"}
"""Shell settings that may change while the planner runs; the others are built into connections."""


class ConfigFile:
    """A configuration that is read again when its file has changed.

    ``load`` builds it from whatever else there is (flags, environment variables).
    """

    def __init__(self, path: str | Path, load: Callable[[], PlannerConfig]) -> None:
        self._path, self._load = Path(path), load
        self._loaded = self._seen = self._stamp()

    def changed(self) -> bool:
        """Whether the file has changed since it was loaded, and not since it was last asked about.

        A file that somebody is still writing may be valid as far as it goes, so a change counts when it has come to
        rest.
        """
        seen, self._seen = self._seen, self._stamp()
        return self._seen is not None and self._seen == seen and self._seen != self._loaded

    def load(self) -> PlannerConfig:
        """What it says now. ``ConfigError`` with every problem."""
        self._loaded = self._seen = self._stamp()
        return self._load()

    def _stamp(self) -> tuple[int, ...] | None:
        try:
            found = os.stat(self._path)  # follows links: a mounted ConfigMap is one that moves
        except OSError:
            return None
        return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def check_reload(before: PlannerConfig, after: PlannerConfig) -> None:
    """``ConfigError`` with everything that can't change while the planner runs."""
    problems = []
    if before.mode != after.mode:
        problems.append(f"mode = {after.mode!r} was {before.mode!r}: restart the planner to change it")
    for field in attrs.fields(ShellSettings):
        old, new = getattr(before.shell, field.name), getattr(after.shell, field.name)
        if old != new and field.name not in _WHILE_RUNNING:
            problems.append(f"{field.name} = {new!r} was {old!r}: restart the planner to change it")
    if problems:
        raise ConfigError(problems)


def carry_over(
    state: PlannerState, before: PlannerConfig, after: PlannerConfig
) -> tuple[PlannerState, tuple[str, ...]]:
    """The memory under another configuration of the same roles, and what of it had to begin anew, in words.

    Forecasters begin anew if the predictor or its interval changed, a role's performance model if it changed. All
    else stays.
    """
    fresh = initial_state(after, state.schedule.last_tick_s)
    anew = []
    demand, schedule = state.demand, state.schedule
    slow, slow_before = after.throughput_loop, before.throughput_loop
    if (slow and (slow.predictor, slow.interval_s)) != (
        slow_before and (slow_before.predictor, slow_before.interval_s)
    ):
        demand = attrs.evolve(
            demand, rate=fresh.demand.rate, isl=fresh.demand.isl, osl=fresh.demand.osl, learned_at_s=None
        )
        anew.append("forecasts")
    schedule = attrs.evolve(
        schedule,
        next_load_s=min(schedule.next_load_s, fresh.schedule.next_load_s),
        next_throughput_s=_earlier(schedule.next_throughput_s, fresh.schedule.next_throughput_s),
    )
    roles = {}
    for role, new in fresh.roles.items():
        kept = state.roles.get(role, new)
        if before.perf_model(role) != after.perf_model(role):
            kept = attrs.evolve(kept, perf=new.perf)
            anew.append(f"the performance model of {role}")
        roles[role] = kept if slow is not None else attrs.evolve(kept, floor=None)
    return PlannerState(schedule=schedule, demand=demand, roles=roles), tuple(anew)


def _earlier(scheduled_s: float | None, fresh_s: float | None) -> float | None:
    """When a loop is due next: as it was, unless that is further away than its interval now is; never if it is off."""
    if scheduled_s is None or fresh_s is None:
        return fresh_s
    return min(scheduled_s, fresh_s)
