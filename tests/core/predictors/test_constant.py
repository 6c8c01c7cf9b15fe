from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner_core import ConfigError
from planner_core.predictors import Constant, ConstantState
from planner_core.testing import check_predictor

values = st.lists(st.floats(0, 1e9, allow_subnormal=False), min_size=1, max_size=60)


def after(predictor: Constant, series: list[float]) -> ConstantState:
    state = predictor.init()
    for value in series:
        state = predictor.observe(state, value)
    return state


@pytest.mark.parametrize("memory", [1, 32])
def test_it_is_a_predictor(memory: int) -> None:
    check_predictor(Constant(memory=memory))


def test_it_has_no_forecast_before_the_first_value() -> None:
    assert Constant().forecast(Constant().init()) is None


@given(values, st.integers(1, 20))
def test_it_repeats_the_last_value(series: list[float], steps: int) -> None:
    forecast = Constant().forecast(after(Constant(), series), steps)
    assert forecast is not None
    assert forecast.mean.tolist() == [series[-1]] * steps


@given(st.floats(0, 1e9), st.integers(2, 40))
def test_a_series_that_never_changed_has_no_spread(value: float, count: int) -> None:
    forecast = Constant().forecast(after(Constant(), [value] * count), 3)
    assert forecast is not None
    assert forecast.std.tolist() == [0.0] * 3


def test_a_spike_is_forgotten() -> None:
    state = after(Constant(memory=8), [5.0, 1e9, *[5.0] * 400])
    forecast = Constant().forecast(state)
    assert forecast is not None
    assert forecast.std[0] < 1.0


def test_a_memory_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"Constant\.memory = 0"):
        Constant(memory=0)
