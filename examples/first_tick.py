"""One tick under an SLA: teach the planner an engine, show it a queue, read the decision, and ask "what if?".

Run it with `python examples/first_tick.py`. Nothing is deployed: the numbers are those of a small benchmark.
"""

from __future__ import annotations

import attrs

from planner_core import (
    ForwardPassMetrics,
    PlannerConfig,
    Role,
    SlaTargets,
    TickInput,
    TrafficObservation,
    WorkerCounts,
    initial_state,
    tick,
)


def prefill_pass(tokens: int, worker_id: str = "bench", **queued: float) -> ForwardPassMetrics:
    """A prefill pass of an engine that needs 12 ms and 52 µs per token."""
    wall_time_s = 0.012 + 52e-6 * tokens
    return ForwardPassMetrics(
        worker_id=worker_id, wall_time_s=wall_time_s, num_prefill=1, prefill_tokens=tokens, **queued
    )


def decode_pass(requests: int, context: int, worker_id: str = "bench") -> ForwardPassMetrics:
    """A decode pass of an engine that needs 8 ms, 0.12 ms per request and 0.11 µs per token of context."""
    kv_tokens = requests * context
    wall_time_s = 0.008 + 120e-6 * requests + 0.11e-6 * kv_tokens
    return ForwardPassMetrics(
        worker_id=worker_id, wall_time_s=wall_time_s, num_decode=requests, decode_kv_tokens=kv_tokens
    )


config = PlannerConfig.from_mapping(
    {
        "mode": "disagg",
        "optimization_target": "sla",
        "enable_load_scaling": True,
        "ttft_ms": 500,
        "itl_ms": 50,
        "max_gpu_budget": 16,
        "engines": {"prefill": {"max_num_batched_tokens": 8_192}, "decode": {"max_kv_tokens": 400_000}},
    }
)

benchmark = {
    Role.PREFILL: [prefill_pass(tokens) for tokens in (256, 512, 1_024, 2_048, 4_096, 8_192)],
    Role.DECODE: [
        decode_pass(requests, context) for requests in (1, 8, 32, 64, 128) for context in (800, 1_600)
    ],
}

now = TickInput(
    config=config,
    state=initial_state(config, now_s=0.0, fpm=benchmark),
    now_s=5.0,
    workers={Role.PREFILL: WorkerCounts(ready=1), Role.DECODE: WorkerCounts(ready=1)},
    traffic=TrafficObservation(duration_s=5.0, num_requests=60, isl=1_500, osl=200),
    fpm={
        Role.PREFILL: [prefill_pass(8_192, "prefill-0", queued_num_prefill=14, queued_prefill_tokens=21_000)],
        Role.DECODE: [decode_pass(100, 1_600, "decode-0")],
    },
)

print("TTFT 500 ms, ITL 50 ms")
for explanation in tick(now).explanations.values():
    print(" ", explanation.sentence())

for sla in (SlaTargets(ttft_ms=2_000), SlaTargets(itl_ms=25), SlaTargets(ttft_ms=500, quantile=0.95)):
    what_if = attrs.evolve(now, config=attrs.evolve(config, sla=sla))
    replicas = {str(role): count for role, count in tick(what_if).replicas.items()}
    print(f"with {sla}: {replicas}")
