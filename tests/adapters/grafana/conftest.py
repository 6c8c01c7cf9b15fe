from __future__ import annotations

from collections.abc import Iterator

import attrs
import pytest
from prometheus_client.parser import text_string_to_metric_families

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

T0 = 1_700_000_000
TICK_S = 15
NUM_TICKS = 80


@attrs.frozen
class Recording:
    """What a Prometheus would have stored of a planner to which everything was known, and when that ended."""

    text: str
    end_s: float


@pytest.fixture(scope="session")
def recording() -> Recording:
    config = PlannerConfig.from_mapping(
        {
            "optimization_target": "sla",
            "enable_load_scaling": True,
            "load_adjustment_interval_seconds": TICK_S,
            "load_predictor": "constant",
            "engines": {
                "prefill": {"max_num_batched_tokens": 8192},
                "decode": {"max_kv_tokens": 100_000, "num_gpus": 4},
            },
            "max_gpu_budget": 64,
        }
    )
    passes = {role: _passes(role) for role in config.engines}
    traffic = TrafficObservation(duration_s=180, num_requests=360, isl=1000, osl=100)
    state = initial_state(config, 0.0, fpm=passes, traffic=(traffic,) * 4)
    metrics, lines = MetricsOut(config), list[str]()
    for number in range(1, NUM_TICKS + 1):
        now_s = float(number * TICK_S)
        inputs = TickInput(
            config=config,
            state=state,
            now_s=now_s,
            workers={role: WorkerCounts(ready=2) for role in config.engines},
            traffic=traffic if now_s % 180 == 0 else None,
            fpm=passes,
            observed=ObservedLatencies(ttft_ms=200.0, itl_ms=20.0, request_duration_s=3.0),
        )
        decision = tick(inputs)
        metrics.update(inputs, decision)
        state = decision.state
        lines += _samples(metrics, T0 + now_s)
    by_series = sorted(lines, key=lambda line: line.partition("{")[0])
    return Recording("".join(by_series), T0 + NUM_TICKS * TICK_S)


def _passes(role: Role) -> FpmBatch:
    prefills, decodes = float(role is Role.PREFILL), float(role is Role.DECODE)
    return FpmBatch(
        worker_id=[f"{role}-{n % 2}" for n in range(40)],
        wall_time_s=[0.02 + 0.005 * (n % 7) for n in range(40)],
        num_prefill=prefills,
        prefill_tokens=[500.0 * (1 + n % 7) * prefills for n in range(40)],
        num_decode=[(1.0 + n % 7) * decodes for n in range(40)],
        decode_kv_tokens=[500.0 * (1 + n % 7) * decodes for n in range(40)],
        queued_prefill_tokens=100.0 * prefills,
        queued_num_prefill=prefills,
    )


def _samples(metrics: MetricsOut, at_s: float) -> Iterator[str]:
    for family in text_string_to_metric_families(metrics.text()):
        for sample in family.samples:
            labels = {**sample.labels, "job": "planner", "instance": "10.0.0.1:9085"}
            text = ",".join(f'{key}="{value}"' for key, value in labels.items())
            yield f"{sample.name}{{{text}}} {sample.value} {at_s}\n"
