from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner_core.data.state import Surges
from planner_core.stages.surges import MOST_LOWS, REMEMBERED, expected_rps, learn

WINDOW_S = 5.0


def watch(
    rate_at: Callable[[float], float], until_s: float, rng: np.random.Generator | None = None
) -> Surges:
    """The memory after windows of five seconds; with ``rng``, of Poisson arrivals."""
    surges, recent = Surges(), rate_at(0.0)
    for now_s in np.arange(WINDOW_S, until_s, WINDOW_S).tolist():
        rate = rate_at(now_s)
        rps = rate if rng is None else rng.poisson(rate * WINDOW_S) / WINDOW_S
        recent += (rps - recent) * -math.expm1(-WINDOW_S / 20)
        surges = learn(surges, rps, recent, WINDOW_S, now_s)
    return surges


def bursts(low: float, high: float, first_s: float = 300, every_s: float = 600, last_s: float = 120):
    return lambda now_s: high if now_s >= first_s and (now_s - first_s) % every_s < last_s else low


@pytest.mark.parametrize("low", [0.0, 5.0])
def test_room_is_kept_for_a_burst_that_came_twice(low: float) -> None:
    rate_at = bursts(low, 60)
    assert expected_rps(watch(rate_at, 800), 800) == 0  # after the first
    twice = watch(rate_at, 1400)
    assert 45 < expected_rps(twice, 1400) <= 60


def test_a_burst_is_expected_on_top_of_the_load_that_there_is() -> None:
    rate_at = bursts(0, 60)

    def with_wave(now_s: float) -> float:
        return 50 - 40 * math.cos(now_s / 1800 * math.pi) + rate_at(now_s)

    crest, trough = watch(with_wave, 1800), watch(with_wave, 3600)
    assert 85 + 40 < expected_rps(crest, 1800) <= 90 + 60
    assert 10 + 40 < expected_rps(trough, 3600) <= 20 + 60


def test_the_beginning_of_a_service_is_no_burst() -> None:
    rate_at = bursts(50, 100, first_s=420)
    slowly = watch(lambda now_s: min(now_s / 2, 50) if now_s < 420 else rate_at(now_s), 1200)
    assert 80 < expected_rps(slowly, 1200) <= 100  # both bursts were seen


def test_a_burst_that_stays_away_is_forgotten() -> None:
    rate_at = bursts(5, 60)
    surges = watch(lambda now_s: rate_at(now_s) if now_s < 1200 else 5, 4000)
    assert expected_rps(surges, 2000) > 0
    assert expected_rps(surges, 4000) == 0


def test_a_rise_that_stays_is_a_new_level() -> None:
    assert expected_rps(watch(lambda now_s: 5 if now_s < 300 else 60, 5000), 5000) == 0


def test_a_slow_ramp_is_no_burst() -> None:
    day = watch(lambda now_s: 30 - 25 * math.cos(now_s / 3600 * math.pi), 20_000)
    assert expected_rps(day, 20_000) == 0


@pytest.mark.parametrize("rate", [0.2, 3.0, 50.0])
def test_the_noise_of_arrivals_is_no_burst(rate: float) -> None:
    surges = watch(lambda now_s: rate, 20_000, np.random.default_rng(0))
    assert expected_rps(surges, 20_000) <= 2 * rate


@given(st.lists(st.tuples(st.floats(0, 1e12), st.floats(-1e4, 1e4), st.floats(1e-3, 1e6)), max_size=60))
def test_the_memory_is_bounded_and_expects_no_rise_above_what_was_seen(
    windows: list[tuple[float, float, float]],
) -> None:
    surges, now_s, most = Surges(), 0.0, 0.0
    for rps, step_s, duration_s in windows:
        now_s, most = now_s + step_s, max(most, rps)
        surges = learn(surges, rps, rps, duration_s, now_s)
        assert len(surges.lows) <= MOST_LOWS
        assert len(surges.ended) <= REMEMBERED
        assert 0 <= expected_rps(surges, now_s) <= 2 * most


def test_a_burst_of_short_requests_is_no_burst_of_as_many_long_ones() -> None:
    twice = watch(bursts(5, 60), 1400)
    short, long = (expected_rps(twice, 1400, tokens=tokens) - 5 for tokens in (1.0, 10.0))
    assert long == pytest.approx(short / 10, rel=0.01)
