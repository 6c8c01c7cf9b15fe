"""Kills planner and environment in the middle of SQLite's work, many times, and looks at what is left.

A program of its own, since it forks. Each child decides and completes until the fate drawn for it, a step of SQLite's
virtual machine, at which it gets SIGKILL. Prints how many were killed and how many decisions there were.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sqlite3
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from planner_adapters.virtual import SqliteStore, VirtualClient, connect
from planner_core import NextTick, PlannerConfig, Role

CONFIG = PlannerConfig.from_mapping({"mode": "agg"})
OPEN = sqlite3.connect


@attrs.frozen
class Wanted:
    replicas: Mapping[Role, int]
    drain: Mapping[Role, tuple[str, ...]] = attrs.field(factory=dict)

    @property
    def next_tick(self) -> NextTick:
        raise AssertionError


def wish(after: int) -> Wanted:
    return Wanted({Role.AGG: 1 + (after + 1) % 5})


async def decide_and_complete(path: Path, say: Any) -> None:
    """For ever, telling what is done once it is."""
    planner = connect(CONFIG, SqliteStore(path))
    client = VirtualClient(SqliteStore(path))
    newest = await client.wait(0, timeout_s=0)
    after = newest.decision_id if newest else 0
    while True:
        await planner.scale(wish(after))
        newest = await client.wait(after, timeout_s=0)
        assert newest is not None, "a decision was lost"
        after = newest.decision_id
        say("made", after, newest.replicas[Role.AGG])
        await client.complete(after)
        say("done", after, newest.replicas[Role.AGG])


def child(path: Path, steps: int, pipe: int) -> None:
    """Lives for ``steps`` steps of SQLite."""
    left = steps

    def age() -> int:
        nonlocal left
        left -= 1
        if left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return 0

    def open_and_age(*args: Any, **named: Any) -> sqlite3.Connection:
        file = OPEN(*args, **named)
        file.set_progress_handler(age, 1)
        return file

    def say(*words: Any) -> None:
        os.write(pipe, json.dumps(words).encode() + b"\n")

    sqlite3.connect = open_and_age  # type: ignore[assignment]
    try:
        asyncio.run(decide_and_complete(path, say))
    except BaseException as error:  # noqa: BLE001  # whatever it is, the parent is to see it
        say("failed", repr(error), 0)
    os._exit(1)


def run_child(path: Path, steps: int) -> list[Any]:
    """What it said before it was killed."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        child(path, steps, writer)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        said = [json.loads(line) for line in pipe]
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status), said[-1]
    return said


async def look(path: Path, made: dict[int, int], said: list[Any]) -> None:
    """What is left agrees with all that was ever said."""
    store = SqliteStore(path)
    client = VirtualClient(store)
    planner = connect(CONFIG, store)
    before = max(made, default=0)
    for _, decision_id, replicas in said:
        assert made.setdefault(decision_id, replicas) == replicas, f"two decisions {decision_id}"
    ids = sorted({decision_id for kind, decision_id, _ in said if kind == "made"} - {before})
    assert ids == list(range(before + 1, before + 1 + len(ids))), f"ids {ids} after {before}"
    newest = await client.wait(0, timeout_s=0)
    if newest is not None:
        assert newest.decision_id in (max(made, default=0), max(made, default=0) + 1)
        assert made.setdefault(newest.decision_id, newest.replicas[Role.AGG]) == newest.replicas[Role.AGG]
        # The planner that comes after it wishes the same: that is no new decision.
        await planner.scale(Wanted(newest.replicas))
        assert await client.wait(newest.decision_id, timeout_s=0) is None, "one wish became two decisions"
    else:
        assert not made
    done = [replicas for kind, _, replicas in said if kind == "done"]
    if done and newest is not None:
        running = (await planner.workers())[Role.AGG].ready
        assert running in (done[-1], newest.replicas[Role.AGG]), "an acknowledgement was lost"
    await store.close()


def main() -> None:
    """Arguments: file, number of children, seed."""
    path, num_children, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    dice = random.Random(seed)
    made: dict[int, int] = {}
    for _ in range(num_children):
        asyncio.run(look(path, made, run_child(path, dice.randint(1, 1_500))))
    sys.stdout.write(json.dumps({"killed": num_children, "decisions": max(made, default=0)}))


if __name__ == "__main__":
    main()
