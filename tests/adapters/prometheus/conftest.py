from __future__ import annotations

import pytest

from planner_adapters.prometheus import MetricsOut
from planner_core import (
    FpmBatch,
    ObservedLatencies,
    PlannerConfig,
    Role,
    TickInput,
    TrafficObservation,
    WorkerCounts,
    initial_state,
    tick,
)


@pytest.fixture
def full_metrics() -> MetricsOut:
    """After a tick in which everything was known."""
    config = PlannerConfig.from_mapping(
        {
            "optimization_target": "sla",
            "enable_load_scaling": True,
            "load_predictor": "constant",
            "engines": {
                role: {"max_kv_tokens": 100_000, "max_num_batched_tokens": 8192}
                for role in Role
                if role != "agg"
            },
            "max_gpu_budget": 64,
        }
    )
    passes = {
        role: FpmBatch(
            worker_id=[f"{role}-{n % 2}" for n in range(40)],
            wall_time_s=[0.02 + 1e-5 * 500 * (n % 7) for n in range(40)],
            num_prefill=1.0 if role is Role.PREFILL else 0.0,
            prefill_tokens=[500.0 * (1 + n % 7) * (role is Role.PREFILL) for n in range(40)],
            num_decode=[1.0 + n % 7 if role is Role.DECODE else 0.0 for n in range(40)],
            decode_kv_tokens=[500.0 * (1 + n % 7) * (role is Role.DECODE) for n in range(40)],
            queued_prefill_tokens=100.0 if role is Role.PREFILL else 0.0,
            queued_num_prefill=1.0 if role is Role.PREFILL else 0.0,
        )
        for role in config.engines
    }
    traffic = TrafficObservation(duration_s=180, num_requests=360, isl=1000, osl=100)
    observed = ObservedLatencies(ttft_ms=200.0, itl_ms=20.0, request_duration_s=3.0)
    metrics = MetricsOut(config)
    state, now_s = initial_state(config, 0.0, fpm=passes, traffic=(traffic,) * 4), 0.0
    for _ in range(80):  # two intervals of the slow loop
        now_s += 5
        inputs = TickInput(
            config=config,
            state=state,
            now_s=now_s,
            workers={role: WorkerCounts(ready=2) for role in config.engines},
            traffic=traffic if now_s % 180 == 0 else None,
            fpm=passes,
            observed=observed,
        )
        decision = tick(inputs)
        metrics.update(inputs, decision)
        state = decision.state
    return metrics
