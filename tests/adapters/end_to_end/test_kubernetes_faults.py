"""The API server fails while the loop runs: it ticks on, nothing shrinks, and two ticks after it all is done."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

pytest.importorskip("lightkube", reason="needs the extra kubernetes")

from planner_adapters.kubernetes.kinds import DEPLOYMENT
from planner_adapters.runner import Health, Live, TimeLimits, run
from planner_adapters.runner.testing import PlayedClock, PlayedFleet
from planner_core import Decision, PlannerConfig, Role

CONFIG = PlannerConfig.from_mapping(
    {"mode": "agg", "max_gpu_budget": 16, "engines": {"agg": {"max_kv_tokens": 100_000}}}
)
TEXTS = {
    "409": "conflicts (409) in a row",
    "429": "429",
    "403": "give the planner's role the verb",
    "500": "500",
    "hang": "no answer within",
    "down": "gives no answer",
}
LIMITS = TimeLimits(scale_s=5.0)
"""For an order: long enough for a slow machine, short enough to wait for one that hangs."""


async def _at_once(seconds: float) -> None:
    await asyncio.sleep(0)


@pytest.mark.parametrize("fault", TEXTS)
def test_an_order_that_fails_is_carried_out_two_ticks_after_the_server_is_back(
    kube: Any, faults: ModuleType, fault: str
) -> None:
    kube.deployment("llama", 4)
    kube.controllers.settle()
    clock, health = PlayedClock(1000.0), Health()
    work = [350_000.0]
    fleet = PlayedFleet(clock, lambda now_s: work[0], replicas=4)
    made: list[Decision] = []

    def broken(method: str, path: str) -> Any:
        if method != "PATCH":
            return None
        return "hang" if fault == "hang" else faults.answer(int(fault), "llama is forbidden")

    async def play() -> None:
        proxy = faults.Proxy(kube.config.cluster.server)
        await proxy.start()
        try:
            cluster = kube.cluster(kube.through(proxy.url), sleep=_at_once, patience_s=1.0)
            async with kube.connected(CONFIG, cluster=cluster, workloads="agg=deploy/llama") as connector:
                live = Live(connector, None, fleet, clock=clock, limits=LIMITS)

                async def ticks(number: int) -> None:
                    state = made[-1].state if made else None
                    watch = [lambda inputs, decision: made.append(decision)]
                    await run(live, CONFIG, state=state, num_ticks=number, health=health, on_tick=watch)

                await ticks(3)
                assert made[-1].replicas[Role.AGG] == 4
                work[0] = 900_000.0
                if fault == "down":
                    await proxy.stop()
                else:
                    proxy.fault = broken
                await ticks(2)
                assert TEXTS[fault] in health.problems["scale"]
                assert kube.replicas(DEPLOYMENT, "llama") == 4
                assert made[-1].replicas[Role.AGG] > 4
                if fault == "down":
                    await proxy.start()
                proxy.fault = lambda method, path: None
                await ticks(2)
                assert health.problems == {}
        finally:
            await proxy.stop()

    asyncio.run(play())
    assert kube.replicas(DEPLOYMENT, "llama") == made[-1].replicas[Role.AGG] > 4


def test_a_server_that_is_away_for_long_holds_everything_as_it_is(
    kube: Any, faults: ModuleType, until: Callable[..., Any]
) -> None:
    """Without counts nothing shrinks, though the engines idle; once they are back, it does."""
    kube.deployment("llama", 4)
    kube.controllers.settle()
    clock = PlayedClock(1000.0)
    fleet = PlayedFleet(clock, lambda now_s: 0.0 if now_s > 1000.0 else 350_000.0, replicas=4)
    made: list[Decision] = []

    async def play() -> None:
        proxy = faults.Proxy(kube.config.cluster.server)
        await proxy.start()
        try:
            cluster = kube.cluster(kube.through(proxy.url), patience_s=0.0, clock=clock.now_s)
            async with kube.connected(CONFIG, cluster=cluster, workloads="agg=deploy/llama") as connector:
                live = Live(connector, None, None, clock=clock, limits=LIMITS)
                await proxy.stop()
                await _unknown(connector, clock)
                await run(
                    live, CONFIG, num_ticks=60, on_tick=[lambda inputs, decision: made.append(decision)]
                )
                assert set(live.faults) == {"workers"}
                await proxy.start()
                await until(connector, bool)
                live = Live(connector, None, fleet, clock=clock)
                await run(
                    live,
                    CONFIG,
                    state=made[-1].state,
                    num_ticks=120,
                    on_tick=[lambda inputs, decision: made.append(decision)],
                )
        finally:
            await proxy.stop()

    asyncio.run(play())
    assert all(decision.replicas.get(Role.AGG, 4) >= 4 for decision in made[:60])
    assert kube.replicas(DEPLOYMENT, "llama") == 1


async def _unknown(connector: Any, clock: PlayedClock) -> None:
    """Returns when the outage is seen and its grace over."""
    from planner_adapters.environment import Unobserved

    async with asyncio.timeout(60):
        while True:
            clock.at_s += 60.0
            try:
                await connector.workers()
            except Unobserved:
                return
            await connector.cluster.changes.wait()
