"""A policy as the scaling policy that Dynamo's mocker asks: its snapshots become measurements, orders its targets.

A snapshot has the last pass of each engine since the one before; of an engine without one, an idle heartbeat is
told, as a real engine sends one. Which engine is drained the mocker decides.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from planner_adapters.environment import Measured, Order
from planner_adapters.simulation.policy import Policy
from planner_adapters.simulation.replay import FleetLog
from planner_core import (
    ForwardPassMetrics,
    FpmBatch,
    NextTick,
    ObservedLatencies,
    Role,
    TrafficObservation,
    WorkerCounts,
)

Snapshot = Mapping[str, Any]

_PASS = {
    "wall_time_s": "wall_time",
    "num_prefill": "num_prefill_requests",
    "prefill_tokens": "sum_prefill_tokens",
    "prefill_kv_tokens": "sum_prefill_kv_tokens",
    "var_prefill_length": "var_prefill_length",
    "num_decode": "num_decode_requests",
    "decode_kv_tokens": "sum_decode_kv_tokens",
    "var_decode_kv_tokens": "var_decode_kv_tokens",
    "queued_num_prefill": "num_queued_prefill",
    "queued_prefill_tokens": "sum_queued_prefill_tokens",
    "queued_var_prefill_length": "var_queued_prefill_length",
    "queued_num_decode": "num_queued_decode",
    "queued_decode_kv_tokens": "sum_queued_decode_kv_tokens",
    "queued_var_decode_kv_tokens": "var_queued_decode_kv_tokens",
}
"""Our names and the mocker's."""

POOLS = {Role.PREFILL: "prefill", Role.DECODE: "decode", Role.AGG: "decode"}
"""What the mocker calls the engines of a role."""


class MockerHook:
    """What the mocker calls; its clock starts at ``start_s`` of ours."""

    def __init__(
        self,
        policy: Policy,
        initial: Mapping[Role, int],
        *,
        start_s: float,
        on_tick: Callable[[float], None] = lambda now_s: None,
    ) -> None:
        self.log = FleetLog(dict(initial))
        self.planner_s = 0.0
        self._policy, self._on_tick, self._start_s = policy, on_tick, start_s
        self._since_s: dict[tuple[Role, int], float] = {}  # when a starting engine was first seen
        self._wanted = dict(initial)
        self._traffic = TrafficWindow()
        self._upcoming: NextTick | None = None

    def initial_tick_ms(self) -> float:
        """When to be asked first."""
        self._upcoming = self._policy.begin(self._start_s)
        return self._to_ms(self._upcoming)

    def on_tick(self, snapshot: Snapshot) -> dict[str, float | None]:
        """Targets, and when to be asked next."""
        assert self._upcoming is not None
        # Milliseconds and back may round: a tick must not come before its time.
        now_s = max(self._start_s + snapshot["now_ms"] / 1e3, self._upcoming.at_s)
        measured = self._measure(snapshot, now_s)
        began = time.perf_counter()
        order = self._policy.decide(now_s, measured)
        self.planner_s += time.perf_counter() - began
        self.log.note(now_s, measured["workers"], order.replicas)
        if order.next_tick.at_s <= now_s:
            raise ValueError(
                f"the policy wants to be asked next at {order.next_tick.at_s:g} s, and it is {now_s:g} s already"
            )
        self._upcoming = order.next_tick
        self._on_tick(now_s)
        return self._targets(order) | {"next_tick_ms": self._to_ms(order.next_tick)}

    def _to_ms(self, upcoming: NextTick) -> float:
        return (upcoming.at_s - self._start_s) * 1e3

    def _targets(self, order: Order) -> dict[str, float | None]:
        targets: dict[str, float | None] = {"target_prefill": None, "target_decode": None}
        for role, replicas in order.replicas.items():
            if replicas != self._wanted[role]:
                self._wanted[role] = replicas
                targets[f"target_{POOLS[role]}"] = replicas
        return targets

    def _measure(self, snapshot: Snapshot, now_s: float) -> Measured:
        assert self._upcoming is not None
        measured = Measured(
            workers={role: self._counts(snapshot, role, now_s) for role in self._wanted},
            fpm={role: passes(snapshot, role) for role in self._wanted},
        )
        self._traffic.add(snapshot.get("traffic"))
        if "traffic" in self._upcoming.needs:
            measured["traffic"], measured["observed"] = self._traffic.take()
        return measured

    def _counts(self, snapshot: Snapshot, role: Role, now_s: float) -> WorkerCounts:
        pool = POOLS[role]
        starting = [(role, number) for number in snapshot[f"starting_{pool}_ids"]]
        for engine in starting:
            self._since_s.setdefault(engine, self._asked_s(now_s))
        ready = snapshot[f"active_{pool}_count"]
        return WorkerCounts(
            ready=ready,
            expected=ready + len(starting),
            starting_ages_s=tuple(now_s - self._since_s[engine] for engine in starting),
            draining=snapshot[f"draining_{pool}_count"],
        )

    def _asked_s(self, now_s: float) -> float:
        """Replicas are asked for at ticks alone: those seen now for the first time, at the last one."""
        return self.log.last_s if self.log.last_s is not None else now_s


def passes(snapshot: Snapshot, role: Role) -> FpmBatch:
    """The last pass of each active engine; a heartbeat of one that had none."""
    pool = POOLS[role]
    last = {record["worker_id"]: record for record in snapshot[f"{pool}_fpm_snapshots"]}
    return FpmBatch.of(
        ForwardPassMetrics(
            worker_id=f"{role}-{number}",
            **{ours: last[number][theirs] for ours, theirs in _PASS.items()}
            if number in last
            else {"wall_time_s": 0.0},
        )
        for number in snapshot[f"active_{pool}_ids"]
    )


class TrafficWindow:
    """Adds the mocker's counts up, from one :meth:`take` to the next."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}

    def add(self, traffic: Mapping[str, Any] | None) -> None:
        """One snapshot's counts; its means become sums."""
        if traffic is None:
            return
        means = (
            ("avg_isl", "shape_count"),
            ("avg_osl", "shape_count"),
            ("avg_ttft_ms", "ttft_count"),
            ("avg_itl_ms", "itl_count"),
        )
        new = {
            key: float(traffic[key])
            for key in ("duration_s", "num_req", "shape_count", "ttft_count", "itl_count")
        }
        new |= {mean: float(traffic[mean] or 0.0) * new[count] for mean, count in means}
        self._sums = {key: self._sums.get(key, 0.0) + value for key, value in new.items()}

    def take(self) -> tuple[TrafficObservation | None, ObservedLatencies | None]:
        """The window that ends now; ``(None, None)`` for one without length. Lengths are those of requests that
        completed in it.
        """
        sums, self._sums = self._sums, {}
        if not sums.get("duration_s", 0.0) > 0:
            return None, None

        def mean(total: str, count: str) -> float | None:
            return sums[total] / sums[count] if sums[count] else None

        traffic = TrafficObservation(
            duration_s=sums["duration_s"],
            num_requests=sums["num_req"],
            num_completed=sums["shape_count"],
            isl=mean("avg_isl", "shape_count"),
            osl=mean("avg_osl", "shape_count"),
        )
        observed = ObservedLatencies(
            ttft_ms=mean("avg_ttft_ms", "ttft_count"), itl_ms=mean("avg_itl_ms", "itl_count")
        )
        return traffic, observed
