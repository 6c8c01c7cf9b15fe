"""Deployments in one store are told apart by their planner's namespace."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

pytest.importorskip("aiohttp", reason="needs the extra: pip install 'planner-core[virtual]'")

from planner_adapters.virtual import VirtualClient, VirtualDecision, open_store
from planner_core import Role

NOBODY = "http://127.0.0.1:9"


@pytest.fixture(params=["sqlite", "etcd"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "etcd":
        return f"etcd:{request.getfixturevalue('etcd')}"
    return f"sqlite:{tmp_path / 'decisions.db'}"


def start_planner(address: str, *keys: str) -> subprocess.Popen[str]:
    """`planner run --once` in an environment that it finds in the store at ``address``."""
    told = {"PLANNER_VIRTUAL_STORE": address, "PLANNER_ENGINE_TARGETS": f"agg={NOBODY}/metrics"}
    keys = ("environment=virtual", "mode=agg", f"prometheus_endpoint={NOBODY}", *keys)
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "planner_adapters.cli", "run", "--once"]
        + [word for key in keys for word in ("--set", key)],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | told,
    )


def ended_well(planners: Sequence[subprocess.Popen[str]]) -> None:
    for planner in planners:
        _, said = planner.communicate()
        assert planner.returncode == 0, said


def report(address: str, name: str, replicas: int) -> None:
    async def main() -> None:
        client = VirtualClient(open_store(address, name=name))
        await client.report({Role.AGG: replicas})
        await client.close()

    asyncio.run(main())


def decision_for(address: str, name: str) -> VirtualDecision | None:
    async def main() -> VirtualDecision | None:
        client = VirtualClient(open_store(address, name=name))
        try:
            return await client.wait(timeout_s=0)
        finally:
            await client.close()

    return asyncio.run(main())


def test_two_planners_with_two_names_share_a_store_and_do_not_disturb_each_other(address: str) -> None:
    minimums = {"chat": 3, "batch": 5}
    for name in minimums:
        report(address, name, 1)
    ended_well(
        [
            start_planner(address, f"namespace={name}", f"min_endpoint={minimum}")
            for name, minimum in minimums.items()
        ]
    )
    for name, minimum in minimums.items():
        decision = decision_for(address, name)
        assert decision is not None
        assert (decision.decision_id, decision.replicas) == (1, {Role.AGG: minimum})


def test_a_planner_without_a_name_is_found_by_a_client_without_one(address: str) -> None:
    report(address, "dynamo", 1)
    ended_well([start_planner(address, "min_endpoint=2")])

    async def main() -> None:
        client = VirtualClient(open_store(address))
        decision = await client.wait(timeout_s=0)
        await client.close()
        assert decision is not None
        assert decision.replicas == {Role.AGG: 2}

    asyncio.run(main())
