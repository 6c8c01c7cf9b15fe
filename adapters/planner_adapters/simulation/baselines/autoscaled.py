"""Plain autoscalers as policies: each role has its own, and all keep the planner's limits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import attrs

from planner_adapters.environment import Measured
from planner_adapters.simulation.baselines.signals import RoleSignals, role_signals
from planner_adapters.simulation.policy import Periodic
from planner_core import PlannerConfig, Role


class RoleScaler(Protocol):
    """Decides for one role; may remember."""

    @property
    def interval_s(self) -> float:
        """How often it is asked."""
        ...

    def __call__(self, now_s: float, seen: RoleSignals, /) -> int:
        """Replicas that should run."""
        ...


def autoscaled(config: PlannerConfig, scalers: Mapping[Role, RoleScaler]) -> Periodic:
    """A policy in which every role has an autoscaler of its own, asked at the shortest of their intervals.

    Minimums, maximums and the GPU budget are the planner's. A role none of whose engines reports stays as it is.
    """
    return Periodic(_Rules(config=config, scalers=scalers), min(s.interval_s for s in scalers.values()))


def static(config: PlannerConfig, replicas: Mapping[Role, int]) -> Periodic:
    """A policy that asks for the same replicas for ever."""
    return Periodic(_Fixed(fit(config, replicas)))


@attrs.frozen
class _Fixed:
    replicas: Mapping[Role, int]

    def __call__(self, now_s: float, measured: Measured) -> Mapping[Role, int]:
        return self.replicas


@attrs.frozen(kw_only=True)
class _Rules:
    config: PlannerConfig
    scalers: Mapping[Role, RoleScaler]

    def __call__(self, now_s: float, measured: Measured) -> Mapping[Role, int]:
        wishes = {}
        for role, scaler in self.scalers.items():
            seen = role_signals(measured, role, self.config.engines[role].max_kv_tokens)
            counts = measured["workers"][role]
            current = counts.ready + len(counts.starting_ages_s)
            wishes[role] = current if seen is None else scaler(now_s, seen)
        return fit(self.config, wishes)


def fit(config: PlannerConfig, wishes: Mapping[Role, int]) -> dict[Role, int]:
    """Wishes within minimums, maximums and the GPU budget; what is too much is taken from the role with most GPUs."""
    fitted = {}
    for role, wish in wishes.items():
        spec = config.engines[role]
        most = wish if spec.max_replicas is None else spec.max_replicas
        fitted[role] = max(spec.min_replicas, min(wish, most))
    budget = config.limits.max_gpus
    while budget is not None:
        gpus = {role: n * config.engines[role].num_gpus for role, n in fitted.items()}
        shrinkable = [role for role, n in fitted.items() if n > config.engines[role].min_replicas]
        if sum(gpus.values()) <= budget or not shrinkable:
            break
        fitted[max(shrinkable, key=gpus.__getitem__)] -= 1
    return fitted
