from __future__ import annotations

import pickle
from typing import Any

import pytest
from hypothesis import given

from planner_core import ObservationError, ObservedLatencies, PlannerError, TrafficObservation, WorkerCounts
from planner_core.testing import traffic_observations, worker_counts

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("num_requests", [INF, -INF, NAN, -1, 10**400, True, "5"])
def test_an_impossible_request_count_is_refused(num_requests: Any) -> None:
    with pytest.raises(ObservationError) as caught:
        TrafficObservation(duration_s=180, num_requests=num_requests)
    assert str(caught.value).startswith(f"TrafficObservation.num_requests = {num_requests!r}: must be")


@pytest.mark.parametrize("duration_s", [NAN, INF, 0, -180])
def test_an_impossible_duration_is_refused(duration_s: float) -> None:
    with pytest.raises(ObservationError, match="must be a finite number above 0"):
        TrafficObservation(duration_s=duration_s, num_requests=5)


@pytest.mark.parametrize(
    "impossible", [{"isl": NAN}, {"osl": -1}, {"kv_hit_rate": 1.5}, {"accept_length": 0}, {"isl_std": INF}]
)
def test_impossible_means_are_refused(impossible: dict[str, float]) -> None:
    with pytest.raises(ObservationError):
        TrafficObservation(duration_s=180, num_requests=5, **impossible)


def test_what_was_not_measured_is_none_and_an_idle_window_is_zero_requests() -> None:
    unknown = TrafficObservation(duration_s=180, num_requests=None)
    idle = TrafficObservation(duration_s=180, num_requests=0)
    assert unknown != idle
    assert (idle.isl, idle.osl, idle.kv_hit_rate) == (None, None, None)


def test_a_mean_length_of_zero_is_a_shell_s_word_for_unknown() -> None:
    assert TrafficObservation(duration_s=180, num_requests=0, isl=0, osl=0.0).isl is None


@pytest.mark.parametrize(
    "wrong", [{"ready": -1}, {"ready": 1.5}, {"ready": NAN}, {"expected": -2}, {"draining": None}]
)
def test_impossible_worker_counts_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ObservationError, match="must be a whole number"):
        WorkerCounts(**({"ready": 1} | wrong))


@pytest.mark.parametrize("age", [NAN, INF, -1.0])
def test_impossible_ages_are_refused(age: float) -> None:
    with pytest.raises(ObservationError, match=r"starting_ages_s"):
        WorkerCounts(ready=1, starting_ages_s=[age])  # type: ignore[arg-type]


def test_impossible_latencies_are_refused() -> None:
    with pytest.raises(ObservationError, match=r"ObservedLatencies\.ttft_ms = nan"):
        ObservedLatencies(ttft_ms=NAN)


def test_every_error_of_ours_is_a_value_error_with_one_base() -> None:
    assert issubclass(ObservationError, PlannerError)
    assert issubclass(PlannerError, ValueError)


@given(worker_counts() | traffic_observations())
def test_observations_are_values(observed: Any) -> None:
    copied = pickle.loads(pickle.dumps(observed))
    assert copied == observed
    assert hash(copied) == hash(observed)
    assert str(observed).startswith(type(observed).__name__)
