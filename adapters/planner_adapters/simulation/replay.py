"""A workload against a simulated cluster, tick by tick: would this configuration keep the SLA, at what
cost?"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import numpy as np

from planner_adapters.simulation.cluster import Cluster
from planner_adapters.simulation.environment import SimulatedEnvironment
from planner_adapters.simulation.outcome import ReplayResult, Timeline
from planner_adapters.simulation.policy import PlannerPolicy, Policy
from planner_adapters.simulation.pool import PoolSpec, Routing
from planner_adapters.simulation.workload import Workload
from planner_core import PlannerConfig, Role, WorkerCounts

GRACE_S = 1800.0


def replay(
    workload: Workload,
    config: PlannerConfig,
    roles: Mapping[Role, PoolSpec],
    *,
    policy: Policy | None = None,
    routing: Routing = "round_robin",
    seed: int = 0,
    grace_s: float = GRACE_S,
    on_tick: Callable[[float], None] = lambda now_s: None,
) -> ReplayResult:
    """Drives ``policy`` (by default the planner with ``config``) until every request is accounted for.

    ``roles`` are the engines of each role, how many there are at the start, and how long one takes to
    start. Requests that haven't finished ``grace_s`` after the last arrival are given up: ``unfinished``.
    ``on_tick`` is called with the simulated time after every tick. Equal arguments give equal results, but
    for the times they took.
    """
    began = time.perf_counter()
    policy = PlannerPolicy(config) if policy is None else policy
    cluster = Cluster(roles=roles, routing=routing, seed=seed)
    cluster.submit(
        arrival_s=workload.arrival_s,
        input_tokens=workload.input_tokens,
        output_tokens=workload.output_tokens,
        prefix_hit_tokens=workload.prefix_hit_tokens,
    )
    environment = SimulatedEnvironment(cluster)
    last_arrival_s = float(workload.arrival_s[-1])
    end_s = last_arrival_s + grace_s
    log = FleetLog({role: spec.replicas for role, spec in roles.items()})
    planner_s = 0.0
    upcoming = policy.begin(cluster.now_s)
    while True:
        now_s = _play(environment, min(upcoming.at_s, end_s), last_arrival_s)
        if cluster.num_unfinished == 0 or now_s >= end_s:
            break
        measured = environment.observe(upcoming)
        started = time.perf_counter()
        order = policy.decide(now_s, measured)
        planner_s += time.perf_counter() - started
        environment.scale(order)
        log.note(now_s, measured["workers"], order.replicas)
        upcoming = order.next_tick
        if upcoming.at_s <= now_s:
            raise ValueError(
                f"the policy wants to be asked next at {upcoming.at_s:g} s, and it is {now_s:g} s already"
            )
        on_tick(now_s)
    return ReplayResult(
        name=workload.name,
        sla=config.sla,
        requests=cluster.results(),
        timeline=log.timeline(),
        end_s=cluster.now_s,
        gpu_hours=sum(cluster.gpu_seconds().values()) / 3600,
        wall_s=time.perf_counter() - began,
        planner_s=planner_s,
    )


def _play(environment: SimulatedEnvironment, at_s: float, last_arrival_s: float) -> float:
    """On to ``at_s``; after the last arrival second by second, so that the bill ends with the last
    request."""
    cluster = environment.cluster
    now_s = environment.wait_until(max(cluster.now_s, min(at_s, last_arrival_s)))
    while now_s < at_s and cluster.num_unfinished:
        now_s = environment.wait_until(min(at_s, now_s + 1.0))
    return now_s


class FleetLog:
    """A :class:`~planner_adapters.simulation.outcome.Timeline` as it grows."""

    def __init__(self, initial: dict[Role, int]) -> None:
        self._initial = initial
        self._wanted = dict(initial)
        self._at_s: list[float] = []
        self._rows: list[list[tuple[int, int, int, int]]] = []

    @property
    def last_s(self) -> float | None:
        """When the last decision was noted."""
        return self._at_s[-1] if self._at_s else None

    def note(self, now_s: float, workers: Mapping[Role, WorkerCounts], replicas: Mapping[Role, int]) -> None:
        """The fleet before a decision, and what that asks for."""
        self._wanted |= replicas
        self._at_s.append(now_s)
        row = []
        for role in self._initial:
            counts = workers[role]
            row.append((counts.ready, len(counts.starting_ages_s), counts.draining, self._wanted[role]))
        self._rows.append(row)

    def timeline(self) -> Timeline:
        """What has been noted."""
        table = np.array(self._rows, dtype=np.int64).reshape(len(self._at_s), len(self._initial), 4)
        ready, starting, draining, wanted = (
            {role: table[:, i, column] for i, role in enumerate(self._initial)} for column in range(4)
        )
        return Timeline(
            at_s=np.array(self._at_s),
            ready=ready,
            starting=starting,
            draining=draining,
            wanted=wanted,
            initial=self._initial,
        )
