"""Replay a request trace in a simulated cluster, and compare the targets by SLA attainment and GPU-hours.

`python examples/replay_a_trace.py [TRACE]` takes a CSV with arrival_s,input_tokens,output_tokens, a JSONL
with timestamp,input_length,output_length, or the Azure LLM inference CSV; without one, it replays a working
day compressed into two hours.
"""

from __future__ import annotations

import sys

from planner_adapters.config_file import Settings
from planner_adapters.simulation.deployment import engine_of, plan_deployment
from planner_adapters.simulation.replay import replay
from planner_adapters.simulation.synthetic import working_day
from planner_adapters.simulation.traces import load_workload

workload = load_workload(sys.argv[1]) if len(sys.argv) > 1 else working_day(hours=2.0, mean_rps=6.0)
engine = engine_of(name="llama-3.1-70b-fp8-h100")  # four GPUs each
keys = {"mode": "agg", "ttft_ms": 1_000, "itl_ms": 50, "max_gpu_budget": 64}

print(f"{workload.name}: {len(workload)} requests")
for target in ("throughput", "latency", "sla"):
    settings = Settings(values={**keys, "optimization_target": target, "enable_load_scaling": True})
    deployment = plan_deployment(settings, engine, startup_s=60.0, replicas=2)
    result = replay(workload, deployment.config, deployment.roles)
    print(
        f"{target:>10}: {result.sla_attainment:6.1%} of requests within the SLA, "
        f"{result.gpu_hours:.2f} GPU-hours, {result.scale_ups} up, {result.scale_downs} down, "
        f"at most {result.peak_replicas} replicas"
    )
