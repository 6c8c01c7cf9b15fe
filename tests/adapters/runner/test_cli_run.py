from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("yaml", reason="the command line is an extra: pip install 'planner-core[cli]'")
pytest.importorskip("aiohttp", reason="needs the extra: pip install 'planner-core[prometheus]'")

from planner_adapters.journal import read_journal
from planner_adapters.runner import Live, read_state
from planner_adapters.runner.wiring import connected
from planner_adapters.virtual import SqliteStore, VirtualClient
from planner_core import ConfigError, PlannerConfig, Role

DEAD = "http://127.0.0.1:9"
"""Where nobody listens."""
TEXT = f"""
mode: agg
environment: virtual
prometheus_endpoint: {DEAD}
load_adjustment_interval: 0.2
live_dashboard_port: 0
report_interval_hours: null
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "planner.yaml"
    path.write_text(TEXT)
    return path


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-P", "-m", "planner_adapters.cli", "run", *map(str, arguments)]


def environ(tmp_path: Path, **more: str) -> dict[str, str]:
    told = {
        "PLANNER_VIRTUAL_STORE": f"sqlite:{tmp_path / 'store'}",
        "PLANNER_ENGINE_TARGETS": f"agg={DEAD}/metrics",
    }
    return {**os.environ, **told, **more}


def ran(tmp_path: Path, *arguments: object, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, check=False, env=environ(tmp_path, **more)
    )


async def _report(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store")
    client = VirtualClient(store)
    await client.report({Role.AGG: 2})
    await store.close()


def test_once_decides_says_why_and_leaves_its_records(config: Path, tmp_path: Path) -> None:
    asyncio.run(_report(tmp_path))
    files = ("--journal", tmp_path / "journal", "--state", tmp_path / "state")
    done = ran(tmp_path, "--config", config, "--once", *files)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "agg: 2 → 2 (no_fpm_data); 0 of 2 replicas report, for 0 s\n"
    ((inputs, decision),) = read_journal(tmp_path / "journal")
    assert inputs.workers[Role.AGG].ready == 2
    saved = read_state(tmp_path / "state")
    assert saved is not None
    assert saved.state == decision.state
    assert 'unfed="fpm.agg' in done.stderr


def test_it_runs_until_sigterm_with_one_line_per_decision(config: Path, tmp_path: Path) -> None:
    asyncio.run(_report(tmp_path))
    options = ("--config", config, "--health", "0", "--journal", tmp_path / "journal", "--advisory")
    with subprocess.Popen(
        command(*options, "--set", f"log_dir={tmp_path / 'logs'}"),
        stderr=subprocess.PIPE,
        text=True,
        env=environ(tmp_path),
    ) as planner:
        assert planner.stderr is not None
        lines = []
        for line in planner.stderr:
            lines.append(line)
            if sum("event=decision" in line for line in lines) == 3:
                planner.send_signal(signal.SIGTERM)
                break
        lines += planner.stderr.readlines()
    assert planner.returncode == 0
    decisions = [line for line in lines if "event=decision" in line]
    assert len(decisions) == len(list(read_journal(tmp_path / "journal")))
    assert all("scaled=advisory" in line and "agg: 2 → 2" in line for line in decisions)
    assert "signal=SIGTERM" in "".join(lines)
    assert (tmp_path / "logs" / "planner.log").read_text().splitlines() == [
        line.rstrip("\n") for line in lines
    ]


def test_bad_input_gets_one_line(config: Path, tmp_path: Path) -> None:
    done = ran(tmp_path, "--config", config, "--journal", tmp_path / "none" / "journal")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"planner run: {tmp_path}/none/journal: No such file or directory\n"


@pytest.mark.parametrize(
    ("keys", "variables", "words"),
    [
        (
            {"mode": "disagg"},
            {},
            "$PLANNER_ENGINE_TARGETS: 'agg=http://127.0.0.1:9/metrics' must be ROLE=VALUE",
        ),
        ({}, {"PLANNER_VIRTUAL_STORE": ""}, "$PLANNER_VIRTUAL_STORE must be sqlite:PATH"),
        ({}, {"PLANNER_VIRTUAL_STORE": "sqlite:"}, "$PLANNER_VIRTUAL_STORE must be sqlite:PATH"),
        ({}, {"PLANNER_VIRTUAL_STORE": "memory:"}, "needs $PLANNER_VIRTUAL_LISTEN"),
        ({}, {"PLANNER_VIRTUAL_LISTEN": "8000"}, "$PLANNER_VIRTUAL_TOKEN"),
        ({}, {"PLANNER_VIRTUAL_LISTEN": "here", "PLANNER_VIRTUAL_TOKEN": "x" * 16}, "must be HOST:PORT"),
        (
            {"environment": "global-planner", "global_planner_namespace": "x"},
            {},
            "environment = 'global-planner' needs $PLANNER_GLOBAL_TOKEN",
        ),
    ],
)
def test_parts_that_cannot_be_put_together_are_named(
    tmp_path: Path, keys: dict[str, Any], variables: dict[str, str], words: str
) -> None:
    config = PlannerConfig.from_mapping({"mode": "agg", "environment": "virtual"} | keys)

    async def connect() -> None:
        async with connected(config, environ=environ(tmp_path, **variables)):
            pass

    with pytest.raises(ConfigError) as caught:
        asyncio.run(connect())
    assert words in str(caught.value)


def test_engines_are_found_as_the_variables_say(tmp_path: Path) -> None:
    config = PlannerConfig.from_mapping({"environment": "virtual"})
    ways = [
        {},
        {"PLANNER_ENGINE_TARGETS": "prefill=http://a/metrics, decode=http://b/metrics"},
        {"PLANNER_ENGINE_LABELS": "prefill=app:p,prefill=tier:gpu,decode=app:d"},
    ]

    async def connect(told: dict[str, str]) -> None:
        variables = {"PLANNER_VIRTUAL_STORE": f"sqlite:{tmp_path / 'store'}", **told}
        async with connected(config, environ=variables) as parts:
            assert parts.passes is not None
            assert parts.traffic is not None
            await Live(parts.connector, parts.traffic, parts.passes).close()

    for way in ways:
        asyncio.run(connect(way))


def test_a_spoilt_state_is_refused_and_left_as_it_is(config: Path, tmp_path: Path) -> None:
    (tmp_path / "state").write_text(json.dumps({"mode": "agg"}))
    done = ran(tmp_path, "--config", config, "--state", tmp_path / "state")
    assert done.returncode == 2
    assert "is no state of this planner" in done.stderr
    assert (tmp_path / "state").read_text() == '{"mode": "agg"}'
