"""Replay a request trace in a simulated cluster, and compare the targets by SLA attainment and GPU-hours.

`python examples/replay_a_trace.py [TRACE]` takes a CSV with arrival_s,input_tokens,output_tokens, a JSONL
with timestamp,input_length,output_length, or the Azure LLM inference CSV; without one, it replays a working
day compressed into half an hour.
"""

from __future__ import annotations

import sys

from planner_adapters.simulation import PRESETS, PoolSpec
from planner_adapters.simulation.replay import replay
from planner_adapters.simulation.synthetic import working_day
from planner_adapters.simulation.traces import load_workload
from planner_core import EngineSpec, Limits, PlannerConfig, Role, SlaTargets

workload = load_workload(sys.argv[1]) if len(sys.argv) > 1 else working_day(hours=0.5)
engine = PRESETS["llama-3.1-8b-fp8-h200"]
spec = EngineSpec(
    num_gpus=engine.num_gpus,
    max_num_batched_tokens=engine.max_num_batched_tokens,
    max_num_seqs=engine.max_num_seqs,
    context_length=engine.context_length,
    max_kv_tokens=engine.max_kv_tokens,
    startup_s=60.0,
)
sla = SlaTargets(ttft_ms=500, itl_ms=30)
deployment = {Role.AGG: PoolSpec(engine=engine, replicas=2, startup_s=60.0)}

print(f"{workload.name}: {len(workload)} requests")
for target in ("throughput", "latency", "sla"):
    config = PlannerConfig(engines={Role.AGG: spec}, target=target, sla=sla, limits=Limits(max_gpus=16))
    result = replay(workload, config, deployment)
    print(
        f"{target:>10}: {result.sla_attainment:6.1%} of requests within the SLA, "
        f"{result.gpu_hours:.2f} GPU-hours, {result.scale_ups} up, {result.scale_downs} down, "
        f"at most {result.peak_replicas} replicas"
    )
