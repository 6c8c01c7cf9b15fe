"""What a shell around the planner implements, whatever it scales: wait, observe, scale.

An :class:`Environment` is all of it in one object. Live shells are put together from parts: a :class:`Connector` scales
replicas, a :class:`TrafficSource` and a :class:`PassSource` measure, and
:class:`~planner_adapters.runner.Live` makes an :class:`AsyncEnvironment` of them. What can't be known is
:class:`Unobserved`, what couldn't be done :class:`NotScaled`; nothing is ever turned into zero.

The whole planner is six lines::

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
from typing import Protocol, TypedDict, runtime_checkable

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


class AsyncEnvironment(Protocol):
    """The same where waiting and measuring are asynchronous."""

    async def wait_until(self, at_s: float) -> float:
        """Returns at ``at_s`` or later, with the time that it is then. May be cancelled and called again."""
        ...

    async def observe(self, upcoming: NextTick) -> Measured:
        """What ``upcoming.needs`` asks for, as far as it can be had."""
        ...

    async def scale(self, order: Order) -> None:
        """Sets the replicas. The same order twice changes nothing. :class:`NotScaled` if it couldn't be done."""
        ...

    async def close(self) -> None:
        """Lets go of connections and tasks."""
        ...


class Connector(Protocol):
    """Where replicas live."""

    async def workers(self) -> dict[Role, WorkerCounts]:
        """The replicas of each role; a role that isn't known is left out. :class:`Unobserved` if none is."""
        ...

    async def scale(self, order: Order) -> None:
        """Sets the replicas; absolute and idempotent. :class:`NotScaled` if it couldn't be carried out."""
        ...

    async def close(self) -> None:
        """Lets go of connections and tasks."""
        ...


class TrafficSource(Protocol):
    """Where traffic is measured. One that knows latencies too has ``async def latencies(window_s)``."""

    async def traffic(self, window_s: float) -> TrafficObservation | None:
        """The traffic of the last ``window_s`` seconds; ``None`` or :class:`Unobserved` if it isn't known."""
        ...

    async def close(self) -> None:
        """Lets go of connections and tasks."""
        ...


@runtime_checkable
class LatencySource(Protocol):
    """What a :class:`TrafficSource` may be beside."""

    async def latencies(self, window_s: float) -> ObservedLatencies | None:
        """What users saw in the last ``window_s`` seconds."""
        ...


class PassSource(Protocol):
    """Where engines say what they do."""

    async def passes(self) -> dict[Role, FpmBatch]:
        """Forward passes since the last call, oldest first; an engine that is lost is left out."""
        ...

    async def close(self) -> None:
        """Lets go of connections and tasks."""
        ...


class Unobserved(Exception):  # noqa: N818  # a state of things, not a fault of the program
    """Something couldn't be measured. The message is one line: what, where, since when, and how to mend it."""

    def __init__(self, reason: str) -> None:
        super().__init__(" ".join(reason.split()))


class NotScaled(Exception):  # noqa: N818
    """An order couldn't be carried out. The message is one line: what, where, and how to mend it."""

    def __init__(self, reason: str) -> None:
        super().__init__(" ".join(reason.split()))
