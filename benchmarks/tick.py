"""What a tick costs: import, load ticks from 10 to 10 000 engines, a day of ticks. Medians, in one process."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from tempfile import TemporaryDirectory

import numpy as np

from planner_core import (
    EngineSpec,
    ForwardPassMetrics,
    FpmBatch,
    Limits,
    PlannerConfig,
    PlannerState,
    Role,
    SlaTargets,
    TickInput,
    TrafficObservation,
    WorkerCounts,
    initial_state,
    tick,
)

HEAVY = ("statsmodels", "prophet", "filterpy", "pandas", "scipy.stats")
SPEC = EngineSpec(max_num_batched_tokens=8192, max_num_seqs=256, max_kv_tokens=400_000, context_length=16_384)
CONFIG = PlannerConfig(
    engines={"prefill": SPEC, "decode": SPEC},
    target="sla",
    sla=SlaTargets(ttft_ms=500, itl_ms=30),
    limits=Limits(max_gpus=None),
)


def prefill_batch(rng: np.random.Generator, num_engines: int) -> FpmBatch:
    """One pass of each engine."""
    tokens = rng.integers(500, 8000, num_engines)
    return FpmBatch(
        worker_id=np.arange(num_engines),
        wall_time_s=0.01 + 2e-5 * tokens * rng.normal(1, 0.03, num_engines),
        num_prefill=tokens / 1000,
        prefill_tokens=tokens,
        queued_num_prefill=2,
        queued_prefill_tokens=2000,
    )


def decode_batch(rng: np.random.Generator, num_engines: int) -> FpmBatch:
    """One pass of each engine."""
    requests = rng.integers(30, 60, num_engines)
    seconds = (0.008 + 2e-4 * requests) * rng.normal(1, 0.03, num_engines)
    return FpmBatch(
        worker_id=np.arange(num_engines),
        wall_time_s=seconds,
        num_decode=requests,
        decode_kv_tokens=requests * 1000,
    )


def inputs(num_engines: int, num_ticks: int) -> Iterator[TickInput]:
    """Ticks of a fleet under steady load, each with the state that the last one left."""
    rng = np.random.default_rng(0)
    state: PlannerState = initial_state(CONFIG, 0.0)
    workers = {role: WorkerCounts(ready=num_engines) for role in CONFIG.engines}
    for number in range(1, num_ticks + 1):
        measured = TickInput(
            config=CONFIG,
            state=state,
            now_s=5.0 * number,
            workers=workers,
            traffic=TrafficObservation(duration_s=5, num_requests=30 * num_engines, isl=1000, osl=200),
            fpm={Role.PREFILL: prefill_batch(rng, num_engines), Role.DECODE: decode_batch(rng, num_engines)},
        )
        yield measured
        state = tick(measured).state


def times_ms(ticks: Iterable[TickInput]) -> list[float]:
    """Of each tick when it is made for the first time: nothing that was found for it before can help."""
    times = []
    for measured in ticks:
        started = time.perf_counter()
        tick(measured)
        times.append(1e3 * (time.perf_counter() - started))
    return times


def report(what: str, measured: float, unit: str, goal: float) -> None:
    """One line."""
    print(f"{what:<52} {measured:8.3f} {unit:<3} (goal {goal:g})")


def import_s() -> float:
    """Median of fresh processes that find the bytecode of the one before; fails if a heavy package comes along."""
    code = (
        "import sys, time; t = time.perf_counter(); import planner_core; print(time.perf_counter() - t);"
        f"sys.exit(any(name in sys.modules for name in {HEAVY!r}))"
    )
    with TemporaryDirectory() as cache:
        env = {**os.environ, "PYTHONPYCACHEPREFIX": cache, "PYTHONDONTWRITEBYTECODE": ""}
        runs = [
            subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=env)
            for _ in range(8)
        ]
    return statistics.median(float(run.stdout) for run in runs[1:])


def records_ms(num_engines: int) -> float:
    """A tick whose passes come as records."""
    last = list(inputs(num_engines, 60))[-1]
    records = {
        role: [
            ForwardPassMetrics(worker_id=str(i), wall_time_s=0.03, num_decode=40, decode_kv_tokens=40_000)
            if role is Role.DECODE
            else ForwardPassMetrics(worker_id=str(i), wall_time_s=0.05, num_prefill=2, prefill_tokens=2000)
            for i in range(num_engines)
        ]
        for role in CONFIG.engines
    }

    times = []
    for _ in range(25):
        started = time.perf_counter()
        tick(TickInput(config=CONFIG, state=last.state, now_s=last.now_s, workers=last.workers, fpm=records))
        times.append(1e3 * (time.perf_counter() - started))
    return statistics.median(times)


def day_s() -> float:
    """The planner's share of a day of ticks; measurements are made and dropped as they go, as in real life."""
    return sum(times_ms(inputs(10, 17_280))) / 1e3


def main() -> None:
    """Print all figures."""
    report("import planner_core", import_s(), "s", 0.15)
    for num_engines, goal_ms, num_ticks in ((10, 0.3, 2000), (1000, 1.0, 300), (10_000, 6.0, 60)):
        median_ms = statistics.median(times_ms(inputs(num_engines, num_ticks))[num_ticks // 5 :])
        report(f"sla disagg load tick, {num_engines} engines a role", median_ms, "ms", goal_ms)
    report("the same from 1 000 records a role", records_ms(1000), "ms", 4.0)
    report("a day of 5-s ticks, 10 engines a role", day_s(), "s", 5.0)


if __name__ == "__main__":
    main()
