from __future__ import annotations

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any

import attrs
import pytest

aiohttp = pytest.importorskip("aiohttp", reason="the dashboard is served by aiohttp, which is not installed")

from planner_adapters import guarded_http  # noqa: E402
from planner_adapters.dashboard import Dashboard  # noqa: E402
from planner_adapters.dashboard.client import MOST_WAITING  # noqa: E402
from planner_core import PlannerConfig, Role, ShellSettings  # noqa: E402

Run = Callable[..., Any]
BOUND_S = 60.0
NUM_CLIENTS = 50


def within_bound(talk: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(BOUND_S):
            await talk

    asyncio.run(bounded())


async def events(session: Any, port: int) -> AsyncIterator[tuple[str, Any]]:
    async with session.get(f"http://127.0.0.1:{port}/events") as response:
        assert response.status == 200
        name = ""
        async for line in response.content:
            word, _, rest = line.decode().rstrip("\n").partition(": ")
            if word == "event":
                name = rest
            elif word == "data":
                yield name, json.loads(rest)


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0)


def test_a_browser_sees_the_past_and_then_every_tick(noisy_run: Run, config: PlannerConfig) -> None:
    async def talk() -> None:
        ticks = list(noisy_run(20))
        async with (
            Dashboard(config, port=0) as dashboard,
            aiohttp.ClientSession(read_bufsize=1 << 24) as session,
        ):
            for tick in ticks[:10]:
                dashboard.update(*tick)
            seen = events(session, dashboard.port)
            name, data = await anext(seen)
            assert name == "snapshot"
            assert data["now"]["at_s"] == ticks[9][0].now_s
            for inputs, decision in ticks[10:]:
                dashboard.update(inputs, decision)
                name, data = await anext(seen)
                assert (name, data["now"]["at_s"]) == ("tick", inputs.now_s)
                says = {each["role"]: each["sentence"] for each in data["now"]["latest"]}
                assert says == {role: why.sentence() for role, why in decision.explanations.items()}
                assert data["values"]["prefill.ready"][0] == inputs.workers[Role.PREFILL].ready
            await seen.aclose()

    within_bound(talk())


def test_a_connection_that_says_nothing_is_closed_and_one_that_listens_is_not(
    noisy_run: Run, config: PlannerConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guarded_http, "SILENT_S", 0.2)

    async def talk() -> None:
        async with Dashboard(config, port=0) as dashboard, aiohttp.ClientSession() as session:
            seen = events(session, dashboard.port)
            listening = asyncio.create_task(anext(seen))
            await until(lambda: dashboard.num_clients == 1)
            reader, writer = await asyncio.open_connection("127.0.0.1", dashboard.port)
            assert await reader.read() == b""
            writer.close()
            dashboard.update(*next(iter(noisy_run(1))))
            assert (await listening)[0] == "snapshot"
            await seen.aclose()

    within_bound(talk())


def test_fifty_browsers_are_served_beside_one_that_never_reads(noisy_run: Run, config: PlannerConfig) -> None:
    async def talk() -> None:
        ticks = list(noisy_run(2000))
        async with AsyncExitStack() as stack:
            dashboard = await stack.enter_async_context(Dashboard(config, port=0))
            for tick in ticks[:1000]:
                dashboard.update(*tick)
            deaf = socket.socket()
            stack.callback(deaf.close)
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            deaf.connect(("127.0.0.1", dashboard.port))
            deaf.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            connector = aiohttp.TCPConnector(limit=0)
            session = await stack.enter_async_context(
                aiohttp.ClientSession(connector=connector, read_bufsize=1 << 22)
            )
            streams = [events(session, dashboard.port) for _ in range(NUM_CLIENTS)]
            firsts = await asyncio.gather(*map(anext, streams))
            assert {name for name, _ in firsts} == {"snapshot"}
            await until(lambda: dashboard.num_clients == NUM_CLIENTS + 1)
            most = 0
            for tick in ticks[1000:1100]:
                dashboard.update(*tick)
                most = max(most, dashboard.num_waiting)
                got = await asyncio.gather(*map(anext, streams))
                assert {data["now"]["at_s"] for _, data in got} == {tick[0].now_s}
            assert most <= NUM_CLIENTS + MOST_WAITING
            for tick in ticks[1100:]:  # a burst without a pause for anybody to read in
                dashboard.update(*tick)
                most = max(most, dashboard.num_waiting)
            assert most <= (NUM_CLIENTS + 1) * MOST_WAITING
            last_s = ticks[-1][0].now_s
            ends = await asyncio.gather(*(caught_up(stream, last_s) for stream in streams))
            assert set(ends) == {"snapshot"}
            for stream in streams:
                await stream.aclose()

    within_bound(talk())


async def caught_up(stream: AsyncIterator[tuple[str, Any]], at_s: float) -> str:
    """The name of the event that shows this time."""
    while True:
        name, data = await anext(stream)
        if data["now"]["at_s"] == at_s:
            return name


def test_the_loop_of_the_planner_does_nothing_for_browsers(noisy_run: Run, config: PlannerConfig) -> None:
    """Ticks arrive while this loop takes no turn at all, and one browser never reads."""

    async def talk() -> None:
        ticks = list(noisy_run(200))
        async with Dashboard(config, port=0) as dashboard:
            dashboard.update(*ticks[0])
            with looking(dashboard.port), looking(dashboard.port) as browser, browser.makefile("rb") as seen:
                assert await asyncio.to_thread(shown, seen) == ticks[0][0].now_s
                for inputs, decision in ticks[1:]:
                    dashboard.update(inputs, decision)
                    assert shown(seen) == inputs.now_s

    within_bound(talk())


def looking(port: int) -> socket.socket:
    browser = socket.create_connection(("127.0.0.1", port), timeout=BOUND_S)
    browser.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
    return browser


def shown(seen: Any) -> float:
    """The time of the next event."""
    for line in seen:
        if found := re.search(rb'"at_s":([\d.e+]+)', line):
            return float(found[1])
    raise AssertionError("the stream has ended")


def test_another_configuration_begins_the_page_anew(noisy_run: Run, config: PlannerConfig) -> None:
    async def talk() -> None:
        other = attrs.evolve(config.limits, max_gpus=3)
        async with (
            Dashboard(config, port=0) as dashboard,
            aiohttp.ClientSession(read_bufsize=1 << 22) as session,
        ):
            seen = events(session, dashboard.port)
            _, empty = await anext(seen)
            assert empty["facts"]["roles"] == []
            for tick in (*noisy_run(1), *noisy_run(1, start_s=1.8e9 + 5, limits=other)):
                dashboard.update(*tick)
                name, data = await anext(seen)
                assert name == "snapshot"
            assert "budget 3 GPUs" in data["facts"]["about"]
            await seen.aclose()

    within_bound(talk())


def test_it_looks_no_further_back_than_a_report(noisy_run: Run, config: PlannerConfig) -> None:
    async def talk() -> None:
        asked = attrs.evolve(config, shell=ShellSettings(report_interval_hours=0.1))
        async with (
            Dashboard(asked, port=0) as dashboard,
            aiohttp.ClientSession(read_bufsize=1 << 22) as session,
        ):
            for tick in noisy_run(400):
                dashboard.update(*tick)
            seen = events(session, dashboard.port)
            _, data = await anext(seen)
            assert data["facts"]["end_s"] == 360
            assert float(data["now"]["cards"][3][1]) <= 74
            await seen.aclose()

    within_bound(talk())


def test_problems_of_the_planner_are_shown(config: PlannerConfig) -> None:
    async def talk() -> None:
        def health() -> tuple[bool, dict[str, Any]]:
            return False, {"problems": {"scale": "the API server says no"}}

        async with (
            Dashboard(config, port=0, health=health) as dashboard,
            aiohttp.ClientSession(read_bufsize=1 << 22) as session,
        ):
            seen = events(session, dashboard.port)
            _, data = await anext(seen)
            assert data["now"]["problems"] == ["scale: the API server says no"]
            await seen.aclose()

    within_bound(talk())


def test_only_this_machine_is_served_by_default(config: PlannerConfig) -> None:
    async def talk() -> None:
        async with Dashboard(config, port=0) as dashboard, aiohttp.ClientSession() as session:
            page = f"http://127.0.0.1:{dashboard.port}/"
            for host, status in (
                ("localhost", 200),
                ("127.0.0.1", 200),
                ("[::1]:8080", 200),
                ("evil.example", 403),
            ):
                async with session.get(page, headers={"Host": host}) as response:
                    assert response.status == status
            async with session.get(page + "../etc/passwd") as response:
                assert response.status == 404
            async with session.get(page + "page.js", headers={"Accept-Encoding": ""}) as response:
                assert (await response.text()).startswith('"use strict"')

    within_bound(talk())


def test_a_port_that_is_taken_is_an_error_at_once(config: PlannerConfig) -> None:
    async def talk() -> None:
        async with Dashboard(config, port=0) as dashboard:
            with pytest.raises(OSError, match="in use"):
                async with Dashboard(config, port=dashboard.port):
                    raise AssertionError("it serves on a port that is taken")

    within_bound(talk())
