from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("aiohttp", reason="needs the extra: pip install 'planner-core[dashboard]'")

import aiohttp

from planner_adapters.runner.health import Health
from planner_adapters.runner.onlookers import onlookers
from planner_core import PlannerConfig, TickInput, WorkerCounts, initial_state, tick


@contextmanager
def taken_port() -> Iterator[int]:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield int(listening.getsockname()[1])


def config(folder: Path, **keys: Any) -> PlannerConfig:
    return PlannerConfig.from_mapping({"mode": "agg", "report_output_dir": str(folder), **keys})


def one_tick(config: PlannerConfig) -> tuple[TickInput, Any]:
    inputs = TickInput(
        config=config, state=initial_state(config, 0.0), now_s=5.0, workers={"agg": WorkerCounts(ready=2)}
    )
    return inputs, tick(inputs)


def test_while_it_runs_there_is_a_page_and_afterwards_a_report(tmp_path: Path) -> None:
    with taken_port() as port:
        pass  # free again

    async def look() -> str:
        wanted = config(tmp_path, live_dashboard_port=port)
        async with onlookers(wanted, Health()) as watchers:
            for watcher in watchers:
                watcher(*one_tick(wanted))
            async with aiohttp.ClientSession() as browser, browser.get(f"http://127.0.0.1:{port}/") as page:
                return str(await page.text())

    assert "<html" in asyncio.run(look())
    assert [path.suffix for path in tmp_path.iterdir()] == [".html"]


def test_both_can_be_switched_off(tmp_path: Path) -> None:
    async def look() -> int:
        wanted = config(tmp_path, live_dashboard_port=0, report_interval_hours=None)
        async with onlookers(wanted, Health()) as watchers:
            return len(watchers)

    assert asyncio.run(look()) == 0
    assert not list(tmp_path.iterdir())


def test_a_port_that_is_taken_is_a_line_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def look(port: int) -> int:
        wanted = config(tmp_path, live_dashboard_port=port, report_interval_hours=None)
        async with onlookers(wanted, Health()) as watchers:
            return len(watchers)

    with taken_port() as port, caplog.at_level(logging.WARNING, "planner"):
        assert asyncio.run(look(port)) == 0
    assert "nobody looks on" in caplog.text
    assert str(port) in caplog.text


def test_a_report_that_cannot_be_written_is_a_problem_and_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    wanted = config(tmp_path / "file" / "folder", live_dashboard_port=0, report_interval_hours=1e-6)
    health = Health()

    async def look() -> None:
        async with onlookers(wanted, health) as watchers:
            inputs, decision = one_tick(wanted)
            for step in range(4):
                again = TickInput(config=wanted, state=inputs.state, now_s=5.0 + 60 * step)
                for watcher in watchers:
                    watcher(again, decision)

    asyncio.run(look())
    assert "file" in health.problems["reports"]
