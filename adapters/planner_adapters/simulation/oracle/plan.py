"""A plan of how many replicas serve when, and the policy that orders them early enough."""

from __future__ import annotations

import math
from collections.abc import Mapping

import attrs
import numpy as np

from planner_adapters.environment import Measured
from planner_adapters.simulation.policy import PlainOrder
from planner_adapters.simulation.results import Ints
from planner_core import NextTick, Role

LOOK_S = 15.0
"""How often it is asked where nothing changes, for the timeline."""


@attrs.frozen(kw_only=True, eq=False)
class Plan:
    """Replicas that are to be ready, per role, in windows of ``window_s`` from 0 on; the last one holds on."""

    window_s: float
    replicas: Mapping[Role, Ints]

    def orders(self, role: Role, startup_s: float) -> list[tuple[float, int]]:
        """(time, replicas ready or starting), rising in time: at any time the most that a window needs which begins
        before a replica ordered now would be ready. So a valley that is shorter than a start is not left at all.
        """
        needs = self.replicas[role]
        starts_s = np.arange(len(needs)) * self.window_s
        times_s = np.unique(np.maximum(np.concatenate([starts_s, starts_s - startup_s]), 0.0))
        orders: list[tuple[float, int]] = []
        for at_s in times_s.tolist():
            first = math.floor(at_s / self.window_s + 1e-9)
            last = math.floor((at_s + startup_s) / self.window_s + 1e-9)
            target = int(needs[first : last + 1].max())
            if not orders or orders[-1][1] != target:
                orders.append((at_s, target))
        return orders


class PlanPolicy:
    """Carries a plan out: every replica is ordered its startup time before it is needed."""

    def __init__(self, plan: Plan, startup_s: Mapping[Role, float]) -> None:
        self._orders = [
            (at_s, role, replicas)
            for role in plan.replicas
            for at_s, replicas in plan.orders(role, startup_s[role])
        ]
        self._orders.sort(key=lambda order: order[0], reverse=True)  # the next one last
        self._replicas: dict[Role, int] = {}

    def begin(self, now_s: float) -> NextTick:
        """At once."""
        return self._at(now_s)

    def decide(self, now_s: float, measured: Measured) -> PlainOrder:
        """What the plan says for now."""
        while self._orders and self._orders[-1][0] <= now_s:
            _, role, self._replicas[role] = self._orders.pop()
        next_s = min([now_s + LOOK_S, *(at_s for at_s, _, _ in self._orders[-1:])])
        return PlainOrder(replicas=dict(self._replicas), next_tick=self._at(next_s))

    @staticmethod
    def _at(at_s: float) -> NextTick:
        return NextTick(
            at_s=at_s, load=True, throughput=False, needs=frozenset({"workers"}), traffic_window_s=LOOK_S
        )
