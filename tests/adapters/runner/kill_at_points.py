"""Runs a planner again and again, and kills it with SIGKILL at a random line of what writes, decides and scales.

Usage: kill_at_points.py FOLDER NUM_POINTS SEED. Each run is a child process that goes on from the
files of the one before.
Prints one JSON line per run: the exit codes of the planner that was killed and of the one that then made two ticks, the
size of the fleet, and the size decided.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

from planner_adapters.environment import Order
from planner_adapters.journal import last_decision
from planner_adapters.runner import Live, Saved, Service, remembered, serve
from planner_adapters.runner.testing import PlayedClock, PlayedFleet
from planner_core import FpmBatch, PlannerConfig, Role, TickInput, WorkerCounts, initial_state, tick
from planner_core.codec import dumps

CONFIG = PlannerConfig.from_mapping(
    {"mode": "agg", "max_gpu_budget": 16, "engines": {"agg": {"max_kv_tokens": 100_000}}}
)
FPM = {Role.AGG: FpmBatch(worker_id=["a"], wall_time_s=[0.02], num_decode=[5], decode_kv_tokens=[5000])}
WORKERS = {Role.AGG: WorkerCounts(ready=1)}
WATCHED = (
    "runner/loop.py",
    "runner/records.py",
    "runner/state_file.py",
    "adapters/journal.py",
    "at_points.py",
)
NUM_EVENTS = 130
"""About as many lines as a tick runs through in these files."""


class FleetOnDisk(PlayedFleet):
    """Its size and the orders that it was given outlive the planner."""

    def __init__(self, clock: PlayedClock, folder: Path) -> None:
        super().__init__(clock, lambda now_s: 150_000.0 + 100_000.0 * (now_s // 60 % 7))
        self._size, self._orders = folder / "size", folder / "orders"
        self.replicas = int(self._size.read_text() or 1) if self._size.exists() else 1

    async def scale(self, order: Order) -> None:
        count = order.replicas[Role.AGG]
        with self._orders.open("a") as file:
            file.write(f"{order.next_tick.at_s} {count}\n")
        new = self._size.with_suffix(".new")
        new.write_text(str(count))
        new.replace(self._size)
        self.replicas = count


def killer(after: int) -> Any:
    """A trace function that kills this process at the given line event."""
    left = after

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal left
        if not frame.f_code.co_filename.endswith(WATCHED):
            return None
        if event == "line":
            left -= 1
            if left <= 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    return trace


def play(folder: Path, num_ticks: int, kill_after: int | None) -> None:
    """A planner's life: until it is killed, or for so many ticks."""
    files = {"journal": folder / "journal", "state": folder / "state"}
    before = remembered(**files)
    clock = PlayedClock(1000.0 if before is None else before.state.schedule.last_tick_s)
    fleet = FleetOnDisk(clock, folder)
    if kill_after is not None:
        trace = killer(kill_after)
        threading.settrace(trace)
        sys.settrace(trace)
    live = Live(fleet, fleet, fleet, clock=clock)
    asyncio.run(serve(live, CONFIG, Service(**files, num_ticks=num_ticks), before=before))


def in_a_child(folder: Path, num_ticks: int, kill_after: int | None) -> int:
    child = os.fork()
    if child == 0:
        try:
            play(folder, num_ticks, kill_after)
        except BaseException:  # noqa: BLE001  # a child must not come back from here
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def warm_up() -> None:
    """One tick, so that no child has to import what it needs."""
    inputs = TickInput(config=CONFIG, state=initial_state(CONFIG, 0.0), now_s=5.0, fpm=FPM, workers=WORKERS)
    dumps(Saved(config=CONFIG, state=tick(inputs).state))


def main() -> None:
    """All points."""
    folder, num_points = Path(sys.argv[1]), int(sys.argv[2])
    dice = random.Random(int(sys.argv[3]))
    warm_up()
    for _ in range(num_points):
        killed = in_a_child(folder, 1_000, dice.randrange(2, 3 * NUM_EVENTS))
        after = in_a_child(folder, 2, None)
        decision = last_decision(folder / "journal")
        assert decision is not None
        size = int((folder / "size").read_text())
        print(json.dumps([killed, after, size, decision.replicas[Role.AGG]]))  # noqa: T201


if __name__ == "__main__":
    main()
