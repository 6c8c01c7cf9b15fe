"""The replicas of one role: they start, serve, drain and go, and one of them is picked for each request."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from random import Random
from typing import Literal, get_args

import attrs

from planner_adapters.simulation.engine import Engine
from planner_adapters.simulation.model import EngineModel
from planner_adapters.simulation.telemetry import PassRecord
from planner_adapters.simulation.timing import PassTimer
from planner_core.data.checks import config_number
from planner_core.data.errors import ConfigError
from planner_core.data.observations import WorkerCounts
from planner_core.data.roles import Role

Routing = Literal["round_robin", "least_loaded", "power_of_two"]
ROUTINGS: tuple[str, ...] = get_args(Routing)


@attrs.frozen(kw_only=True)
class PoolSpec:
    """What the replicas of a role are, how many there are at first, and how long one takes to start."""

    engine: EngineModel
    replicas: int = attrs.field(default=1, validator=config_number(whole=True, least=0))
    startup_s: float = attrs.field(default=60.0, validator=config_number(least=0))


@attrs.define(kw_only=True, eq=False)
class Replica:
    """An engine with the times of its life."""

    worker_id: str
    number: int
    """Unique in the cluster, rising with the start."""
    role: Role
    engine: Engine
    asked_s: float
    ready_s: float
    expected_kv: int = 0
    """Requests whose KV cache is on its way here, and its tokens."""
    expected_kv_tokens: int = 0
    wake_s: float = math.inf
    """The event of its engine that the cluster has noted."""

    @property
    def num_in_flight(self) -> int:
        """Requests that it can't go without finishing."""
        return self.engine.num_requests + self.expected_kv

    @property
    def load_tokens(self) -> int:
        """Work in tokens, that which is on its way here included."""
        return self.engine.load_tokens + self.expected_kv_tokens


class Pool:
    """The replicas of one role, oldest first in each state."""

    def __init__(
        self, role: Role, spec: PoolSpec, routing: Routing, rng: Random, *, hands_over: bool = False
    ) -> None:
        if routing not in ROUTINGS:
            raise ConfigError(f"routing = {routing!r}: must be one of {', '.join(ROUTINGS)}")
        self.role, self.spec, self._hands_over = role, spec, hands_over
        self.ready: list[Replica] = []
        self.starting: list[Replica] = []
        self.draining: list[Replica] = []
        self._routing: Routing = routing
        self._rng = rng
        self._turn = 0
        self._timer = PassTimer(spec.engine.timing)
        self._gone_gpu_s = 0.0
        self._asked = 0

    def __iter__(self) -> Iterator[Replica]:
        return iter((*self.ready, *self.starting, *self.draining))

    def start(self, number: int, now_s: float, startup_s: float) -> Replica:
        """A new replica, ready after ``startup_s``."""
        model = self.spec.engine
        engine = Engine(model, hands_over=self._hands_over, timer=self._timer)
        worker_id = f"{self.role}-{self._asked}"
        self._asked += 1
        replica = Replica(
            worker_id=worker_id,
            number=number,
            role=self.role,
            engine=engine,
            asked_s=now_s,
            ready_s=now_s + startup_s,
        )
        self.starting.append(replica)
        return replica

    def now_ready(self, replica: Replica) -> bool:
        """Puts a started replica into service; False if its start was cancelled."""
        if replica not in self.starting:
            return False
        self.starting.remove(replica)
        self.ready.append(replica)
        return True

    def shrink(self, replicas: int, now_s: float, drain: Collection[str]) -> None:
        """Removes ``replicas``: those still starting first (latest first), then those named in ``drain``,
        then those with the least in flight. Ready ones drain: they get nothing new and go when they are
        done.
        """
        while replicas and self.starting:
            self._count_gone(self.starting.pop(), now_s)
            replicas -= 1
        by_choice = sorted(self.ready, key=lambda r: (r.worker_id not in drain, r.num_in_flight, -r.number))
        for replica in by_choice[:replicas]:
            self.ready.remove(replica)
            self.draining.append(replica)
            self.let_go(replica, now_s)

    def let_go(self, replica: Replica, now_s: float) -> None:
        """Ends a draining replica if nothing is left in flight on it."""
        if replica.num_in_flight == 0 and replica in self.draining:
            self.draining.remove(replica)
            self._count_gone(replica, now_s)

    def pick(self) -> Replica | None:
        """The ready replica that gets the next request, as the routing says; ``None`` if there is none."""
        ready = self.ready
        if not ready:
            return None
        if self._routing == "round_robin" or len(ready) == 1:
            self._turn += 1
            return ready[(self._turn - 1) % len(ready)]
        candidates = ready if self._routing == "least_loaded" else self._rng.sample(ready, 2)
        return min(candidates, key=lambda r: (r.load_tokens, r.number))

    def counts(self, now_s: float) -> WorkerCounts:
        """What an orchestrator would tell of the role."""
        return WorkerCounts(
            ready=len(self.ready),
            expected=len(self.ready) + len(self.starting),
            starting_ages_s=tuple(now_s - replica.asked_s for replica in self.starting),
            draining=len(self.draining),
        )

    def take_passes(self, now_s: float) -> list[tuple[str, PassRecord]]:
        """What the ready engines tell of their passes since the last call, with their ids. (An orchestrator
        takes a draining replica off the list of those it listens to.)
        """
        return [(r.worker_id, record) for r in self.ready for record in r.engine.take_passes(now_s)]

    def gpu_seconds(self, now_s: float) -> float:
        """GPU-seconds so far: every replica counts from when it was asked for until it is gone."""
        alive = sum(now_s - replica.asked_s for replica in self)
        return self._gone_gpu_s + alive * self.spec.engine.num_gpus

    def _count_gone(self, replica: Replica, now_s: float) -> None:
        self._gone_gpu_s += (now_s - replica.asked_s) * self.spec.engine.num_gpus
