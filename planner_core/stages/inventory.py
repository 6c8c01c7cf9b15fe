"""What there is: ready, starting, draining and silent replicas, and how long a start takes.

Counts and engines' reports disagree now and then: during rollouts, behind lost messages, with pods that never come
up. Nothing here freezes the planner: whatever is missing is named, waited for within a bound, then planned without.
"""

from __future__ import annotations

import math

import attrs

from planner_core.config import EngineSpec
from planner_core.data.fpm import FpmBatch
from planner_core.data.observations import WorkerCounts
from planner_core.data.state import FleetMemory

STARTS_REMEMBERED = 16
STARTUP_QUANTILE = 0.75
"""A start is taken to last as long as three in four of those seen."""
STARTUPS_TO_STUCK = 3.0
"""A start that takes this many times longer is no longer counted on."""


@attrs.frozen(kw_only=True)
class Fleet:
    """The replicas of one role. ``None``: not known."""

    ready: int | None
    """Serving replicas; those that a rollout runs beyond the desired count are left out."""
    starting: int
    """On their way, and counted on."""
    starting_for_s: float
    """How long these have been on their way, added up; each at most for as long as a start takes."""
    stuck: int
    """On their way for so long that nobody counts on them any more."""
    desired: int | None
    """What the environment is asked to run: the count that "leave it as it is" means."""
    reporting: int
    """Replicas whose engines report."""
    missing_s: float | None
    """For how long fewer replicas have reported than are ready; ``None``: they agree."""
    startup_s: float
    """How long a start takes."""

    @property
    def total(self) -> int | None:
        """Replicas that serve now or will in time."""
        return None if self.ready is None else self.ready + self.starting

    @property
    def coverage(self) -> float:
        """Ready replicas per reporting one, by which the work that is seen stands for all; at least 1."""
        return 1.0 if self.ready is None or not self.reporting else max(1.0, self.ready / self.reporting)

    def notes(self) -> tuple[str, ...]:
        """What an operator should know."""
        notes = []
        if self.missing_s is not None:
            notes.append(f"{self.reporting} of {self.ready} replicas report, for {self.missing_s:.0f} s")
        if self.ready is not None and self.reporting > self.ready:
            notes.append(f"{self.reporting} replicas report, {self.ready} are counted ready")
        if self.stuck:
            notes.append(f"{self.stuck} replicas have been starting for too long and aren't counted on")
        return tuple(notes)


def take_stock(
    memory: FleetMemory,
    spec: EngineSpec,
    counts: WorkerCounts | None,
    batch: FpmBatch,
    now_s: float,
    patience_s: float,
) -> Fleet:
    """The fleet as it is known now."""
    reporting, startup_s = batch.num_workers, startup_time_s(memory, spec)
    if counts is None:
        ready = reporting or None
        return Fleet(
            ready=ready,
            starting=0,
            starting_for_s=0.0,
            stuck=0,
            desired=ready,
            reporting=reporting,
            missing_s=None,
            startup_s=startup_s,
        )
    ready = counts.ready if counts.expected is None else min(counts.ready, counts.expected)
    # Starts without an age show only as a gap between the expected and the ready count; patience runs for the gap.
    known = len(counts.starting_ages_s)
    pending = known if counts.expected is None else max(0, counts.expected - ready)
    waited_s = 0.0 if memory.pending_since_s is None else now_s - memory.pending_since_s
    limit_s = max(patience_s, STARTUPS_TO_STUCK * startup_s)
    timely = sum(age <= limit_s for age in counts.starting_ages_s)
    unaged = max(0, pending - known) if waited_s <= limit_s else 0
    starting = min(pending, timely + unaged)
    ages = sorted(counts.starting_ages_s)[:starting] + [waited_s] * unaged
    missing = reporting < ready
    return Fleet(
        ready=ready,
        starting=starting,
        starting_for_s=sum(min(max(age, 0.0), startup_s) for age in ages[:starting]),
        stuck=pending - starting,
        desired=ready + pending,
        reporting=reporting,
        missing_s=(0.0 if memory.mismatch_since_s is None else now_s - memory.mismatch_since_s)
        if missing
        else None,
        startup_s=startup_s,
    )


def startup_time_s(memory: FleetMemory, spec: EngineSpec) -> float:
    """How long a start takes: from those that were seen, else what the configuration says."""
    seen = sorted(memory.startup_times_s)
    return seen[math.ceil(STARTUP_QUANTILE * len(seen)) - 1] if seen else spec.startup_s


def learn(
    memory: FleetMemory, counts: WorkerCounts | None, batch: FpmBatch, now_s: float, elapsed_s: float
) -> FleetMemory:
    """The memory of starts, gaps and reports after one more look."""
    fpm_at_s = now_s if batch.num_workers else memory.fpm_at_s
    if counts is None:
        return attrs.evolve(memory, fpm_at_s=fpm_at_s, mismatch_since_s=None)
    ended = _ended_starts_s(memory, counts, elapsed_s)
    ages = counts.starting_ages_s
    pending = ages or (counts.expected is not None and counts.expected > counts.ready)
    return attrs.evolve(
        memory,
        fpm_at_s=fpm_at_s,
        pending_since_s=_since(memory.pending_since_s, now_s) if pending else None,
        mismatch_since_s=_since(memory.mismatch_since_s, now_s) if batch.num_workers < counts.ready else None,
        startup_times_s=(*memory.startup_times_s, *ended)[-STARTS_REMEMBERED:],
        starting_ages_s=tuple(sorted(ages, reverse=True)[:STARTS_REMEMBERED]) if ages else (),
        ready=counts.ready,
    )


def _since(since_s: float | None, now_s: float) -> float:
    """When something began that goes on; a clock that was set back begins it anew."""
    return now_s if since_s is None else min(since_s, now_s)


def _ended_starts_s(memory: FleetMemory, counts: WorkerCounts, elapsed_s: float) -> list[float]:
    """How long the starts took that ended since the last tick: the oldest ones, as many as became ready.

    They ended somewhere in between; the middle is taken.
    """
    if memory.ready is None or not memory.starting_ages_s:
        return []
    still = sum(age >= elapsed_s for age in counts.starting_ages_s)
    ended = min(max(0, counts.ready - memory.ready), max(0, len(memory.starting_ages_s) - still))
    return [age + elapsed_s / 2 for age in memory.starting_ages_s[:ended]]
