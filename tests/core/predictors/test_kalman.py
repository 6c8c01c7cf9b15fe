from __future__ import annotations

import numpy as np
import pytest

from planner_core.predictors import Kalman

DICE = np.random.default_rng(5)


@pytest.mark.parametrize(("q_level", "q_trend", "r"), [(1.0, 0.1, 10.0), (3.0, 1e-6, 2.0)])
def test_with_fixed_noises_it_is_the_filter_of_filterpy(q_level: float, q_trend: float, r: float) -> None:
    filterpy = pytest.importorskip("filterpy.kalman")
    values = (50 + DICE.normal(0, 0.3, 60).cumsum()).tolist()
    model = filterpy.KalmanFilter(dim_x=2, dim_z=1)
    model.F, model.H = np.array([[1.0, 1.0], [0.0, 1.0]]), np.array([[1.0, 0.0]])
    model.Q, model.R = np.diag([q_level, q_trend]), np.eye(1) * r
    model.x, model.P = np.array([[values[0]], [0.0]]), np.diag([1e4 * r, q_trend])
    ours = Kalman(q_level=q_level, q_trend=q_trend, r=r)
    state = ours.init()
    for value in values:
        state = ours.observe(state, value)
        model.predict()
        model.update(value)
    forecast = ours.forecast(state, 2)
    assert forecast is not None
    level, trend = model.x.ravel()
    np.testing.assert_allclose(forecast.mean, [level + trend, level + 2 * trend], rtol=1e-9)


def test_the_noises_are_learned_from_the_data() -> None:
    """In pure noise it averages; on a ramp it keeps up."""
    for values, truth, most in (
        (DICE.normal(100, 10, 300), 100.0, 5.0),
        (np.arange(300.0) + DICE.normal(0, 1, 300), 300.0, 2.0),
    ):
        state = Kalman().init()
        for value in values:
            state = Kalman().observe(state, float(value))
        forecast = Kalman().forecast(state)
        assert forecast is not None
        assert abs(forecast.mean[0] - truth) < most


def test_it_says_nothing_before_its_first_points() -> None:
    state = Kalman(min_points=3).init()
    for _ in range(2):
        state = Kalman(min_points=3).observe(state, 5.0)
        assert Kalman(min_points=3).forecast(state) is None
    assert Kalman(min_points=3).forecast(Kalman(min_points=3).observe(state, 5.0)) is not None


def test_a_steep_fall_is_not_drawn_on_below_zero() -> None:
    state = Kalman().init()
    for value in range(200, 0, -10):
        state = Kalman().observe(state, float(value))
    forecast = Kalman().forecast(state, 10)
    assert forecast is not None
    assert forecast.mean.min() == 0
