from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner_core.maths.queueing import (
    Passes,
    endless_passes,
    erlang,
    gated_passes,
)


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
