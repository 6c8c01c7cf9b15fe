from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner_core import ThroughputReason
from planner_core.maths.sla import Capacity
from planner_core.stages.throughput import Floor, floor_for, planned_rps

rates = st.floats(0, 1e6, allow_subnormal=False)


def carries(rps: float | None, unreachable: str | None = None) -> Capacity:
    return Capacity(batch=10, rps=rps, itl_ms=20.0, binding="itl", unreachable=unreachable)


def floor(
    rate_rps: float, capacity: Capacity | None, before: int | None = None, max_step: int = 10**9
) -> Floor:
    return floor_for(rate_rps, capacity, per_replica=1.0, before=before, max_step=max_step)


@given(st.floats(1e-3, 1e6), st.floats(0.01, 1e4))
def test_the_floor_is_the_smallest_fleet_that_carries_the_rate(rate_rps: float, capacity_rps: float) -> None:
    replicas = floor(rate_rps, carries(capacity_rps)).replicas
    assert replicas is not None
    assert replicas * capacity_rps >= rate_rps * (1 - 1e-6)
    assert (replicas - 1) * capacity_rps < rate_rps * (1 + 1e-6)


def test_rounding_buys_no_replica() -> None:
    assert floor(0.3, carries(0.1)).replicas == 3  # 0.3 / 0.1 is above 3 in floats


def test_the_engines_of_a_replica_carry_together() -> None:
    assert floor_for(10.0, carries(1.0), per_replica=4.0, before=None, max_step=100).replicas == 3


@given(rates, rates, st.floats(0.01, 1e4), st.none() | st.integers(0, 50), st.integers(1, 20))
def test_more_traffic_never_lowers_the_floor(
    rate_rps: float, more_rps: float, capacity_rps: float, before: int | None, max_step: int
) -> None:
    one, other = (
        floor(rps, carries(capacity_rps), before, max_step) for rps in (rate_rps, rate_rps + more_rps)
    )
    assert (one.replicas or 0) <= (other.replicas or 0)


@given(rates, st.floats(0.01, 1e4), st.integers(0, 50), st.integers(1, 20))
def test_the_floor_moves_by_no_more_than_the_largest_step(
    rate_rps: float, capacity_rps: float, before: int, max_step: int
) -> None:
    replicas = floor(rate_rps, carries(capacity_rps), before, max_step).replicas
    assert replicas is not None
    assert abs(replicas - before) <= max_step
    assert replicas >= 0


@pytest.mark.parametrize("capacity", [None, carries(None), carries(0.0), carries(2.0)])
def test_no_traffic_needs_no_replica_even_where_the_capacity_is_not_known(capacity: Capacity | None) -> None:
    assert floor(0.0, capacity) == Floor(replicas=0, reason=ThroughputReason.SET_LOWER_BOUND)


@pytest.mark.parametrize(
    ("capacity", "reason"),
    [
        (None, ThroughputReason.MODEL_NOT_READY),
        (carries(None), ThroughputReason.PREDICT_FAILED),
        (carries(0.0), ThroughputReason.PREDICT_FAILED),
    ],
)
def test_without_a_capacity_the_floor_stays_and_the_reason_says_what_is_missing(
    capacity: Capacity | None, reason: ThroughputReason
) -> None:
    assert floor(5.0, capacity, before=3) == Floor(replicas=None, reason=reason)


def test_an_unreachable_sla_is_named_and_sized_by_load() -> None:
    assert floor(5.0, carries(2.0, "ttft")) == Floor(replicas=3, reason=ThroughputReason.SLA_UNREACHABLE)


@given(rates, rates, st.floats(0, 3), rates)
def test_what_is_planned_for_is_the_forecast_or_more_and_its_headroom_at_most_doubles_it(
    mean_rps: float, std_rps: float, z: float, backlog_rps: float
) -> None:
    planned = planned_rps(mean_rps, std_rps, z, backlog_rps)
    assert mean_rps + backlog_rps <= planned <= (2 * mean_rps + backlog_rps) * (1 + 1e-12)
