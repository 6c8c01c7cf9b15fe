"""For tests of what stands around the loop: a clock that is played, and a fleet that obeys at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from planner_adapters.environment import Order
from planner_core import ForwardPassMetrics, FpmBatch, Role, TrafficObservation, WorkerCounts


class PlayedClock:
    """A clock whose hours pass in no time. Sleepers let other tasks run first."""

    def __init__(self, now_s: float = 0.0) -> None:
        self.at_s = now_s

    def now_s(self) -> float:
        """The time, in seconds."""
        return self.at_s

    async def sleep(self, duration_s: float) -> None:
        """Moves on so far."""
        await asyncio.sleep(0)
        self.at_s += duration_s


class PlayedFleet:
    """Connector, traffic and passes of aggregated engines, which share ``kv_tokens(now_s)`` of decode work.

    What is ordered is there at once, and kept in ``orders``.
    """

    def __init__(
        self,
        clock: PlayedClock,
        kv_tokens: Callable[[float], float] = lambda now_s: 0.0,
        *,
        replicas: int = 1,
    ) -> None:
        self.clock, self.kv_tokens, self.replicas = clock, kv_tokens, replicas
        self.orders: list[Order] = []
        self.closed = 0

    async def workers(self) -> dict[Role, WorkerCounts]:
        """All of them, ready."""
        return {Role.AGG: WorkerCounts(ready=self.replicas, expected=self.replicas)}

    async def passes(self) -> dict[Role, FpmBatch]:
        """One pass of each engine."""
        share = self.kv_tokens(self.clock.at_s) / max(1, self.replicas)
        records = [
            ForwardPassMetrics(
                worker_id=f"engine-{number}",
                wall_time_s=0.02,
                num_decode=share // 1000,
                decode_kv_tokens=share,
            )
            for number in range(self.replicas)
        ]
        return {Role.AGG: FpmBatch.of(records)}

    async def traffic(self, window_s: float) -> TrafficObservation | None:
        """One request for each thousand tokens."""
        return TrafficObservation(
            duration_s=window_s, num_requests=self.kv_tokens(self.clock.at_s) // 1000, isl=800.0, osl=200.0
        )

    async def scale(self, order: Order) -> None:
        """Obeys."""
        self.orders.append(order)
        self.replicas = order.replicas.get(Role.AGG, self.replicas)

    async def close(self) -> None:
        """Counts."""
        self.closed += 1
