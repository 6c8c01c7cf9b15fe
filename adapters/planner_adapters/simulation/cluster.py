"""A cluster of simulated engines behind a router: requests go in, latencies, telemetry and GPU-hours come
out.

``advance`` plays events in the order of their times; requests that arrive at the moment in which a pass ends
are in time for the next one. Whatever the steps in which a caller advances, the same happens, to the last
bit.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Mapping
from heapq import heappop, heappush
from random import Random

import attrs
import numpy as np
import numpy.typing as npt

from planner_adapters.simulation.ledger import Ledger
from planner_adapters.simulation.pool import Pool, PoolSpec, Replica, Routing
from planner_adapters.simulation.request import Request
from planner_adapters.simulation.results import RequestResults, Status
from planner_adapters.simulation.telemetry import fpm_batch
from planner_adapters.simulation.traffic import TrafficMeter
from planner_core.data.errors import ConfigError
from planner_core.data.fpm import FpmBatch
from planner_core.data.observations import ObservedLatencies, TrafficObservation, WorkerCounts
from planner_core.data.roles import Role

_READY, _KV_ARRIVES, _ENGINE = 0, 1, 2  # kinds of events; at the same time they happen in this order

_DEPLOYMENTS = ({Role.AGG}, {Role.PREFILL, Role.DECODE}, {Role.PREFILL}, {Role.DECODE})


@attrs.frozen(kw_only=True)
class Observation:
    """What a real environment would have told since the last observation."""

    now_s: float
    workers: Mapping[Role, WorkerCounts]
    fpm: Mapping[Role, FpmBatch]
    traffic: TrafficObservation | None
    observed: ObservedLatencies | None


class Cluster:
    """Replicas of one or two roles, from ``now_s`` on; the first ones are ready at once.

    ``roles``: aggregated engines, prefill and decode engines, or either of these alone (a prefill engine
    alone is done at the first token; to a decode engine alone requests come with their prompt computed).
    ``routing``: ``round_robin``, ``least_loaded`` (fewest tokens waiting and in the cache) or ``power_of_two``
    (the lesser loaded of two drawn with ``seed``). Equal arguments and calls give equal results.
    """

    def __init__(
        self,
        *,
        roles: Mapping[Role, PoolSpec],
        routing: Routing = "round_robin",
        seed: int = 0,
        now_s: float = 0.0,
    ) -> None:
        if set(roles) not in _DEPLOYMENTS:
            names = ", ".join(sorted(roles)) or "nothing"
            raise ConfigError(f"roles are {names}: must be agg, prefill and decode, prefill, or decode")
        self.now_s = now_s
        rng = Random(seed)  # noqa: S311 (a simulation has to be repeatable)
        self._pools = {
            role: Pool(role, spec, routing, rng, hands_over=role is Role.PREFILL and Role.DECODE in roles)
            for role, spec in roles.items()
        }
        self._entry = self._pools[
            next(role for role in (Role.AGG, Role.PREFILL, Role.DECODE) if role in roles)
        ]
        self._longest_tokens = min(spec.engine.longest_request_tokens for spec in roles.values())
        self._replicas: dict[int, Replica] = {}
        self._num_replicas = 0
        self._events: list[tuple[float, int, int]] = []  # (time, kind, number of replica or request)
        self._moving: dict[int, tuple[Request, Replica, Replica]] = {}  # KV cache on its way, by request
        self._unrouted: deque[Request] = deque()  # wait for a ready replica of the entry role
        self._unmoved: deque[tuple[Request, Replica]] = deque()  # wait for a ready decode replica
        self._ledger = Ledger()
        self._meter = TrafficMeter(now_s)
        for role, spec in roles.items():
            for _ in range(spec.replicas):
                self._pools[role].now_ready(self._start(role, 0.0))

    # What goes in

    def submit(
        self,
        *,
        arrival_s: npt.ArrayLike,
        input_tokens: npt.ArrayLike,
        output_tokens: npt.ArrayLike,
        prefix_hit_tokens: npt.ArrayLike | None = None,
    ) -> None:
        """Requests as columns; they arrive at their time, those of equal time in the order of their rows.

        ``prefix_hit_tokens`` of the input are served by the prefix cache: not computed, though held in
        memory.
        """
        self._ledger.submit(self.now_s, arrival_s, input_tokens, output_tokens, prefix_hit_tokens)

    def scale(self, replicas: Mapping[Role, int], *, drain: Collection[str] = ()) -> None:
        """Sets how many replicas of each named role are to run, as an orchestrator would.

        New ones take their role's ``startup_s``. Of those too many, the ones still starting go first (latest
        first), then those named in ``drain``, then those with the least in flight; they drain before they go.
        """
        for role, target in replicas.items():
            if role not in self._pools:
                raise ValueError(f"scale: there is no role {role}; the cluster has {', '.join(self._pools)}")
            if target < 0:
                raise ValueError(f"scale: {role} = {target}: must be at least 0")
            pool = self._pools[role]
            change = target - len(pool.ready) - len(pool.starting)
            for _ in range(change):
                replica = self._start(role, pool.spec.startup_s)
                heappush(self._events, (replica.ready_s, _READY, replica.number))
            if change < 0:
                pool.shrink(-change, self.now_s, drain)

    def advance(self, until_s: float) -> None:
        """Plays everything that happens up to and including ``until_s``."""
        until_s = float(until_s)
        events, ledger = self._events, self._ledger
        while True:
            next_event_s = events[0][0] if events else math.inf
            if min(next_event_s, ledger.next_arrival_s) > until_s:
                break
            if ledger.next_arrival_s <= next_event_s:
                self._arrive(ledger.take_next())
                continue
            _, kind, number = heappop(events)
            if kind == _ENGINE:
                replica = self._replicas[number]
                if replica.engine.next_event_s == next_event_s:
                    self._step(replica, next_event_s)
            elif kind == _KV_ARRIVES:
                self._end_move(number, next_event_s)
            else:
                self._serve(self._replicas[number], next_event_s)
        self.now_s = max(self.now_s, until_s)

    # What comes out

    def observe(self, *, traffic: bool = True) -> Observation:
        """Counts now, and passes since the last call. ``traffic`` ends a traffic window and tells of it;
        without it the window goes on.
        """
        seen = self._meter.take(self.now_s) if traffic else (None, None)
        return Observation(
            now_s=self.now_s,
            workers={role: pool.counts(self.now_s) for role, pool in self._pools.items()},
            fpm={role: fpm_batch(pool.take_passes(self.now_s)) for role, pool in self._pools.items()},
            traffic=seen[0],
            observed=seen[1],
        )

    def results(self) -> RequestResults:
        """What became of every request submitted so far."""
        known = self._ledger.results()
        # An engine knows when the pass under way will bring a first token; now it has not come yet.
        first_token_s = np.where(known.first_token_s <= self.now_s, known.first_token_s, np.nan)
        return attrs.evolve(known, first_token_s=first_token_s)

    def gpu_seconds(self) -> dict[Role, float]:
        """GPU-seconds by role up to now; starting and draining replicas count."""
        return {role: pool.gpu_seconds(self.now_s) for role, pool in self._pools.items()}

    @property
    def num_unfinished(self) -> int:
        """Requests that have been submitted and are neither completed nor rejected."""
        return self._ledger.num_open

    # Requests on their way

    def _arrive(self, request: Request) -> None:
        now_s = request.arrival_s
        self._meter.arrival(request.input_tokens, request.prefix_hit_tokens)
        room = self._longest_tokens - request.input_tokens
        if room < 1:
            self._ledger.close(request, Status.REJECTED)
            return
        request.output_tokens = min(request.output_tokens, room)
        if set(self._pools) == {Role.PREFILL}:
            request.output_tokens = 1
        if self._entry.role is Role.DECODE:
            request.kv_ready = True
            if self._entry.spec.engine.prefill_emits_first_token:
                request.emitted_tokens, request.first_token_s = 1, now_s
                if request.output_tokens == 1:
                    request.finish_s = now_s
                    self._close(request)
                    return
        self._route(request, now_s)

    def _route(self, request: Request, now_s: float) -> None:
        replica = self._entry.pick()
        if replica is None:
            self._unrouted.append(request)
        else:
            replica.engine.submit(request, now_s)
            self._note(replica)

    def _step(self, replica: Replica, now_s: float) -> None:
        replica.wake_s = math.inf
        done = replica.engine.step(now_s)
        for request in done:
            if request.emitted_tokens < request.output_tokens:
                self._hand_over(request, replica, now_s)
            else:
                self._close(request)
        self._note(replica)
        if done:
            self._pools[replica.role].let_go(replica, now_s)

    def _hand_over(self, request: Request, source: Replica, now_s: float) -> None:
        target = self._pools[Role.DECODE].pick()
        if target is None:
            self._unmoved.append((request, source))
            return
        target.expected_kv += 1
        target.expected_kv_tokens += request.input_tokens
        self._moving[request.index] = (request, source, target)
        # The decode engine fetches it: its scheduler has to see the request first.
        begins_s = target.engine.next_pass_s(now_s)
        arrives_s = begins_s + source.engine.model.transfer_s(request.input_tokens)
        heappush(self._events, (arrives_s, _KV_ARRIVES, request.index))

    def _end_move(self, index: int, now_s: float) -> None:
        request, source, target = self._moving.pop(index)
        source.engine.release(request, now_s)
        self._note(source)
        self._pools[source.role].let_go(source, now_s)
        target.expected_kv -= 1
        target.expected_kv_tokens -= request.input_tokens
        request.kv_ready = True
        target.engine.submit(request, now_s)
        self._note(target)

    def _close(self, request: Request) -> None:
        self._ledger.close(request, Status.COMPLETED)
        self._meter.completion(request)

    # Replicas on their way

    def _start(self, role: Role, startup_s: float) -> Replica:
        replica = self._pools[role].start(self._num_replicas, self.now_s, startup_s)
        self._replicas[replica.number] = replica
        self._num_replicas += 1
        return replica

    def _serve(self, replica: Replica, now_s: float) -> None:
        """A replica has started: what waited for one goes on."""
        if not self._pools[replica.role].now_ready(replica):
            return
        if replica.role is self._entry.role:
            waiting, self._unrouted = self._unrouted, deque()
            for request in waiting:
                self._route(request, now_s)
        else:
            moves, self._unmoved = self._unmoved, deque()
            for request, source in moves:
                self._hand_over(request, source, now_s)

    def _note(self, replica: Replica) -> None:
        """Puts the engine's next event, if it is a new one, among the cluster's."""
        next_s = replica.engine.next_event_s
        if next_s != replica.wake_s:
            replica.wake_s = next_s
            if next_s != math.inf:
                heappush(self._events, (next_s, _ENGINE, replica.number))
