from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner_core.maths.queueing import (
    Passes,
    endless_passes,
    erlang,
    gated_passes,
    utilisation_for_wait,
    wait_s,
)

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


@pytest.mark.parametrize("servers", [1, 2, 10, 100])
@pytest.mark.parametrize("rho", [0.1, 0.5, 0.9, 0.99])
def test_erlangs_formulas_are_his_sums(servers: int, rho: float) -> None:
    offered = servers * rho
    terms = [1.0]
    for k in range(1, servers + 1):
        terms.append(terms[-1] * offered / k)
    waits = terms[-1] / (1 - rho)
    lost, shared = erlang(np.array([float(servers)]), np.array([offered]))
    assert float(lost[0]) == pytest.approx(terms[-1] / sum(terms), rel=1e-9)
    assert float(shared[0]) == pytest.approx(waits / (sum(terms[:-1]) + waits), rel=1e-9)


def test_erlangs_formulas_are_there_for_ten_thousand_servers() -> None:
    lost, shared = erlang(np.array([10_000.0]), np.array([9_900.0]))
    assert 0 < float(lost[0]) < float(shared[0]) < 1


def passes(rate: float, overhead_s: float, work_s: float, cv2: float) -> Passes:
    rho = np.array([rate * work_s])
    return gated_passes(
        np.array([rate]),
        np.array([overhead_s]),
        np.array([work_s]),
        np.array([work_s**2 * (1 + cv2)]),
        rho,
        rho,
    )


@given(st.floats(0.05, 0.95), st.floats(0, 3))
def test_without_overhead_a_pass_hides_no_work(rho: float, cv2: float) -> None:
    # Pollaczek and Khinchine: the unfinished work is λE[B²]/(2(1 − ρ)), however it is cut into passes.
    got = passes(rho, 0.0, 1.0, cv2)
    work_ahead = got.biased_s * (1 + rho) / 2
    assert float(work_ahead[0]) == pytest.approx((1 + cv2) / (2 * (1 - rho)), rel=1e-6)


def simulated_passes(
    rate: float, overhead_s: float, cv2: float, num: int = 200_000
) -> tuple[float, float, float]:
    """(mean pass, its second moment over its mean, share of the time that is busy) of gated batch service."""
    dice = np.random.default_rng(11)
    lengths, idle_s, length = np.empty(num), 0.0, overhead_s + 1.0
    for k in range(num):
        lengths[k] = length
        arrived = dice.poisson(rate * length)
        if arrived == 0:
            idle_s += dice.exponential(1 / rate)
            arrived = 1
        work = dice.exponential(1.0, arrived).sum() if cv2 else float(arrived)
        length = overhead_s + work
    busy = lengths.sum() / (lengths.sum() + idle_s)
    return float(lengths.mean()), float((lengths**2).mean() / lengths.mean()), float(busy)


@pytest.mark.parametrize("cv2", [0.0, 1.0])
@pytest.mark.parametrize(("rate", "overhead_s"), [(0.3, 0.2), (0.6, 0.2), (0.8, 0.0), (0.6, 1.5)])
def test_simulated_passes_last_as_long_as_foretold(rate: float, overhead_s: float, cv2: float) -> None:
    got = passes(rate, overhead_s, 1.0, cv2)
    mean, biased, busy = simulated_passes(rate, overhead_s, cv2)
    assert float(got.mean_s[0]) == pytest.approx(mean, rel=0.06)
    assert float(got.biased_s[0]) == pytest.approx(biased, rel=0.08)
    assert float(got.busy[0]) == pytest.approx(busy, abs=0.03)


@pytest.mark.parametrize("first_s", [0.0, 0.5])
@pytest.mark.parametrize("rate", [0.1, 0.5, 0.8])
def test_simulated_passes_of_decodes_and_prompts_last_as_long_as_foretold(
    rate: float, first_s: float
) -> None:
    dice = np.random.default_rng(13)
    lengths, length = np.empty(200_000), 0.3
    for k in range(len(lengths)):
        lengths[k] = length
        arrived = dice.poisson(rate * length)
        length = 0.3 + first_s * (arrived > 0) + dice.exponential(1.0, arrived).sum()
    one = np.ones(1)
    every, mixed = endless_passes(rate * one, 0.3 * one, first_s * one, 2.0 * one, rate * one)
    assert float(every.mean_s[0]) == pytest.approx(lengths.mean(), rel=0.06)
    assert float(every.biased_s[0]) == pytest.approx((lengths**2).mean() / lengths.mean(), rel=0.1)
    assert float(mixed.mean_s[0]) == pytest.approx(lengths[lengths > 0.3].mean(), rel=0.3)
