"""One trace and the deployment that is to serve it: what every policy of a comparison has in common."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from planner_adapters.simulation.deployment import Deployment
from planner_adapters.simulation.pool import PoolSpec, Routing
from planner_adapters.simulation.workload import Workload
from planner_core import PlannerConfig, Role, TrafficObservation

WINDOW_S = 15.0
"""Length of a window in which the oracle keeps its replicas."""


@attrs.frozen(kw_only=True, eq=False)
class Case:
    """Plain data, so that it can be sent to another process or machine."""

    workload: Workload
    config: PlannerConfig
    """Of the planner; the baselines take its SLA, minimums, maximums and budget."""
    roles: Mapping[Role, PoolSpec]
    """With the replicas that every policy finds at the start."""
    replicas_given: bool
    """Whether these were asked for; if not, the survey of the first windows says how many."""
    engine: str
    routing: Routing = "round_robin"
    seed: int = 0
    window_s: float = WINDOW_S
    warmup: tuple[TrafficObservation, ...] = ()
    """Past traffic that the planner's forecasters know."""

    @property
    def name(self) -> str:
        """Of the trace."""
        return self.workload.name

    def named(self, name: str) -> Case:
        """The same under another name; in a comparison each name stands once."""
        return attrs.evolve(self, workload=attrs.evolve(self.workload, name=name))

    def starting_with(self, replicas: Mapping[Role, int]) -> Case:
        """The same with other replicas at the start."""
        roles = {role: attrs.evolve(spec, replicas=replicas[role]) for role, spec in self.roles.items()}
        return attrs.evolve(self, roles=roles)


def case_of(
    workload: Workload,
    deployment: Deployment,
    *,
    replicas_given: bool = False,
    routing: Routing = "round_robin",
    seed: int = 0,
    window_s: float = WINDOW_S,
    warmup: tuple[TrafficObservation, ...] = (),
) -> Case:
    """A trace on a deployment. Without ``replicas_given``, as many run at the start as the first minutes need."""
    return Case(
        workload=workload,
        config=deployment.config,
        roles=deployment.roles,
        replicas_given=replicas_given,
        engine=deployment.engine,
        routing=routing,
        seed=seed,
        window_s=window_s,
        warmup=warmup,
    )
