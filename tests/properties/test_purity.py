"""The core does nothing but compute: no file, socket, clock, import or process in any tick, not even in the first."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import sys
from planner_core import *

target = sys.argv[1]
spec = EngineSpec(max_num_batched_tokens=8192, max_num_seqs=64, max_kv_tokens=400_000, context_length=16_384)
thresholds = QueueThresholds(
    prefill_scale_up_queue_tokens=9000,
    prefill_scale_down_queue_tokens=100,
    decode_scale_up_kv_rate=0.8,
    decode_scale_down_kv_rate=0.2,
)
configs = [
    PlannerConfig(
        engines={role: spec for role in roles},
        target=target,
        sla=SlaTargets(ttft_ms=500, itl_ms=30, quantile=0.95),
        thresholds=thresholds,
        limits=Limits(max_gpus=None),
    )
    for roles in (("prefill", "decode"), ("prefill",), ("decode",), ("agg",))
]


def measured(roles, number):
    busy = 0 if number % 40 > 30 else 1 + number % 7
    passes = [
        ForwardPassMetrics(
            worker_id=f"w{i}",
            wall_time_s=0.01 * busy * (1 + i),
            num_prefill=busy,
            prefill_tokens=700 * busy * i,
            num_decode=9 * busy,
            decode_kv_tokens=9000 * busy,
            queued_num_prefill=5 * busy,
            queued_prefill_tokens=9000 * busy * (number % 3),
        )
        for i in range(3)
    ]
    return dict(
        workers={role: WorkerCounts(ready=3, expected=4, starting_ages_s=(5.0 * number,)) for role in roles},
        fpm={role: passes for role in roles},
        traffic=TrafficObservation(duration_s=5, num_requests=40 * busy, isl=1000, osl=200),
    )


events = []
watching = False
sys.addaudithook(lambda name, args: events.append((name, args)) if watching else None)
watching = True
for config in configs:
    state, upcoming = initial_state(config, 0.0), first_tick(config, 0.0)
    for number in range(100):
        inputs = TickInput(config=config, state=state, now_s=upcoming.at_s, **measured(config.engines, number))
        decision = tick(inputs)
        state, upcoming = decision.state, decision.next_tick
        for explanation in decision.explanations.values():
            explanation.sentence()
watching = False
print(*events, sep="\\n", end="")
"""


@pytest.mark.parametrize("target", ["throughput", "latency", "load", "sla"])
def test_a_planner_touches_nothing_outside_itself(target: str) -> None:
    run = subprocess.run([sys.executable, "-P", "-c", SCRIPT, target], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout == ""
