"""Our tick beside the original's on equal input, in one run, as ratios.

    python benchmarks/tick_against_original.py ../original/bin/python

The argument is the Python of an environment with ``ai-dynamo`` 1.1.1 (see ``closed_loop.py``), which is asked as a
black box. Load ticks: disaggregated, ``sla``, 1 to 1 000 engines a role, one pass of each in every tick. Throughput
ticks: with each predictor and 50, 200 and 1 000 past windows. Milliseconds of CPU: a predictor that fits now and then
shows in the mean, what it does with the past before the first tick in the start.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
ENGINES = (1, 10, 100, 1000)
PREDICTORS = ("constant", "kalman", "arima", "prophet")
WINDOWS = (50, 200, 1000)
TICKS = 17
KEYS = {"mode": "disagg", "optimization_target": "sla", "max_gpu_budget": -1}
CAPACITIES = {
    "max_num_batched_tokens": 8192,
    "max_num_seqs": 256,
    "max_kv_tokens": 400_000,
    "context_length": 16_384,
}


def passes(number: int, seed: int) -> dict[str, list[dict[str, float]]]:
    """One pass of each engine of each role, by our names of the columns."""
    dice = np.random.default_rng(seed)
    prompts, requests = dice.integers(500, 8000, number), dice.integers(30, 60, number)
    return {
        "prefill": [
            {
                "wall_time_s": 0.01 + 2e-5 * float(tokens),
                "num_prefill": 2,
                "prefill_tokens": int(tokens),
                "queued_num_prefill": 1,
                "queued_prefill_tokens": 1000,
            }
            for tokens in prompts
        ],
        "decode": [
            {
                "wall_time_s": 0.008 + 2e-4 * float(n),
                "num_decode": int(n),
                "decode_kv_tokens": 1000 * int(n),
            }
            for n in requests
        ],
    }


def windows(number: int) -> list[dict[str, float]]:
    """Traffic of windows of 180 s: a daily wave with noise."""
    dice = np.random.default_rng(number)
    rate = 30 + 15 * np.sin(np.arange(number) / 480 * 2 * np.pi) + dice.normal(0, 2, number)
    return [
        {"duration_s": 180.0, "num_requests": float(round(180 * r)), "isl": 2000.0, "osl": 200.0}
        for r in rate
    ]


def timed(decide: Callable[[], Any], times: list[float]) -> Any:
    """What it returns; its milliseconds are appended."""
    started = cpu_s()
    result = decide()
    times.append(1e3 * (cpu_s() - started))
    return result


def cpu_s() -> float:
    """CPU seconds of this process and its children: a busy machine stretches the clock, and Prophet fits in a child."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def ours(loop: str, size: int, predictor: str) -> list[float]:
    """Milliseconds of the start with its first tick, then of each further tick."""
    from planner_core import (
        FpmBatch,
        PlannerConfig,
        TickInput,
        TrafficObservation,
        WorkerCounts,
        initial_state,
        tick,
    )

    is_load = loop == "load"
    keys = KEYS | {
        "engines": dict.fromkeys(("prefill", "decode"), CAPACITIES),
        "enable_load_scaling": is_load,
        "enable_throughput_scaling": not is_load,
        "load_predictor": predictor,
    }
    config = PlannerConfig.from_mapping(keys)
    past = [] if is_load else [TrafficObservation(**w) for w in windows(size + TICKS)]
    first = passes(40, 0)
    bench = {role: FpmBatch.of(_records(rows)) for role, rows in first.items()}
    begun = cpu_s()
    state = initial_state(config, 0.0, fpm=bench, traffic=past[:size])
    begin_ms = 1e3 * (cpu_s() - begun)
    engines = size if is_load else 4
    times: list[float] = []
    for number in range(1, TICKS + 1):
        rows = passes(engines, number)
        inputs = TickInput(
            config=config,
            state=state,
            now_s=number * (5.0 if is_load else 180.0),
            workers=dict.fromkeys(("prefill", "decode"), WorkerCounts(ready=engines)),
            traffic=None if is_load else past[size + number - 1],
            fpm={role: FpmBatch.of(_records(r)) for role, r in rows.items()},
        )
        state = timed(lambda inputs=inputs: tick(inputs), times).state
    return [begin_ms + times[0], *times[1:]]


def _records(rows: list[dict[str, float]]) -> list[Any]:
    from planner_core import ForwardPassMetrics

    return [ForwardPassMetrics(worker_id=str(number), **row) for number, row in enumerate(rows)]


def original(loop: str, size: int, predictor: str) -> list[float]:
    """Milliseconds of the start with its first tick, then of each further tick."""
    import logging

    from _original import message
    from dynamo.planner.config.planner_config import PlannerConfig
    from dynamo.planner.core import types
    from dynamo.planner.core.state_machine import PlannerStateMachine

    logging.disable(logging.CRITICAL)
    is_load = loop == "load"
    keys = KEYS | {
        "ttft": 500.0,
        "itl": 50.0,
        "enable_load_scaling": is_load,
        "enable_throughput_scaling": not is_load,
        "load_predictor": predictor,
    }
    role = types.EngineCapabilities(num_gpu=1, **CAPACITIES)
    machine = PlannerStateMachine(
        PlannerConfig.model_validate(keys), types.WorkerCapabilities(prefill=role, decode=role)
    )

    def messages(rows: list[dict[str, float]]) -> list[Any]:
        return [message(str(number), **row) for number, row in enumerate(rows)]

    first = passes(40, 0)
    begun = cpu_s()
    machine.load_benchmark_fpms(
        prefill_fpms=messages(first["prefill"]), decode_fpms=messages(first["decode"])
    )
    past = [
        SimpleNamespace(
            duration_s=w["duration_s"],
            num_req=w["num_requests"],
            isl=w["isl"],
            osl=w["osl"],
            kv_hit_rate=None,
            accept_length=None,
        )
        for w in ([] if is_load else windows(size + TICKS))
    ]
    if past:
        machine.warm_load_predictors(past[:size])
    begin_ms = 1e3 * (cpu_s() - begun)
    engines = size if is_load else 4
    upcoming = machine.initial_tick(0.0)
    times: list[float] = []
    told = 0
    while len(times) < TICKS:
        seen = {
            role: {(m.worker_id, 0): m for m in messages(r)}
            for role, r in passes(engines, len(times) + 1).items()
        }
        wants = not is_load and getattr(upcoming, "need_traffic_metrics", True)
        inputs = SimpleNamespace(
            now_s=upcoming.at_s,
            traffic=past[size + told] if wants else None,
            worker_counts=SimpleNamespace(
                ready_num_prefill=engines,
                expected_num_prefill=engines,
                ready_num_decode=engines,
                expected_num_decode=engines,
            ),
            fpm_observations=SimpleNamespace(**seen),
        )
        took: list[float] = []
        upcoming = timed(lambda inputs=inputs, at=upcoming: machine.on_tick(at, inputs), took).next_tick
        told += wants
        if is_load or wants:
            times += took
    return [begin_ms + times[0], *times[1:]]


def jobs() -> list[tuple[str, int, str]]:
    """(loop, engines or windows, predictor)."""
    loads = [("load", number, "constant") for number in ENGINES]
    return loads + [("throughput", number, name) for name in PREDICTORS for number in WINDOWS]


def asked(python: str, side: str, job: tuple[str, int, str]) -> list[float]:
    """The times of one side, measured in a process of its own."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "adapters"), str(ROOT / "benchmarks")])
    environment = os.environ | {
        "PYTHONPATH": path,
        "OPENBLAS_NUM_THREADS": "1",
        "DYNAMO_SKIP_PYTHON_LOG_INIT": "1",
        "DYN_LOG": "error",
    }
    ran = subprocess.run(
        [python, __file__, "--side", side, json.dumps(job)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    if ran.returncode:
        raise SystemExit(f"{side} {job}: {ran.stderr.strip()[-800:]}")
    times: list[float] = json.loads(ran.stdout.splitlines()[-1])
    return times


def main() -> None:
    """Print one line per job."""
    if "--side" in sys.argv:
        side, job = sys.argv[-2:]
        print(json.dumps({"ours": ours, "original": original}[side](*json.loads(job))))
        return
    if len(sys.argv) != 2:
        raise SystemExit(
            "name the Python of an environment with ai-dynamo 1.1.1 (see --help in closed_loop.py)"
        )
    header = ("tick", "ours: median, mean", "original", "ratio of means", "start: ours", "original")
    print(f"| {' | '.join(header)} |\n|{'---|' * len(header)}")
    for job in jobs():
        sides = [asked(sys.executable, "ours", job), asked(sys.argv[1], "original", job)]
        means = [statistics.mean(times[1:]) for times in sides]
        shown = [f"{statistics.median(times[1:]):.1f}, {statistics.mean(times[1:]):.1f}" for times in sides]
        loop, size, predictor = job
        what = f"{loop}, {size} engines" if loop == "load" else f"{loop}, {predictor}, {size} windows"
        print(
            f"| {what} | {shown[0]} | {shown[1]} | {means[1] / means[0]:.1f} "
            f"| {sides[0][0]:.0f} | {sides[1][0]:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
