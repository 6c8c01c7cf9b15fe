from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner_core import ConfigError
from planner_core.predictors import Constant, ConstantState

values = st.lists(st.floats(0, 1e9, allow_subnormal=False), min_size=1, max_size=60)


def after(predictor: Constant, series: list[float]) -> ConstantState:
    state = predictor.init()
    for value in series:
        state = predictor.observe(state, value)
    return state


def test_it_has_no_forecast_before_the_first_value() -> None:
    assert Constant().forecast(Constant().init()) is None


@given(values, st.integers(1, 20))
def test_it_repeats_the_last_value(series: list[float], steps: int) -> None:
    forecast = Constant().forecast(after(Constant(), series), steps)
    assert forecast is not None
    assert forecast.mean.tolist() == [series[-1]] * steps


def test_its_spread_grows_with_the_steps_as_a_random_walk_does() -> None:
    walk = 1000 + np.random.default_rng(0).normal(0, 1, 4000).cumsum()
    forecast = Constant(memory=2000).forecast(after(Constant(memory=2000), walk.tolist()), 16)
    assert forecast is not None
    np.testing.assert_allclose(forecast.std, np.sqrt(np.arange(1, 17)), rtol=0.15)


def test_a_spike_is_forgotten() -> None:
    forecast = Constant(memory=8).forecast(after(Constant(memory=8), [5.0, 1e9, *[5.0] * 20]), 3)
    assert forecast is not None
    assert forecast.std.max() == 0


def test_a_memory_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"Constant\.memory = 0"):
        Constant(memory=0)
