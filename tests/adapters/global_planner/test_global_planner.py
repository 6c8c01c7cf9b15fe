"""Two local planners and a global one over loopback: one budget, and what happens when something is missing."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import attrs
import pytest

pytest.importorskip("aiohttp", reason="needs the extra: pip install 'planner-core[virtual]'")

from planner_adapters.environment import Measured, NotScaled, Order, Unobserved
from planner_adapters.global_planner import Arbiter, GlobalPlanner, Managed, read_global_settings, serve
from planner_adapters.runner import Health, Live, run
from planner_adapters.runner.testing import PlayedClock, PlayedFleet
from planner_adapters.virtual import SqliteStore, VirtualClient
from planner_core import ConfigError, NextTick, PlannerConfig, Role
from planner_core.fleet import GrantReason

CONFIG = PlannerConfig.from_mapping(
    {
        "mode": "agg",
        "max_gpu_budget": -1,
        "load_stabilisation_seconds": 0,
        "engines": {"agg": {"max_kv_tokens": 10_000, "startup_s": 0}},
    }
)
TOKENS = {"chat": "a-token-of-chat-alone", "batch": "a-token-of-batch-alone"}


@attrs.define
class Engines:
    """A deployment that obeys at once, unless it is broken."""

    replicas: int = 1
    unreadable: bool = False
    stubborn: bool = False
    told: list[int] = attrs.field(factory=list)

    async def workers(self) -> Any:
        if self.unreadable:
            raise Unobserved("the API server doesn't answer")
        return await self.fleet().workers()

    def fleet(self) -> PlayedFleet:
        return PlayedFleet(PlayedClock(), replicas=self.replicas)

    async def scale(self, order: Order) -> None:
        if self.stubborn:
            raise NotScaled("the API server doesn't answer")
        self.told.append(order.replicas[Role.AGG])
        self.replicas = order.replicas[Role.AGG]

    async def close(self) -> None:
        pass


class Now:
    """Time that stands unless it is moved."""

    def __init__(self) -> None:
        self.at_s = 1_000.0

    def __call__(self) -> float:
        return self.at_s


def arbiter_of(budget: int = 8, **engines: Engines) -> tuple[Arbiter, Now]:
    now = Now()
    managed = {
        name: Managed(
            config=CONFIG,
            environment=Live(each),
            priority=int(name == "chat"),
            callers=frozenset({name}),
        )
        for name, each in engines.items()
    }
    return Arbiter(managed, max_total_gpus=budget, clock=now), now


def played(story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(story())


async def local(
    url: str, name: str, engines: Engines, kv_tokens: Callable[[float], float], num_ticks: int = 12
) -> Health:
    """A local planner as ``planner run`` puts it together, with a clock whose hours pass in no time."""
    clock, health = PlayedClock(), Health()
    sources = PlayedFleet(clock, kv_tokens)

    async def passes() -> Any:
        sources.replicas = engines.replicas
        return await PlayedFleet.passes(sources)

    sources.passes = passes  # type: ignore[method-assign]  # the work is shared by the engines that the other side runs
    connector = GlobalPlanner(engines, url=url, token=TOKENS[name], caller=name, deployment=name)
    environment = Live(connector, sources, sources, clock=clock)
    try:
        await run(environment, CONFIG, num_ticks=num_ticks, health=health)
    finally:
        await environment.close()
    return health


def test_two_local_planners_share_one_budget_and_the_higher_priority_comes_first() -> None:
    async def story() -> None:
        chat, batch = Engines(), Engines()
        arbiter, _ = arbiter_of(8, chat=chat, batch=batch)
        async with serve(arbiter, tokens=TOKENS) as url:
            alone = await local(url, "batch", batch, lambda now_s: 200_000.0)
            assert batch.replicas == 7  # all but the minimum of the other
            assert "the global planner grants agg 7 for" in alone.problems["scale"]
            both = await asyncio.gather(
                local(url, "chat", chat, lambda now_s: 28_000.0),
                local(url, "batch", batch, lambda now_s: 200_000.0),
            )
            assert chat.replicas + batch.replicas == 8
            assert chat.replicas == 3
            assert "scale" not in both[0].problems
            assert "outranked" in both[1].problems["scale"]
            await local(url, "chat", chat, lambda now_s: 0.0, num_ticks=80)
            await local(url, "batch", batch, lambda now_s: 200_000.0)
            assert (chat.replicas, batch.replicas) == (1, 7)

    played(story)


# Trap 40, first half: a rejection by the global planner crashes the local one.


def test_a_rejection_is_a_held_decision_and_never_a_crash(caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        chat = Engines()
        arbiter, _ = arbiter_of(8, chat=chat)
        async with serve(arbiter, tokens={"chat": "another-token-altogether"}) as url:
            with caplog.at_level(logging.INFO, logger="planner"):
                health = await local(url, "chat", chat, lambda now_s: 50_000.0)
        assert chat.told == []
        assert "held, since the global planner doesn't grant it" in health.problems["scale"]
        assert "HTTP 401" in health.problems["scale"]
        decisions = [record for record in caplog.records if "event=decision" in record.message]
        assert len(decisions) == 12
        assert all("held, since the global planner" in record.message for record in decisions)
        assert TOKENS["chat"] not in caplog.text

    played(story)


def test_an_unreachable_global_planner_is_a_held_decision_and_asked_again_at_the_next_tick() -> None:
    async def story() -> None:
        chat = Engines()
        arbiter, _ = arbiter_of(8, chat=chat)
        health = await local("http://127.0.0.1:9", "chat", chat, lambda now_s: 50_000.0, num_ticks=2)
        assert chat.told == []
        assert "no connection" in health.problems["scale"]
        async with serve(arbiter, tokens=TOKENS) as url:
            health = await local(url, "chat", chat, lambda now_s: 50_000.0, num_ticks=2)
        assert chat.replicas > 1
        assert health.alive()[0]

    played(story)


# Trap 40, second half: a read failure makes the budget check pass.


def test_replicas_that_cannot_be_read_still_count_against_the_budget() -> None:
    async def story() -> None:
        chat, batch = Engines(replicas=5), Engines(replicas=1)
        arbiter, now = arbiter_of(8, chat=chat, batch=batch)
        assert (await arbiter.ask("batch", {Role.AGG: 1})).reason is GrantReason.GRANTED
        chat.unreadable = True
        now.at_s += 60.0
        grant = await arbiter.ask("batch", {Role.AGG: 8})
        assert grant.replicas == {Role.AGG: 3}
        assert chat.told == []

    played(story)


def test_nobody_grows_while_a_deployment_was_never_read_but_holding_and_shrinking_go_on() -> None:
    async def story() -> None:
        chat, batch = Engines(unreadable=True), Engines(replicas=3)
        arbiter, now = arbiter_of(100, chat=chat, batch=batch)
        grant = await arbiter.ask("batch", {Role.AGG: 4})
        assert (grant.replicas, grant.reason) == ({Role.AGG: 3}, GrantReason.USAGE_UNKNOWN)
        assert (await arbiter.ask("batch", {Role.AGG: 2})).replicas == {Role.AGG: 2}
        now.at_s += 60.0
        chat.unreadable = False
        assert (await arbiter.ask("batch", {Role.AGG: 4})).reason is GrantReason.GRANTED

    played(story)


def test_nobody_grows_on_gpus_that_were_not_given_back() -> None:
    async def story() -> None:
        chat, batch = Engines(replicas=2), Engines(replicas=6, stubborn=True)
        arbiter, _ = arbiter_of(8, chat=chat, batch=batch)
        grant = await arbiter.ask("chat", {Role.AGG: 5})
        assert grant.replicas == {Role.AGG: 2}
        assert grant.note == "batch didn't give back what is needed"
        batch.stubborn = False
        assert (await arbiter.ask("chat", {Role.AGG: 5})).reason is GrantReason.GRANTED
        assert (chat.replicas, batch.replicas) == (5, 3)

    played(story)


def test_what_was_just_granted_counts_though_the_cluster_does_not_show_it_yet() -> None:
    class Lagging(Engines):
        async def scale(self, order: Order) -> None:
            self.told.append(order.replicas[Role.AGG])

    async def story() -> None:
        chat, batch = Lagging(), Engines()
        arbiter, _ = arbiter_of(8, chat=chat, batch=batch)
        assert (await arbiter.ask("chat", {Role.AGG: 6})).replicas == {Role.AGG: 6}
        assert (await arbiter.ask("batch", {Role.AGG: 6})).replicas == {Role.AGG: 2}

    played(story)


def test_a_wish_that_is_not_repeated_is_forgotten() -> None:
    async def story() -> None:
        chat, batch = Engines(), Engines()
        arbiter, now = arbiter_of(8, chat=chat, batch=batch)
        await arbiter.ask("chat", {Role.AGG: 6})
        chat.replicas = 1  # by hand
        now.at_s += 60.0
        assert (await arbiter.ask("batch", {Role.AGG: 6})).replicas == {Role.AGG: 2}
        now.at_s += 600.0
        assert (await arbiter.ask("batch", {Role.AGG: 6})).replicas == {Role.AGG: 6}

    played(story)


def ask(url: str, body: Any, token: str = TOKENS["chat"]) -> tuple[int, Any]:
    request = urllib.request.Request(
        f"{url}/scale", json.dumps(body).encode(), {"Authorization": f"Bearer {token}"}
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())["error"]


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ({"caller": "chat", "deployment": "batch", "num_agg": 1}, 403, "may not scale"),
        ({"caller": "batch", "deployment": "batch", "num_agg": 1}, 403, "may not scale"),
        ({"caller": "chat", "deployment": "none", "num_agg": 1}, 403, "may not scale"),
        ({"caller": ["chat"], "deployment": {}, "num_agg": 1}, 403, "may not scale"),
        ({"caller": "chat", "deployment": "chat", "num_decode": 1}, 400, "has no role decode"),
        ({"caller": "chat", "deployment": "chat", "num_agg": -1}, 400, "num_agg must be"),
        ({"caller": "chat", "deployment": "chat", "num_agg": 10**9}, 400, "num_agg must be"),
        ({"caller": "chat", "deployment": "chat"}, 400, "says no counts"),
        ({"caller": "chat", "deployment": "chat", "num_agg": 1, "drain": [1]}, 400, "drain must hold"),
        ({"caller": "chat", "deployment": "chat", "num_agg": 1, "drain": {"agg": [1]}}, 400, "drain must"),
        ([], 400, "must be a JSON object"),
        ({"caller": "x" * 70_000}, 413, "Entity Too Large"),
    ],
)
def test_who_may_not_ask_and_what_cannot_be_meant_change_nothing(body: Any, status: int, says: str) -> None:
    async def story() -> None:
        chat, batch = Engines(), Engines()
        arbiter, _ = arbiter_of(8, chat=chat, batch=batch)
        async with serve(arbiter, tokens=TOKENS) as url:
            code, error = await asyncio.to_thread(ask, url, body)
            assert code == status
            assert says in error
        assert chat.told == batch.told == []

    played(story)


def test_an_environment_that_does_not_obey_is_said_to_the_caller() -> None:
    async def story() -> None:
        arbiter, _ = arbiter_of(8, chat=Engines(stubborn=True))
        async with serve(arbiter, tokens=TOKENS) as url:
            body = {"caller": "chat", "deployment": "chat", "num_agg": 2}
            assert await asyncio.to_thread(ask, url, body) == (503, "chat: the API server doesn't answer")

    played(story)


def test_everything_that_is_wrong_with_a_file_is_named_at_once(tmp_path: Path) -> None:
    file = tmp_path / "global.json"
    file.write_text(
        json.dumps(
            {
                "max_gpus": 4,
                "min_total_gpus": "many",
                "deployments": {
                    "a": {"planner": {"mode": "aggg"}, "store": "sqlite:a.db"},
                    "b": {"priority": 1.5, "callers": "b"},
                    "c": 3,
                },
            }
        )
    )
    with pytest.raises(ConfigError) as caught:
        read_global_settings(file)
    words = "\n".join(caught.value.problems)
    for part in (
        "max_gpus is no key",
        "min_total_gpus = 'many'",
        "deployments.a.planner: mode = 'aggg'",
        "deployments.b.priority = 1.5",
        "deployments.b.callers must be a list",
        "deployments.b needs either store, or graph or workloads",
        "deployments.c must be a mapping",
    ):
        assert part in words
    assert all(problem.startswith(f"{file}: ") for problem in caught.value.problems)


def test_two_deployments_under_one_name_of_a_store_are_refused(tmp_path: Path) -> None:
    def read(**namespaces: str) -> list[str]:
        places = {
            name: {"store": "sqlite:d.db", "planner": {"mode": "agg", "namespace": namespace}}
            for name, namespace in namespaces.items()
        }
        file = tmp_path / "global.json"
        file.write_text(json.dumps({"deployments": places | {"lab": {"store": "sqlite:d.db"}}}))
        return [place.name for place in read_global_settings(file).deployments.values()]

    assert read(chat="talk", batch="night") == ["talk", "night", "lab"]
    with pytest.raises(ConfigError, match="chat and batch are both 'talk' in the store"):
        read(chat="talk", batch="talk")


def test_the_two_commands_work_together(tmp_path: Path) -> None:
    """`planner global`, and `planner run` beside it, as processes: what the one grants, the environment is told."""
    store = f"sqlite:{tmp_path / 'store'}"
    planner: dict[str, Any] = {"mode": "agg", "min_endpoint": 3}
    file = tmp_path / "global.json"
    file.write_text(
        json.dumps({"max_total_gpus": 8, "deployments": {"dynamo": {"planner": planner, "store": store}}})
    )
    local_file = tmp_path / "local.json"
    keys = {"environment": "global-planner", "global_planner_namespace": "planning"}
    local_file.write_text(json.dumps(planner | keys | {"prometheus_endpoint": "http://127.0.0.1:9"}))

    async def report() -> None:
        client = VirtualClient(SqliteStore(tmp_path / "store"))
        await client.report({Role.AGG: 1})
        await client.close()

    asyncio.run(report())
    planner_command = [sys.executable, "-P", "-m", "planner_adapters.cli"]
    environ = os.environ | {"PLANNER_GLOBAL_TOKENS": "dynamo=a-token-of-the-local-one"}
    with subprocess.Popen(
        [*planner_command, "global", "--config", str(file), "--listen", "0"],
        stderr=subprocess.PIPE,
        text=True,
        env=environ,
    ) as central:
        assert central.stderr is not None
        begun = re.search(r"url=(\S+)", central.stderr.readline())
        assert begun
        told = {
            "PLANNER_VIRTUAL_STORE": store,
            "PLANNER_GLOBAL_URL": begun[1],
            "PLANNER_GLOBAL_TOKEN": "a-token-of-the-local-one",
            "PLANNER_ENGINE_TARGETS": "agg=http://127.0.0.1:9/metrics",
        }
        done = subprocess.run(
            [*planner_command, "run", "--config", str(local_file), "--once"],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | told,
        )
        central.send_signal(signal.SIGTERM)
        rest = central.stderr.read()
    assert (done.returncode, central.returncode) == (0, 0), done.stderr + rest
    assert "event=grant deployment=dynamo agg=3/3 reason=granted" in rest

    async def decided() -> None:
        client = VirtualClient(SqliteStore(tmp_path / "store"))
        decision = await client.wait(timeout_s=0)
        await client.close()
        assert decision is not None
        assert decision.replicas == {Role.AGG: 3}

    asyncio.run(decided())


class Deaf:
    """An environment of somebody else's that raises what it likes."""

    async def wait_until(self, at_s: float) -> float:
        return at_s

    async def observe(self, upcoming: NextTick) -> Measured:
        raise RuntimeError("whatever")

    async def scale(self, order: Order) -> None:
        raise RuntimeError("whatever")

    async def close(self) -> None:
        pass


def test_an_environment_that_raises_anything_is_unknown_and_stops_nobody() -> None:
    async def story() -> None:
        managed = {"odd": Managed(config=CONFIG, environment=Deaf())}
        arbiter = Arbiter(managed, max_total_gpus=4)
        grant = await arbiter.ask("odd", {Role.AGG: 2})
        assert grant.reason is GrantReason.USAGE_UNKNOWN
        assert grant.replicas == {}

    played(story)
