"""A constant load settles: after a warm-up, the planner changes its mind at most once, in every target and mode."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import attrs
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from planner_core import (
    EngineSpec,
    ForwardPassMetrics,
    Limits,
    LoadScaling,
    PlannerConfig,
    QueueThresholds,
    Role,
    SlaTargets,
    ThroughputScaling,
    TickInput,
    TrafficObservation,
    WorkerCounts,
    first_tick,
    initial_state,
    tick,
)

SPEC = EngineSpec(max_num_batched_tokens=8192, max_num_seqs=256, max_kv_tokens=400_000, context_length=16_384)
WATCHED_S = 1200.0
WARM_UP_S = {"sized": 1200.0, "unit": 3600.0}
"""One replica at a time takes its time: each step down waits for a stabilisation window."""


@attrs.frozen
class Traffic:
    rate_rps: float
    isl: float
    osl: float


def pass_s(tokens: float, requests: float, kv_tokens: float) -> float:
    return 0.01 + 2e-5 * tokens + 1e-4 * requests + 1e-7 * kv_tokens


def passes(
    name: str, role: Role, traffic: Traffic, rate_rps: float, queue: float, busy: bool
) -> list[ForwardPassMetrics]:
    """What one engine says of its last passes when it serves ``rate_rps`` and has ``queue`` prompts waiting."""
    tokens, requests = 0.0, 0.0
    if role is Role.PREFILL:
        tokens = min(8192.0, (1 + queue) * traffic.isl) if busy else 0.0
    else:
        requests = batch_for(role, traffic, rate_rps)
        tokens = requests / traffic.osl * traffic.isl if role is Role.AGG else 0.0
    kv_tokens = requests * (traffic.isl + traffic.osl / 2)
    waiting = {
        Role.DECODE: {"queued_num_decode": queue, "queued_decode_kv_tokens": queue * traffic.isl},
    }.get(role, {"queued_num_prefill": queue, "queued_prefill_tokens": queue * traffic.isl})
    one = ForwardPassMetrics(
        worker_id=name,
        wall_time_s=pass_s(tokens, requests, kv_tokens) if tokens + requests else 0.0,
        num_prefill=tokens / traffic.isl,
        prefill_tokens=tokens,
        num_decode=requests,
        decode_kv_tokens=kv_tokens,
        **waiting,
    )
    return [one]


def largest_batch(traffic: Traffic) -> float:
    return min(256.0, 400_000 / (traffic.isl + traffic.osl / 2))


def served_rps(role: Role, traffic: Traffic, batch: float) -> float:
    tokens = batch / traffic.osl * traffic.isl if role is Role.AGG else 0.0
    return batch / (traffic.osl * pass_s(tokens, batch, batch * (traffic.isl + traffic.osl / 2)))


def batch_for(role: Role, traffic: Traffic, rate_rps: float) -> float:
    """Concurrent requests at which an engine serves ``rate_rps``: grows with the rate, so bisection finds it."""
    low, high = 0.0, largest_batch(traffic)
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if served_rps(role, traffic, middle) < rate_rps else (low, middle)
    return high


def most_rps(role: Role, traffic: Traffic) -> float:
    if role is Role.PREFILL:
        return 8192 / pass_s(8192, 0, 0) / traffic.isl
    return served_rps(role, traffic, largest_batch(traffic))


def counts_over_time(
    config: PlannerConfig, traffic: Traffic, replicas: int, startup_s: float, until_s: float
) -> Iterator[tuple[float, dict[Role, int]]]:
    """Decisions for a fluid model of the fleet: engines share the rate evenly, what they can't serve waits."""
    ready = dict.fromkeys(config.engines, replicas)
    starts: dict[Role, list[float]] = {role: [] for role in ready}
    queue = dict.fromkeys(ready, 0.0)
    state, upcoming, before_s = initial_state(config, 0.0), first_tick(config, 0.0), 0.0
    while upcoming.at_s <= until_s:
        now_s = upcoming.at_s
        elapsed_s, before_s = now_s - before_s, now_s
        fpm: dict[Role, Any] = {}
        for role in ready:
            up = sum(now_s - start >= startup_s for start in starts[role])
            ready[role] += up
            starts[role] = starts[role][up:]
            can_rps = ready[role] * most_rps(role, traffic)
            served = min(can_rps, traffic.rate_rps + queue[role] / elapsed_s)
            queue[role] = max(0.0, queue[role] + (traffic.rate_rps - served) * elapsed_s)
            at_work = served / can_rps * ready[role] if can_rps else 0.0
            share = max(ready[role], 1)
            fpm[role] = [
                one
                for n in range(ready[role])
                for one in passes(
                    f"w{n}", role, traffic, served / share, queue[role] / share, n < round(at_work)
                )
            ]
        workers = {
            role: WorkerCounts(ready=ready[role], starting_ages_s=tuple(now_s - s for s in starts[role]))
            for role in ready
        }
        window_s = max(upcoming.traffic_window_s, 1.0)
        seen = TrafficObservation(
            duration_s=window_s, num_requests=traffic.rate_rps * window_s, isl=traffic.isl, osl=traffic.osl
        )
        measured = {"traffic": seen} if "traffic" in upcoming.needs else {}
        decision = tick(
            TickInput(config=config, state=state, now_s=now_s, workers=workers, fpm=fpm, **measured)
        )
        yield now_s, decision.replicas
        for role, count in decision.replicas.items():
            change = count - ready[role] - len(starts[role])
            starts[role] += [now_s] * max(0, change)
            for _ in range(-change):
                if starts[role]:
                    starts[role].pop()
                else:
                    ready[role] -= 1
        state, upcoming = decision.state, decision.next_tick


@st.composite
def configurations(draw: st.DrawFn, mode: str, target: Any) -> PlannerConfig:
    roles = {"disagg": ("prefill", "decode")}.get(mode, (mode,))
    loops = draw(st.sampled_from(["load", "both", "throughput"]))
    return PlannerConfig(
        engines=dict.fromkeys(roles, SPEC),
        target=target,
        sla=SlaTargets(
            ttft_ms=draw(st.sampled_from([300, 1000, 4000])),
            itl_ms=draw(st.sampled_from([20, 30, 60])),
            quantile=draw(st.sampled_from([None, 0.95])),
        ),
        thresholds=QueueThresholds(
            prefill_scale_up_queue_tokens=9000,
            prefill_scale_down_queue_tokens=500,
            decode_scale_up_kv_rate=0.8,
            decode_scale_down_kv_rate=0.4,
        ),
        load=None if loops == "throughput" else LoadScaling(step=draw(st.sampled_from(["sized", "unit"]))),
        throughput=None if loops == "load" else ThroughputScaling(max_step_replicas=100),
        limits=Limits(max_gpus=draw(st.sampled_from([None, None, 10]))),
    )


@pytest.mark.parametrize("mode", ["disagg", "prefill", "decode", "agg"])
@pytest.mark.parametrize("target", ["throughput", "latency", "load", "sla"])
@settings(max_examples=4, phases=[Phase.generate])  # an example takes a second: too long to shrink one
@given(
    st.data(),
    st.builds(
        Traffic,
        rate_rps=st.floats(0.5, 60),
        isl=st.sampled_from([300.0, 1500.0, 4000.0]),
        osl=st.sampled_from([50.0, 200.0, 400.0]),
    ),
    st.integers(1, 12),
    st.sampled_from([0.0, 60.0, 200.0]),
)
def test_a_constant_load_settles(
    mode: str, target: str, data: st.DataObject, traffic: Traffic, replicas: int, startup_s: float
) -> None:
    config = data.draw(configurations(mode, target))
    warm_s = WARM_UP_S["sized" if config.load is None else config.load.step]
    life = counts_over_time(config, traffic, replicas, startup_s, warm_s + WATCHED_S)
    late = [counts for now_s, counts in life if now_s > warm_s]
    for role in config.engines:
        series = [counts[role] for counts in late]
        assert sum(a != b for a, b in itertools.pairwise(series)) <= 1, series
