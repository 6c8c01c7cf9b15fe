"""What 50 browsers that look at the dashboard cost the planner's loop, per tick.

Browsers are a process of their own: most read what comes, every fifth never does. Stretches with and without them
alternate in one run. Compared are the CPU time of the loop's thread per tick, in which a task looks at the clock every
millisecond; the longest that this task waited; and the CPU time of the whole process, which has the dashboard's thread.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import selectors
import socket
import statistics
import time
from typing import Any

from report_page import ticks

from planner_adapters.dashboard import Dashboard
from planner_core import Decision, TickInput

CLIENTS, DEAF_EACH = 50, 5
WARM, STRETCH, STRETCHES = 720, 100, 4
PAUSE_S = 0.05
"""Between ticks: long enough for what is sent to be sent, and read."""
GOAL_MS = 5.0


def browsers(port: int, number: int, ready: Any, done: Any) -> None:
    """Connects, and reads until told to stop."""
    selector, sockets = selectors.DefaultSelector(), []
    for place in range(number):
        connected = socket.create_connection(("127.0.0.1", port))
        connected.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        sockets.append(connected)
        if place % DEAF_EACH:
            selector.register(connected, selectors.EVENT_READ)
    ready.set()
    while not done.is_set():
        for key, _ in selector.select(timeout=0.1):
            key.fileobj.recv(1 << 20)  # type: ignore[union-attr]
    for each in sockets:
        each.close()


async def stretch(
    dashboard: Dashboard, shown: list[tuple[TickInput, Decision]]
) -> tuple[list[float], float, float]:
    """CPU milliseconds of this thread per tick, the longest wait of another task, and CPU of the process per tick."""
    costs, longest_s, is_over = [], 0.0, False

    async def watch() -> None:
        nonlocal longest_s
        while not is_over:
            before = time.monotonic()
            await asyncio.sleep(0.001)
            longest_s = max(longest_s, time.monotonic() - before - 0.001)

    began = time.process_time()
    watching = asyncio.create_task(watch())
    for inputs, decision in shown:
        before = time.thread_time()
        dashboard.update(inputs, decision)
        await asyncio.sleep(PAUSE_S)
        costs.append(1000 * (time.thread_time() - before))
    is_over = True
    await watching
    return costs, 1000 * longest_s, 1000 * (time.process_time() - began) / len(shown)


async def measure(clients: int) -> None:
    """Prints the table."""
    context = multiprocessing.get_context("spawn")
    every = ticks(WARM + 2 * STRETCH * STRETCHES)
    costs: dict[int, list[float]] = {0: [], clients: []}
    waits: dict[int, list[float]] = {0: [], clients: []}
    process_ms: dict[int, list[float]] = {0: [], clients: []}
    first = next(every)
    async with Dashboard(first[0].config, port=0) as dashboard:
        dashboard.update(*first)
        for _ in range(WARM):
            dashboard.update(*next(every))
        for number in (0, clients) * STRETCHES:
            shown = [tick for _, tick in zip(range(STRETCH - 1), every, strict=False)]
            ready, done = context.Event(), context.Event()
            process = context.Process(target=browsers, args=(dashboard.port, number, ready, done))
            process.start()
            while not ready.is_set() or dashboard.num_clients < number:
                await asyncio.sleep(0.05)
            await asyncio.sleep(1.0)  # snapshots
            found, wait_ms, whole_ms = await stretch(dashboard, shown)
            costs[number] += found
            waits[number].append(wait_ms)
            process_ms[number].append(whole_ms)
            done.set()
            await asyncio.to_thread(process.join)
            while dashboard.num_clients:
                await asyncio.sleep(0.05)
    print(
        f"{'browsers':>8}  {'median, ms':>10}  {'mean, ms':>8}  {'p99, ms':>8}  {'wait, ms':>8}  {'process, ms':>11}"
    )
    for number, found in costs.items():
        p99 = statistics.quantiles(found, n=100)[98]
        wait, whole = (statistics.median(each[number]) for each in (waits, process_ms))
        loop = f"{statistics.median(found):10.2f}  {statistics.fmean(found):8.2f}  {p99:8.2f}"
        print(f"{number:8}  {loop}  {wait:8.1f}  {whole:11.2f}")
    added = statistics.median(costs[clients]) - statistics.median(costs[0])
    print(f"added per tick: {added:.2f} ms of CPU in the loop (goal: < {GOAL_MS:g} ms)")
    print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--clients", type=int, default=CLIENTS, help="default: %(default)s")
    asyncio.run(measure(parser.parse_args().clients))
