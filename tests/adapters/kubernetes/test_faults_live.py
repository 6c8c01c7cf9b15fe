"""A real API server behind a proxy that breaks things."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from types import ModuleType
from typing import Any

import pytest

from planner_adapters.environment import NotScaled, Unobserved
from planner_adapters.kubernetes.api import RequestFailedError
from planner_adapters.kubernetes.kinds import DEPLOYMENT, LEADER_WORKER_SET
from planner_adapters.kubernetes.mirror import Mirror
from planner_core import PlannerConfig, Role, WorkerCounts

Story = Callable[[Any, Any], Awaitable[None]]


class Waits:
    """Stands in for sleeping: remembers how long, and goes on at once."""

    def __init__(self) -> None:
        self.slept_s: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.slept_s.append(seconds)
        await asyncio.sleep(0)


@pytest.fixture
def behind_proxy(kube: Any, faults: ModuleType, agg: PlannerConfig) -> Callable[..., None]:
    """Runs a story with a Deployment ``llama`` of two replicas, a proxy in front of the server, and a connector."""
    kube.deployment("llama", 2)
    kube.controllers.settle()

    def run(story: Story, **options: Any) -> None:
        async def main() -> None:
            proxy = faults.Proxy(kube.config.cluster.server)
            await proxy.start()
            try:
                cluster = kube.cluster(kube.through(proxy.url), **options)
                async with kube.connected(agg, cluster=cluster, workloads="agg=deploy/llama") as connector:
                    await story(proxy, connector)
            finally:
                await proxy.stop()

        asyncio.run(main())

    return run


async def _empty(left: list[Any]) -> None:
    """Returns when all of them were used."""
    async with asyncio.timeout(60.0):
        while left:
            await asyncio.sleep(0.05)


def only(method: str, part: str, *answers: Any) -> Callable[[str, str], Any]:
    """Gives these answers, one by one, to requests of a method whose path has a part; the rest goes through."""
    left = list(answers)
    return lambda m, path: left.pop(0) if left and m == method and part in path else None


def test_a_conflict_is_tried_again_on_what_stands_there_now(
    kube: Any, faults: ModuleType, behind_proxy: Callable[..., None], order: Callable[..., Any]
) -> None:
    async def story(proxy: Any, connector: Any) -> None:
        edits = iter((3, 4))

        def fault(method: str, path: str) -> None:
            if method == "PATCH" and "/scale" in path and (by_hand := next(edits, None)):
                kube.patch(DEPLOYMENT, "llama", {"spec": {"replicas": by_hand}})  # somebody is quicker

        proxy.fault = fault
        await connector.scale(order({Role.AGG: 7}))
        assert proxy.count("PATCH", "/scale") == 3
        assert proxy.count("GET", "/scale") == 3

    behind_proxy(story)
    assert kube.replicas(DEPLOYMENT, "llama") == 7


def test_a_storm_of_conflicts_ends_with_a_reason(
    kube: Any, faults: ModuleType, behind_proxy: Callable[..., None], order: Callable[..., Any]
) -> None:
    async def story(proxy: Any, connector: Any) -> None:
        proxy.fault = only("PATCH", "/scale", *[faults.answer(409)] * 100)
        with pytest.raises(
            NotScaled, match=r"conflicts \(409\) in a row; does another autoscaler write it\?"
        ):
            await connector.scale(order({Role.AGG: 7}))
        assert proxy.count("PATCH", "/scale") < 20
        proxy.fault = only("PATCH", "/scale", *[faults.answer(409)] * 3)
        await connector.scale(order({Role.AGG: 7}))

    behind_proxy(story)
    assert kube.replicas(DEPLOYMENT, "llama") == 7


@pytest.mark.parametrize("code", [429, 500, 502, 503, 504])
def test_what_passes_is_tried_again_with_growing_pauses(
    kube: Any, faults: ModuleType, behind_proxy: Callable[..., None], order: Callable[..., Any], code: int
) -> None:
    waits = Waits()

    async def story(proxy: Any, connector: Any) -> None:
        proxy.fault = only("PATCH", "/scale", *[faults.answer(code)] * 3)
        await connector.scale(order({Role.AGG: 7}))

    behind_proxy(story, sleep=waits)
    assert kube.replicas(DEPLOYMENT, "llama") == 7
    assert waits.slept_s == [0.1, 0.2, 0.4]


def test_the_server_says_how_long_to_wait(
    kube: Any, faults: ModuleType, behind_proxy: Callable[..., None], order: Callable[..., Any]
) -> None:
    waits = Waits()

    async def story(proxy: Any, connector: Any) -> None:
        proxy.fault = only("GET", "/scale", faults.answer(429, Retry_After="3"))
        await connector.scale(order({Role.AGG: 7}))

    behind_proxy(story, sleep=waits)
    assert waits.slept_s == [3.0]


def test_trying_again_ends_and_names_what_failed(
    faults: ModuleType, behind_proxy: Callable[..., None], order: Callable[..., Any]
) -> None:
    waits = Waits()

    async def story(proxy: Any, connector: Any) -> None:
        proxy.fault = only("GET", "/scale", *[faults.answer(503, "etcd is leaderless")] * 1000)
        with pytest.raises(
            NotScaled,
            match=r"Deployment 'llama' not scaled: get \"deployments/scale\" .* 503: etcd is leaderless",
        ):
            await connector.scale(order({Role.AGG: 7}))

    behind_proxy(story, sleep=waits)
    assert sum(waits.slept_s) <= 4.0


def test_an_answer_that_is_no_json_is_a_failure_like_any_other(
    behind_proxy: Callable[..., None], order: Callable[..., Any]
) -> None:
    page = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbusy"

    async def story(proxy: Any, connector: Any) -> None:
        proxy.fault = only("GET", "/scale", page, page)
        await connector.scale(order({Role.AGG: 2}))
        proxy.fault = only("GET", "/scale", *[page] * 100)
        with pytest.raises(NotScaled):
            await connector.scale(order({Role.AGG: 2}))

    behind_proxy(story, sleep=Waits())


def test_a_right_that_is_missing_is_named_with_verb_and_resource(
    kube: Any, faults: ModuleType, behind_proxy: Callable[..., None], order: Callable[..., Any]
) -> None:
    async def story(proxy: Any, connector: Any) -> None:
        proxy.fault = only("PATCH", "/scale", faults.answer(403, 'User "planner" cannot patch'))
        with pytest.raises(NotScaled) as raised:
            await connector.scale(order({Role.AGG: 7}))
        text = str(raised.value)
        assert 'give the planner\'s role the verb "patch" on "deployments/scale" of API group "apps"' in text
        assert proxy.count("PATCH", "/scale") == 1, "a refusal is not tried again"

    behind_proxy(story)


@pytest.mark.parametrize("how", ["event", "response"])
def test_a_watch_that_the_server_has_forgotten_begins_anew(
    kube: Any,
    faults: ModuleType,
    behind_proxy: Callable[..., None],
    until: Callable[..., Any],
    how: str,
) -> None:
    gone = faults.watch_error(410) if how == "event" else faults.answer(410)

    async def story(proxy: Any, connector: Any) -> None:
        answers = [gone, gone, gone]
        proxy.fault = lambda method, path: answers.pop() if answers and "watch=true" in path else None
        await proxy.cut()
        await _empty(answers)
        kube.patch(DEPLOYMENT, "llama", {"spec": {"replicas": 5}})
        kube.controllers.settle()
        await until(connector, lambda counts: counts[Role.AGG] == WorkerCounts(ready=5, expected=5))

    behind_proxy(story)


def test_the_server_s_own_410_begins_anew_from_a_new_list(kube: Any, faults: ModuleType) -> None:
    """Watches are asked for as of a change before the server knew the kind, and so before all that it remembers."""
    times = [1, 2, 3]

    def from_the_beginning(method: str, path: str) -> str | None:
        if not times or "watch=true" not in path:
            return None
        times.pop()
        return re.sub(r"resourceVersion=\d+", "resourceVersion=1", path)

    async def main() -> None:
        proxy, changes = faults.Proxy(kube.config.cluster.server), asyncio.Event()
        await proxy.start()
        cluster = kube.cluster(kube.through(proxy.url))
        try:
            with pytest.raises(RequestFailedError, match="too old resource version: 1 ") as caught:
                async with aclosing(
                    cluster.api.watch(LEADER_WORKER_SET, kube.namespace, None, None, "1")
                ) as seen:
                    await anext(seen)
            assert caught.value.code == 410
            proxy.fault = from_the_beginning
            clock = asyncio.get_running_loop().time
            mirror = Mirror(
                cluster.api, LEADER_WORKER_SET, kube.namespace, changes=changes, clock=clock, sleep=Waits()
            )
            async with asyncio.timeout(60.0):
                while proxy.count("GET", "watch=true") < 5:  # one by hand, three too old, one that goes on
                    await asyncio.sleep(0.01)
                await asyncio.to_thread(kube.leader_worker_set, "llama", 2)
                while "llama" not in mirror.objects():
                    await changes.wait()
                    changes.clear()
            await mirror.close()
        finally:
            await cluster.close()
            await proxy.stop()

    asyncio.run(main())


def test_a_server_that_restarts_is_found_again_and_nothing_is_missed(
    kube: Any, behind_proxy: Callable[..., None], until: Callable[..., Any], order: Callable[..., Any]
) -> None:
    async def story(proxy: Any, connector: Any) -> None:
        before = await connector.workers()
        await proxy.stop()
        assert await connector.workers() == before, "what was seen a moment ago still holds"
        with pytest.raises(NotScaled, match="gives no answer to get"):
            await connector.scale(order({Role.AGG: 9}))
        kube.patch(DEPLOYMENT, "llama", {"spec": {"replicas": 5}})
        kube.controllers.settle()
        await proxy.start()
        await until(connector, lambda counts: counts[Role.AGG] == WorkerCounts(ready=5, expected=5))

    behind_proxy(story, patience_s=0.3)


def test_an_outage_is_unknown_after_a_moment_and_never_zero(
    kube: Any, behind_proxy: Callable[..., None], until: Callable[..., Any]
) -> None:
    now_s = [0.0]

    async def story(proxy: Any, connector: Any) -> None:
        await proxy.stop()
        await _unknown(connector, now_s)
        now_s[0] += 600
        with pytest.raises(Unobserved, match=r"not known for 6\d\d s: http://127.0.0.1:\d+ gives no answer"):
            await connector.workers()
        await proxy.start()
        await until(connector, lambda counts: counts[Role.AGG] == WorkerCounts(ready=2, expected=2))

    behind_proxy(story, patience_s=0.3, clock=lambda: now_s[0])


async def _unknown(connector: Any, now_s: list[float]) -> None:
    """Waits until both copies have noticed, time going on."""
    async with asyncio.timeout(30):
        while True:
            now_s[0] += 11.0
            try:
                await connector.workers()
            except Unobserved:
                return
            await connector.cluster.changes.wait()


def test_a_slow_server_delays_and_breaks_nothing(
    kube: Any, behind_proxy: Callable[..., None], until: Callable[..., Any]
) -> None:
    async def story(proxy: Any, connector: Any) -> None:
        proxy.fault = lambda method, path: "hang"
        await proxy.cut()
        assert (await connector.workers())[Role.AGG].ready == 2
        proxy.fault = lambda method, path: None
        await proxy.cut()
        kube.patch(DEPLOYMENT, "llama", {"spec": {"replicas": 1}})
        kube.controllers.settle()
        await until(connector, lambda counts: counts[Role.AGG] == WorkerCounts(ready=1, expected=1))

    behind_proxy(story)


def test_a_server_that_hangs_is_not_taken_for_a_quiet_one(behind_proxy: Callable[..., None]) -> None:
    now_s = [0.0]

    async def story(proxy: Any, connector: Any) -> None:
        proxy.fault = lambda method, path: "hang"
        await _unknown(connector, now_s)  # watches that are open already stay open, and silent

    behind_proxy(story, patience_s=0.1, request_s=0.3, rewatch_s=0.2, clock=lambda: now_s[0])


def test_closing_in_the_middle_of_an_outage_leaves_nothing_behind(behind_proxy: Callable[..., None]) -> None:
    async def story(proxy: Any, connector: Any) -> None:
        proxy.fault = lambda method, path: "hang"
        await proxy.cut()
        await connector.cluster.close()
        others = asyncio.all_tasks() - {asyncio.current_task()} - proxy.tasks
        assert not others

    behind_proxy(story)


def test_pods_that_cannot_be_marked_do_not_hold_up_the_order(
    kube: Any,
    faults: ModuleType,
    behind_proxy: Callable[..., None],
    order: Callable[..., Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    pod = sorted(kube.pods())[0]

    async def story(proxy: Any, connector: Any) -> None:
        proxy.fault = only("PATCH", "/pods/", faults.answer(403))
        await connector.scale(order({Role.AGG: 1}, {Role.AGG: (pod,)}))

    behind_proxy(story)
    assert kube.replicas(DEPLOYMENT, "llama") == 1
    assert 'the verb "patch" on "pods" of API group ""' in caplog.text
