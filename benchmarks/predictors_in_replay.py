"""The slow loop alone, with each predictor in turn: what does a better forecast buy?

Needs the traces of ../shared/data/traces. Each is scaled to a service of several engines; a start takes 120 s.
Runs in two processes. Name predictors or traces as arguments to run only those.
"""

from __future__ import annotations

import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from planner_adapters.simulation.pool import PoolSpec
from planner_adapters.simulation.presets import PRESETS
from planner_adapters.simulation.replay import replay
from planner_adapters.simulation.scaling import scaled
from planner_adapters.simulation.traces import load_workload
from planner_core import EngineSpec, Limits, PlannerConfig, Role, SlaTargets, ThroughputScaling
from planner_core.predictors import BY_NAME

TRACES = Path(__file__).parents[2] / "shared" / "data" / "traces"
SCALES = {
    "azure24_code_day_thinned": 6.0,
    "servegen_m_mid_day_thinned": 20.0,
    "azure23_conv": 12.0,
    "azure23_code": 12.0,
}
ENGINE = PRESETS["llama-3.1-8b-fp8-h200"]
STARTUP_S = 120.0


def run(job: tuple[str, str]) -> tuple[str, str, dict[str, Any]]:
    """One trace with one predictor."""
    trace, predictor = job
    workload = scaled(load_workload(TRACES / f"{trace}.csv.gz"), SCALES[trace])
    spec = EngineSpec(
        max_kv_tokens=ENGINE.max_kv_tokens,
        max_num_batched_tokens=ENGINE.max_num_batched_tokens,
        max_num_seqs=ENGINE.max_num_seqs,
        context_length=ENGINE.longest_request_tokens,
        startup_s=STARTUP_S,
    )
    config = PlannerConfig(
        engines={Role.AGG: spec},
        target="sla",
        sla=SlaTargets(ttft_ms=500, itl_ms=30),
        load=None,
        throughput=ThroughputScaling(predictor=BY_NAME[predictor]()),
        limits=Limits(max_gpus=None),
    )
    pools = {Role.AGG: PoolSpec(engine=ENGINE, replicas=2, startup_s=STARTUP_S)}
    return trace, predictor, replay(workload, config, pools, routing="least_loaded").summary()


def main() -> None:
    """Print a table as rows arrive."""
    if not TRACES.is_dir():
        sys.exit(f"needs the traces of {TRACES}, which are not there")
    asked = set(sys.argv[1:])
    traces = [trace for trace in SCALES if not asked & set(SCALES) or trace in asked]
    predictors = [name for name in BY_NAME if not asked & set(BY_NAME) or name in asked]
    print(f"{'trace':<28} {'predictor':<16} {'in SLA':>7} {'GPU-h':>7} {'planner s':>9}")
    with ProcessPoolExecutor(2) as pool:
        for trace, predictor, row in pool.map(run, [(t, p) for t in traces for p in predictors]):
            figures = f"{row['sla_attainment']:7.2%} {row['gpu_hours']:7.1f} {row['planner_s']:9.1f}"
            print(f"{trace:<28} {predictor:<16} {figures}", flush=True)


if __name__ == "__main__":
    main()
