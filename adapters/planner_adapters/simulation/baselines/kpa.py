"""Knative's Pod Autoscaler (KPA), by its public documentation."""

from __future__ import annotations

import math
from collections import deque

import attrs

from planner_adapters.simulation.baselines.signals import RoleSignals


@attrs.define(kw_only=True)
class Kpa:
    """One role's KPA on concurrency: ceil(mean requests in flight over the window / (target × utilisation)).

    The stable window is 60 s, the panic window a tenth of it. Where the panic window asks for 200 % of the ready
    replicas, panic begins: until a stable window has passed without such a demand, nothing shrinks and the panic window
    decides. In one tick of 2 s it grows at most 1 000-fold and shrinks at most to a half. Target 100, utilisation 70 %.
    (knative.dev, "Additional autoscaling configuration for KPA", "Configuring concurrency", "Scale bounds"; ConfigMap
    ``config-autoscaler``.)
    """

    target: float = 100.0
    utilisation: float = 0.7
    interval_s: float = 2.0
    stable_window_s: float = 60.0
    panic_window_s: float = 6.0
    panic_threshold: float = 2.0
    max_scale_up_rate: float = 1000.0
    max_scale_down_rate: float = 2.0
    _samples: deque[tuple[float, float]] = attrs.field(factory=deque, init=False)
    _panic_since_s: float | None = attrs.field(default=None, init=False)
    _panic_replicas: int = attrs.field(default=0, init=False)

    def __call__(self, now_s: float, seen: RoleSignals) -> int:
        """Replicas that should run."""
        self._samples.append((now_s, seen.in_flight))
        while self._samples[0][0] <= now_s - self.stable_window_s:
            self._samples.popleft()
        stable = self._wish(self._mean_since(now_s - self.stable_window_s), seen.ready)
        urgent = self._wish(self._mean_since(now_s - self.panic_window_s), seen.ready)
        if urgent >= self.panic_threshold * seen.ready:
            if self._panic_since_s is None:
                self._panic_replicas = 0
            self._panic_since_s = now_s
        elif self._panic_since_s is not None and now_s - self._panic_since_s > self.stable_window_s:
            self._panic_since_s = None
        if self._panic_since_s is None:
            return stable
        self._panic_replicas = max(self._panic_replicas, urgent, seen.replicas)
        return self._panic_replicas

    def _mean_since(self, since_s: float) -> float:
        values = [value for at_s, value in self._samples if at_s > since_s]
        return sum(values) / len(values)

    def _wish(self, in_flight: float, ready: int) -> int:
        least = math.floor(ready / self.max_scale_down_rate)
        most = math.ceil(ready * self.max_scale_up_rate)
        return min(max(math.ceil(in_flight / (self.target * self.utilisation)), least), most)
