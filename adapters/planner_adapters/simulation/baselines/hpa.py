"""Kubernetes' Horizontal Pod Autoscaler and KEDA, by their public documentation."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import Literal

import attrs

from planner_adapters.simulation.baselines.signals import RoleSignals

Metric = Literal["queue", "kv"]

_PER_ROLE: dict[str, Callable[[RoleSignals], float]] = {
    "queue": lambda seen: seen.waiting,
    "kv": lambda seen: seen.kv_use * seen.ready,
}
"""Sum over the role's replicas."""


@attrs.define(kw_only=True)
class Hpa:
    """One role's HorizontalPodAutoscaler on a metric per replica: waiting requests, or KV use.

    desired = ceil(replicas × mean / target), unless the ratio is within 10 % of 1, every 15 s. Replicas that are
    starting have no metric yet: they count as 0 when it would grow and as the target when it would shrink. Growth is
    limited to the double or to 4 more per sync; it shrinks only to the highest desire of the last 300 s. (Tolerance,
    missing metrics, the default ``behavior``: kubernetes.io, "Horizontal Pod Autoscaling", autoscaling/v2.)
    """

    target: float
    metric: Metric = "queue"
    interval_s: float = 15.0
    tolerance: float = 0.1
    stabilisation_s: float = 300.0
    _desires: deque[tuple[float, int]] = attrs.field(factory=deque, init=False)

    def __call__(self, now_s: float, seen: RoleSignals) -> int:
        """Replicas that should run."""
        return self._stabilised(now_s, seen.replicas, self._desired(seen))

    def _desired(self, seen: RoleSignals) -> int:
        total, current = _PER_ROLE[self.metric](seen), seen.replicas
        ratio = total / (self.target * seen.ready)
        if ratio < 1:
            total += self.target * seen.starting
        if abs(ratio - 1) <= self.tolerance or abs(total / (self.target * current) - 1) <= self.tolerance:
            return current
        desired = math.ceil(total / self.target)
        return max(desired, current) if ratio > 1 else min(desired, current)

    def _stabilised(self, now_s: float, current: int, desired: int) -> int:
        desires = self._desires
        if not desires:
            desires.append((now_s, current))
        desires.append((now_s, desired))
        while desires[0][0] <= now_s - self.stabilisation_s and len(desires) > 1:
            desires.popleft()
        if desired < current:
            return min(current, max(wish for _, wish in desires))
        return min(desired, max(2 * current, current + 4))


@attrs.define(kw_only=True)
class Keda(Hpa):
    """One role's KEDA ScaledObject with a trigger on its queue: ceil(waiting requests of the role / threshold).

    Polled every 30 s. Between minimum and maximum KEDA lets an HPA act, on the sum and not on a mean per ready
    replica (``AverageValue``). Its cooldown of 300 s before a role goes to rest is as long as the HPA's stabilisation:
    one window stands for both. (keda.sh, "ScaledObject specification": ``pollingInterval``, ``cooldownPeriod``.)
    """

    interval_s: float = 30.0

    def _desired(self, seen: RoleSignals) -> int:
        total, current = _PER_ROLE[self.metric](seen), seen.replicas
        if abs(total / (self.target * current) - 1) <= self.tolerance:
            return current
        return math.ceil(total / self.target)
