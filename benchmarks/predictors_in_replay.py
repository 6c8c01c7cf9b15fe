"""The slow loop alone, with each predictor in turn: what does a better forecast buy, and how much headroom pays?

Needs the traces of ../shared/data/traces. Each is scaled to a service of several engines; a start takes 120 s. The
traces of an hour have 19 decisions, too few to tell skill from luck: they are replayed at several sizes, with windows
that begin at several moments, and the mean is shown. Runs in two processes; all of it takes hours of one core.

    predictors_in_replay.py [TRACE|PREDICTOR ...]     only those
    predictors_in_replay.py --quantiles [TRACE ...]   the ensemble with less and more headroom
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path

import attrs
import numpy as np

from planner_adapters.simulation.pool import PoolSpec
from planner_adapters.simulation.presets import PRESETS
from planner_adapters.simulation.replay import replay
from planner_adapters.simulation.scaling import scaled
from planner_adapters.simulation.traces import load_workload
from planner_core import EngineSpec, Limits, PlannerConfig, Role, SlaTargets, ThroughputScaling
from planner_core.predictors import BY_NAME

TRACES = Path(__file__).parents[2] / "shared" / "data" / "traces"
HOUR = tuple(product((4.0, 8.0), (0.0, 45.0, 90.0, 135.0)))
REPLAYS: dict[str, tuple[tuple[float, float], ...]] = {
    "azure23_conv": HOUR,
    "azure23_code": HOUR,
    "azure24_code_day_thinned": ((2.0, 0.0),),
    "servegen_m_mid_day_thinned": ((6.0, 0.0),),
}
"""(How many times its traffic each trace is replayed with, seconds of it that are left out at its beginning)."""
QUANTILES = (0.5, 0.7, 0.8, 0.9, 0.95)
ENGINE = PRESETS["llama-3.1-70b-fp8-h100"]
STARTUP_S = 120.0
USUAL = ThroughputScaling().quantile


@attrs.frozen
class Job:
    """One replay."""

    trace: str
    size: float
    begin_s: float
    predictor: str
    quantile: float


@attrs.frozen
class Outcome:
    """What it came to."""

    in_sla: float
    gpu_hours: float
    planner_s: float


def run(job: Job) -> Outcome:
    """One trace at one size, from one moment on, with one predictor."""
    whole = scaled(load_workload(TRACES / f"{job.trace}.csv.gz"), job.size)
    workload = whole[whole.arrival_s >= job.begin_s]
    workload = attrs.evolve(workload, arrival_s=workload.arrival_s - job.begin_s)
    spec = EngineSpec(
        num_gpus=ENGINE.num_gpus,
        max_kv_tokens=ENGINE.max_kv_tokens,
        max_num_batched_tokens=ENGINE.max_num_batched_tokens,
        max_num_seqs=ENGINE.max_num_seqs,
        context_length=ENGINE.longest_request_tokens,
        startup_s=STARTUP_S,
    )
    config = PlannerConfig(
        engines={Role.AGG: spec},
        target="sla",
        sla=SlaTargets(ttft_ms=500, itl_ms=50),
        load=None,
        throughput=ThroughputScaling(predictor=BY_NAME[job.predictor](), quantile=job.quantile),
        limits=Limits(max_gpus=None),
    )
    pools = {Role.AGG: PoolSpec(engine=ENGINE, replicas=2, startup_s=STARTUP_S)}
    summary = replay(workload, config, pools, routing="least_loaded").summary()
    return Outcome(summary["sla_attainment"], summary["gpu_hours"], summary["planner_s"])


def report(traces: Iterable[str], settings: list[tuple[str, float]]) -> None:
    """Print a row for each trace and setting as it arrives."""
    cells = [(trace, *setting) for trace in traces for setting in settings]
    jobs = [Job(trace, *part, *setting) for trace, *setting in cells for part in REPLAYS[trace]]
    print(f"{'trace':<28} {'predictor':<16} {'quantile':>8} {'in SLA':>7} {'GPU-h':>7} {'planner s':>9}")
    with ProcessPoolExecutor(2) as pool:
        outcomes = pool.map(run, jobs)
        for trace, predictor, quantile in cells:
            found = np.array([attrs.astuple(next(outcomes)) for _ in REPLAYS[trace]]).mean(axis=0)
            figures = f"{quantile:8g} {found[0]:7.2%} {found[1]:7.1f} {found[2]:9.1f}"
            print(f"{trace:<28} {predictor:<16} {figures}", flush=True)


def main(asked: list[str]) -> None:
    """What was asked for: by default everything."""
    if not TRACES.is_dir():
        sys.exit(f"needs the traces of {TRACES}, which are not there")
    traces = [trace for trace in REPLAYS if not set(REPLAYS) & set(asked) or trace in asked]
    predictors = [name for name in BY_NAME if not set(BY_NAME) & set(asked) or name in asked]
    if "--quantiles" not in asked:
        report(traces, [(name, USUAL) for name in predictors])
    if "--quantiles" in asked or not asked:
        report(traces, [("ensemble", quantile) for quantile in QUANTILES])


if __name__ == "__main__":
    main(sys.argv[1:])
