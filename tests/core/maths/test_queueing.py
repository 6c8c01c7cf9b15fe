from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner_core.maths.queueing import utilisation_for_wait, wait_s

services_s = st.floats(1e-3, 10)
quantiles = st.none() | st.floats(0.5, 0.999)
spreads = st.floats(0, 4)


def wait(service_s: float, utilisation: float, cv2: float, quantile: float | None) -> float:
    return float(wait_s(np.array(service_s), np.array(utilisation), cv2=cv2, quantile=quantile))


@given(services_s, st.floats(0.01, 0.99), quantiles)
def test_exponential_service_waits_as_m_m_1_does(
    service_s: float, rho: float, quantile: float | None
) -> None:
    # Closed forms: W = S·ρ/(1 − ρ), and P(W > t) = ρ·exp(−t·(1 − ρ)/S).
    got = wait(service_s, rho, 1.0, quantile)
    if quantile is None:
        assert got == pytest.approx(service_s * rho / (1 - rho))
    elif got > 0:
        assert rho * math.exp(-got * (1 - rho) / service_s) == pytest.approx(1 - quantile)
    else:
        assert rho <= 1 - quantile


@given(services_s, st.floats(0.01, 0.99))
def test_constant_service_waits_half_as_long_as_exponential(service_s: float, rho: float) -> None:
    assert wait(service_s, rho, 0.0, None) == pytest.approx(wait(service_s, rho, 1.0, None) / 2)


def simulated_waits(rho: float, cv2: float, num: int = 200_000) -> np.ndarray:
    """Waits of an M/G/1 queue with a mean service of 1 s, by Lindley's recursion; cv² of 0 or 1."""
    dice = np.random.default_rng(7)
    service = dice.exponential(1.0, num) if cv2 else np.ones(num)
    steps = service - dice.exponential(1 / rho, num)
    walk = np.concatenate(([0.0], np.cumsum(steps)))
    return walk - np.minimum.accumulate(walk)


@pytest.mark.parametrize("cv2", [0.0, 1.0])
@pytest.mark.parametrize("rho", [0.5, 0.8, 0.9])
def test_a_simulated_queue_waits_as_long_on_average(cv2: float, rho: float) -> None:
    assert wait(1.0, rho, cv2, None) == pytest.approx(float(simulated_waits(rho, cv2).mean()), rel=0.1)


@pytest.mark.parametrize("cv2", [0.0, 1.0])
@pytest.mark.parametrize("rho", [0.7, 0.9])
def test_a_simulated_queue_keeps_the_promised_quantile(cv2: float, rho: float) -> None:
    promised = wait(1.0, rho, cv2, 0.95)
    assert float(np.mean(simulated_waits(rho, cv2) > promised)) == pytest.approx(0.05, abs=0.015)


@given(services_s, st.floats(0, 1.5), st.floats(0, 1.5), spreads, quantiles)
def test_a_busier_engine_never_waits_less(
    service_s: float, one: float, other: float, cv2: float, quantile: float | None
) -> None:
    low, high = sorted((one, other))
    assert wait(service_s, low, cv2, quantile) <= wait(service_s, high, cv2, quantile)


@given(services_s, st.floats(1.0, 100.0), spreads, quantiles)
def test_an_overloaded_engine_waits_for_ever(
    service_s: float, rho: float, cv2: float, quantile: float | None
) -> None:
    assert wait(service_s, rho, cv2, quantile) == math.inf


@given(services_s, st.floats(1e-3, 100), spreads, quantiles)
def test_the_allowed_utilisation_is_the_largest_that_keeps_the_wait(
    service_s: float, target_s: float, cv2: float, quantile: float | None
) -> None:
    rho = utilisation_for_wait(service_s, target_s, cv2=cv2, quantile=quantile)
    assert 0 <= rho < 1
    assert wait(service_s, rho, cv2, quantile) <= target_s * (1 + 1e-6)
    above = rho + 1e-6
    assert above >= 1 or wait(service_s, above, cv2, quantile) > target_s * (1 - 1e-6)


@given(services_s, st.floats(-1, 100), st.floats(0, 100), spreads, quantiles)
def test_more_patience_never_allows_less_utilisation(
    service_s: float, target_s: float, more_s: float, cv2: float, quantile: float | None
) -> None:
    one, other = (
        utilisation_for_wait(service_s, t, cv2=cv2, quantile=quantile) for t in (target_s, target_s + more_s)
    )
    assert one <= other + 1e-9


def test_no_time_to_wait_leaves_an_engine_so_idle_that_few_wait() -> None:
    assert utilisation_for_wait(1.0, 0.0, cv2=1.0, quantile=None) == 0.0
    assert utilisation_for_wait(1.0, 0.0, cv2=1.0, quantile=0.95) == pytest.approx(0.05)
