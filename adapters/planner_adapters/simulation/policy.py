"""Who decides in a replay: the planner, or anything else that turns measurements into replicas."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeAlias

import attrs

from planner_adapters.environment import Measured, Order
from planner_core import (
    Decision,
    NextTick,
    PlannerConfig,
    PlannerState,
    Role,
    TickInput,
    TrafficObservation,
    first_tick,
    initial_state,
    tick,
)

Rule: TypeAlias = Callable[[float, Measured], Mapping[Role, int]]
"""(now_s, measured) → replicas of the roles that are to change."""


class Policy(Protocol):
    """Decides how many replicas run. It may remember; one object serves one replay."""

    def begin(self, now_s: float) -> NextTick:
        """When to be asked first."""
        ...

    def decide(self, now_s: float, measured: Measured) -> Order:
        """What should run now, and when to be asked next."""
        ...


class PlannerPolicy:
    """The planner, its state carried from tick to tick."""

    def __init__(self, config: PlannerConfig, traffic: Sequence[TrafficObservation] = ()) -> None:
        """``traffic`` are past windows to warm the forecasters with, oldest first."""
        self._config, self._traffic = config, traffic
        self.state: PlannerState | None = None
        """What the next tick will know of the past; ``None`` before the first. May be set, to go on from."""
        self.last: tuple[TickInput, Decision] | None = None
        """The last tick, for a journal."""

    def begin(self, now_s: float) -> NextTick:
        """The first tick of a planner that has no more of a past than its warm-up."""
        self.state = initial_state(self._config, now_s, traffic=self._traffic)
        return first_tick(self._config, now_s)

    def decide(self, now_s: float, measured: Measured) -> Decision:
        """One tick."""
        if self.state is None:
            self.begin(now_s)
        assert self.state is not None
        inputs = TickInput(config=self._config, state=self.state, now_s=now_s, **measured)
        decision = tick(inputs)
        self.state, self.last = decision.state, (inputs, decision)
        return decision


@attrs.frozen(kw_only=True)
class PlainOrder:
    """Replicas, and when to ask next."""

    replicas: Mapping[Role, int]
    next_tick: NextTick
    drain: Mapping[Role, tuple[str, ...]] = attrs.field(factory=dict)


@attrs.frozen
class Periodic:
    """A plain rule, asked every ``interval_s``: how a baseline runs in the loop that drives the planner."""

    rule: Rule
    interval_s: float = 15.0

    def begin(self, now_s: float) -> NextTick:
        """After one interval."""
        return NextTick(
            at_s=now_s + self.interval_s,
            load=True,
            throughput=False,
            needs=frozenset({"workers", "fpm", "traffic"}),
            traffic_window_s=self.interval_s,
        )

    def decide(self, now_s: float, measured: Measured) -> PlainOrder:
        """What the rule says."""
        return PlainOrder(replicas=self.rule(now_s, measured), next_tick=self.begin(now_s))
