"""Prometheus fails while the loop runs: nothing shrinks on ignorance, and two ticks after it all is as before."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

pytest.importorskip("aiohttp", reason="needs the extra prometheus")

from planner_adapters.prometheus import (
    EngineOptions,
    HttpOptions,
    PrometheusOptions,
    pass_source,
    traffic_source,
)
from planner_adapters.runner import Health, Live, TimeLimits, run
from planner_adapters.runner.testing import PlayedClock
from planner_core import Decision, PlannerConfig, Role, TickInput

PATIENCE_S = 3.0
"""For one request: long enough for a slow machine, short enough to wait for one that hangs."""
HTTP = HttpOptions(timeout_s=PATIENCE_S, retries=0)
LIMITS = TimeLimits(traffic_s=30.0, passes_s=30.0)
CONFIG: dict[str, Any] = {
    "optimization_target": "sla",
    "ttft": 500,
    "itl": 20,
    "enable_load_scaling": True,
    "throughput_adjustment_interval_seconds": 30,
    "load_stabilisation_seconds": 30,
    "load_predictor": "constant",
    "max_gpu_budget": 20,
}
RATE = 26.0
BEFORE, AFTER = 30, 20
"""Ticks: until the fleet has settled, and after the fault."""
TEN_MINUTES = 120
"""Ticks."""
FAULTS = {
    "drop": 30,
    "hang": 2,
    "500": 30,
    "NaN": 30,
    "empty": 30,
    "stale": TEN_MINUTES,
    "clock an hour on": 10,
    "clock an hour back": 10,
}
"""And for how many ticks they last."""
JUMPS_S = {"clock an hour on": 3600.0, "clock an hour back": -3600.0}


@pytest.mark.parametrize("fault", FAULTS)
def test_nothing_shrinks_on_ignorance_and_two_ticks_later_all_is_known_again(
    played: Any, double: Any, fault: str
) -> None:
    clock = PlayedClock(1_700_000_000.0)
    prometheus = played.prometheus(clock)
    prometheus.engines.set_rate(RATE)
    graph = played.PlayedGraph(prometheus, {Role.PREFILL: 4, Role.DECODE: 3})
    made: list[tuple[TickInput, Decision]] = []
    ready: list[bool] = []

    async def play() -> None:
        async with double(prometheus.respond) as server:
            config = PlannerConfig.from_mapping({**CONFIG, "prometheus_endpoint": server.url})
            labels = {
                role: {"dynamo_component": component, "dynamo_namespace": "dynamo"}
                for role, component in zip(config.engines, played.COMPONENTS.values(), strict=True)
            }
            live = Live(
                graph,
                traffic_source(config, PrometheusOptions(http=HTTP)),
                pass_source(config, in_prometheus=labels, options=EngineOptions(http=HTTP)),
                clock=clock,
                limits=LIMITS,
            )
            health = Health(monotonic=lambda: prometheus.now_s)

            async def ticks(number: int) -> None:
                await run(
                    live,
                    config,
                    state=made[-1][1].state if made else None,
                    num_ticks=number,
                    health=health,
                    on_tick=[
                        lambda inputs, decision: made.append((inputs, decision)),
                        lambda inputs, decision: ready.append(health.unfed() is None),
                    ],
                )

            await ticks(BEFORE)
            if fault in JUMPS_S:
                clock.at_s += JUMPS_S[fault]
            else:
                prometheus.fault = fault
            await ticks(FAULTS[fault])
            prometheus.fault = None
            await ticks(AFTER)
            await live.close()

    asyncio.run(play())
    settled = made[BEFORE - 1][1].replicas
    assert min(settled.values()) > 1
    over = BEFORE + FAULTS[fault]
    during, after = made[BEFORE:over], made[over:]
    ordered = [decision.replicas for _, decision in during + after]
    ttft_ms, itl_ms = prometheus.engines.latencies_ms()
    assert ttft_ms <= CONFIG["ttft"]
    assert itl_ms <= CONFIG["itl"]
    if fault in JUMPS_S:  # the rate of an hour ago is none: at first that orders more
        assert all(ordered[0][role] >= settled[role] for role in settled)
    else:
        # Never fewer; what arrives after a gap may look like growth, which is worth one replica.
        assert all(settled[role] <= each[role] <= settled[role] + 1 for each in ordered for role in settled)
        assert not during[-1][0].fpm
        assert during[-1][0].traffic is None
        assert not ready[over - 1] or FAULTS[fault] < 12  # missed for a minute
    assert ready[over + 1]
    assert set(after[1][0].fpm) == set(settled)
    assert any(inputs.traffic is not None for inputs, _ in after[:7])  # the slow loop asks every sixth tick
