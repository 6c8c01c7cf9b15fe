"""Scaling to zero and back, where the minimum is 0: late down, at once up, and no flapping in between."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

import pytest

from planner_core import (
    ForwardPassMetrics,
    FpmBatch,
    PlannerConfig,
    Role,
    TickInput,
    TrafficObservation,
    WorkerCounts,
    first_tick,
    initial_state,
    tick,
)

IDLE_S = 300.0
STARTUP_S = 40.0


def config_for(target: str, idle_s: float = IDLE_S) -> PlannerConfig:
    keys = {
        "mode": "agg",
        "optimization_target": target,
        "enable_load_scaling": True,
        "load_predictor": "constant",
        "min_endpoint": 0,
        "load_idle_seconds": idle_s,
        "engines": {"agg": {"max_kv_tokens": 100_000, "max_num_batched_tokens": 8192}},
    }
    return PlannerConfig.from_mapping(keys)


def replicas_over(config: PlannerConfig, busy: list[tuple[float, float]], until_s: float) -> Iterator[int]:
    """What is ordered at each tick, from one replica on, with requests in the ``busy`` spans alone.

    Requests that find no replica wait at the frontend, which counts them.
    """
    state, upcoming = initial_state(config, 0.0), first_tick(config, 0.0)
    ready, started_s, before_s = 1, 0.0, 0.0
    while upcoming.at_s < until_s:
        now_s = upcoming.at_s
        works = any(from_s <= now_s < to_s for from_s, to_s in busy)
        serves = ready and now_s - started_s >= STARTUP_S
        one = ForwardPassMetrics(
            worker_id="a",
            wall_time_s=0.02 if works else 0.0,
            num_decode=10.0 * works,
            decode_kv_tokens=9_000.0 * works,
        )
        num = 2.0 * (now_s - before_s) * works
        measured = {
            "workers": {
                Role.AGG: WorkerCounts(
                    ready=int(serves),
                    expected=ready,
                    starting_ages_s=() if serves or not ready else (now_s - started_s,),
                )
            },
            "traffic": TrafficObservation(
                duration_s=now_s - before_s,
                num_requests=num,
                isl=800.0 if num else None,
                osl=100.0 if num else None,
            )
            if "traffic" in upcoming.needs
            else None,
            "fpm": {Role.AGG: FpmBatch.of([one])} if serves else {},
        }
        if "traffic" in upcoming.needs:
            before_s = now_s
        decision = tick(TickInput(config=config, state=state, now_s=now_s, **measured))
        state, upcoming = decision.state, decision.next_tick
        wanted = min(decision.replicas.get(Role.AGG, ready), 1)
        if wanted > ready:
            started_s = now_s
        ready = wanted
        yield ready


TARGETS = ["throughput", "latency", "sla"]


@pytest.mark.parametrize("target", TARGETS)
def test_an_idle_role_goes_to_zero_once_and_stays_there(target: str) -> None:
    ordered = list(replicas_over(config_for(target), [(0.0, 60.0)], 3600.0))
    assert [number for number, _ in groupby(ordered)] == [1, 0]


@pytest.mark.parametrize("target", TARGETS)
def test_it_comes_back_with_the_first_request_and_keeps_its_replica_while_there_are_some(target: str) -> None:
    busy = [(0.0, 60.0), (1800.0, 2400.0)]
    ordered = list(replicas_over(config_for(target), busy, 3600.0))
    assert [number for number, _ in groupby(ordered)] == [1, 0, 1, 0]


@pytest.mark.parametrize("target", TARGETS)
def test_a_pause_shorter_than_the_idle_time_costs_no_replica(target: str) -> None:
    busy = [(since_s, since_s + 60.0) for since_s in range(0, 3600, 240)]
    assert set(replicas_over(config_for(target), busy, 3600.0)) == {1}
