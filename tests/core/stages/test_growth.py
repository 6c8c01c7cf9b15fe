from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner_core.data.state import Growth
from planner_core.stages.growth import MOST_GOING_ON, PARTS, REMEMBERED, expected, learn

WINDOW_S, START_S = 5.0, 60.0


def watch(load_at: Callable[[float], float], until_s: float, varies: float = 0.0) -> Growth:
    growth = Growth()
    for now_s in np.arange(WINDOW_S, until_s, WINDOW_S).tolist():
        growth = learn(growth, load_at(now_s), varies, now_s, START_S)
    return growth


def test_a_constant_load_is_expected_to_stay() -> None:
    assert expected(watch(lambda now_s: 50.0, 3600), 0.0, 0.95) == 0


def test_a_steady_rise_is_expected_to_go_on() -> None:
    ramp = watch(lambda now_s: 10.0 if now_s < 1200 else 10 + (now_s - 1200) / 30, 1300)
    assert expected(ramp, 0.0, 0.75) == pytest.approx(START_S / 30 / 13, rel=0.15)


def test_a_step_is_not_expected_to_go_on() -> None:
    step = watch(lambda now_s: 10.0 if now_s < 600 else 12.0, 640)
    assert expected(step, 0.0, 0.75) == 0


def test_a_wave_is_expected_to_rise_as_it_rose_before() -> None:
    wave = watch(lambda now_s: 100 + 20 * math.sin(now_s / 600 * 2 * math.pi), 3000)
    steepest = 20 * 2 * math.pi / 600 * START_S / 100
    assert steepest / 2 < expected(wave, 0.0, 0.95) < 1.5 * steepest


def test_chance_is_no_growth() -> None:
    dice = np.random.default_rng(0)
    growth = Growth()
    for now_s in np.arange(15.0, 6000.0, 15.0).tolist():
        growth = learn(growth, 50 * (1 + 0.05 * dice.standard_normal()), 0.05, now_s, START_S)
    assert expected(growth, 0.05, 0.75) == 0


def test_what_rises_in_a_burst_is_no_usual_growth() -> None:
    quiet = watch(lambda now_s: 10.0, 600)
    growth = quiet
    for now_s in np.arange(600.0, 720.0, WINDOW_S).tolist():
        growth = learn(growth, 40.0, 0.0, now_s, START_S, bursts=True)
    assert growth.seen == quiet.seen
    assert growth.past[-1][1] == 40.0


def test_a_gap_begins_the_comparison_anew() -> None:
    before = watch(lambda now_s: 10.0, 600)
    after = learn(before, 100.0, 0.0, 600 + 10 * START_S, START_S)
    assert after.seen == before.seen
    assert len(after.past) == 1


@given(
    st.lists(st.tuples(st.floats(0, 1e9), st.floats(-100, 1000), st.floats(0, 2)), max_size=200),
    st.floats(1, 1000),
)
def test_whatever_comes_the_memory_is_bounded_and_so_is_what_is_expected(
    windows: list[tuple[float, float, float]], start_s: float
) -> None:
    growth, now_s = Growth(), 0.0
    for load, step_s, varies in windows:
        now_s += step_s
        growth = learn(growth, load, varies, now_s, start_s)
        usual, most = (expected(growth, varies, share) for share in (0.75, 0.95))
        assert 0 <= usual <= most <= MOST_GOING_ON
    assert len(growth.past) <= PARTS + 1
    assert len(growth.seen) <= REMEMBERED
