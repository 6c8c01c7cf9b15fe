"""What a shell around the planner implements, whatever it scales: wait, observe, scale.

With it the whole planner is six lines::

    state, upcoming = initial_state(config, now_s), first_tick(config, now_s)
    while True:
        now_s = environment.wait_until(upcoming.at_s)
        measured = environment.observe(upcoming)
        decision = tick(TickInput(config=config, state=state, now_s=now_s, **measured))
        environment.scale(decision)
        state, upcoming = decision.state, decision.next_tick
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, TypedDict

from planner_core import (
    FpmBatch,
    NextTick,
    ObservedLatencies,
    Role,
    TrafficForecast,
    TrafficObservation,
    WorkerCounts,
)


class Measured(TypedDict, total=False):
    """What was measured since the last tick, as keywords of ``TickInput``. Unknown is left out."""

    workers: dict[Role, WorkerCounts]
    traffic: TrafficObservation | None
    fpm: dict[Role, FpmBatch]
    forecast: TrafficForecast | None
    observed: ObservedLatencies | None


class Order(Protocol):
    """What an environment carries out: a :class:`~planner_core.Decision`, or the order of another policy."""

    @property
    def replicas(self) -> Mapping[Role, int]:
        """Absolute targets; a role left out stays as it is."""
        ...

    @property
    def drain(self) -> Mapping[Role, tuple[str, ...]]:
        """Worker ids to remove first."""
        ...

    @property
    def next_tick(self) -> NextTick:
        """When the policy wants to be asked next."""
        ...


class Environment(Protocol):
    """Where engines run."""

    def wait_until(self, at_s: float) -> float:
        """Returns at ``at_s`` or later, with the time that it is then."""
        ...

    def observe(self, upcoming: NextTick) -> Measured:
        """What ``upcoming.needs`` asks for, as far as it can be had."""
        ...

    def scale(self, order: Order) -> None:
        """Sets the replicas. The same order twice changes nothing."""
        ...
