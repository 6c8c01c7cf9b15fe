from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner_core import ThroughputReason
from planner_core.maths.fleet import Sizing
from planner_core.predictors import Ensemble
from planner_core.stages.throughput import MOST_HEADROOM, Floor, floor_for, planned_rps

rates = st.floats(0, 1e6, allow_subnormal=False)


def needs(engines: int, unreachable: str | None = None) -> Sizing:
    return Sizing(engines=engines, binding="itl", utilisation=0.5, unreachable=unreachable)


def floor(
    rate_rps: float,
    sizing: Sizing | None,
    before: int | None = None,
    max_step: int = 10**9,
    roomy: Sizing | None = None,
    **more: Any,
) -> Floor:
    sizings = None if sizing is None else (sizing, roomy or sizing)
    return floor_for(rate_rps, sizings, before=before, max_step=max_step, **({"per_replica": 1.0} | more))


@given(st.integers(0, 10**6), st.integers(1, 16))
def test_the_floor_is_the_smallest_fleet_with_the_engines_that_are_needed(engines: int, ranks: int) -> None:
    replicas = floor(1.0, needs(engines), per_replica=float(ranks)).replicas
    assert replicas is not None
    assert (replicas - 1) * ranks < engines <= replicas * ranks


@given(st.integers(0, 10**6), st.integers(0, 50), st.integers(1, 20))
def test_the_floor_moves_by_no_more_than_the_largest_step(engines: int, before: int, max_step: int) -> None:
    replicas = floor(5.0, needs(engines), before, max_step).replicas
    assert replicas is not None
    assert abs(replicas - before) <= max_step
    assert replicas >= 0


@pytest.mark.parametrize("sizing", [None, needs(0), needs(3)])
def test_no_traffic_needs_no_replica_even_where_its_size_is_not_known(sizing: Sizing | None) -> None:
    assert floor(0.0, sizing) == Floor(replicas=0, reason=ThroughputReason.SET_LOWER_BOUND)


@pytest.mark.parametrize(
    ("model_ready", "reason"),
    [(False, ThroughputReason.MODEL_NOT_READY), (True, ThroughputReason.PREDICT_FAILED)],
)
def test_without_a_size_the_floor_stays_and_the_reason_says_what_is_missing(
    model_ready: bool, reason: ThroughputReason
) -> None:
    assert floor(5.0, None, before=3, model_ready=model_ready) == Floor(replicas=None, reason=reason)


@given(st.integers(1, 100), st.integers(0, 20), st.integers(1, 100))
def test_the_floor_sinks_only_to_a_size_that_leaves_room(engines: int, room: int, before: int) -> None:
    replicas = floor(5.0, needs(engines), before, roomy=needs(engines + room)).replicas
    assert replicas == (engines if engines >= before else min(engines + room, before))


def test_an_unreachable_sla_is_named_and_sized_by_load() -> None:
    assert floor(5.0, needs(3, "ttft")) == Floor(replicas=3, reason=ThroughputReason.SLA_UNREACHABLE)


@given(rates, rates, st.floats(0, 3), rates)
def test_what_is_planned_for_is_the_forecast_or_more_and_its_headroom_is_bounded_by_it(
    mean_rps: float, std_rps: float, z: float, backlog_rps: float
) -> None:
    planned = planned_rps(mean_rps, std_rps, z, backlog_rps)
    assert mean_rps + backlog_rps <= planned <= ((1 + MOST_HEADROOM) * mean_rps + backlog_rps) * (1 + 1e-12)


def test_in_a_lull_the_next_burst_is_provided_for() -> None:
    predictor = Ensemble()
    state = predictor.init()
    for rate_rps in (4.0, 40.0, 5.0, 38.0, 4.0, 42.0, 4.0):
        state = predictor.observe(state, rate_rps)
    coming = predictor.forecast(state)
    assert coming is not None
    assert planned_rps(float(coming.mean[0]), float(coming.std[0]), 0.84, 0.0) > 30
    assert planned_rps(0.0, float(coming.std[0]), 0.84, 0.0) == 0
