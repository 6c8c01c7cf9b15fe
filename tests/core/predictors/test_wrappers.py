from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from planner_core import ConfigError
from planner_core.predictors import BY_NAME, Constant, Kalman, Log1p, SkipIdle


def forecast_after(predictor: Any, values: list[float], steps: int = 2) -> Any:
    state = predictor.init()
    for value in values:
        state = predictor.observe(state, value)
    return predictor.forecast(state, steps)


def test_on_logarithms_growth_by_a_factor_is_a_trend() -> None:
    forecast = forecast_after(Log1p(Kalman()), [100 * 1.1**n for n in range(40)])
    assert forecast.mean.tolist() == pytest.approx([100 * 1.1**40, 100 * 1.1**41], rel=0.02)


def test_on_logarithms_the_interval_is_as_wide_as_that_of_the_logarithms() -> None:
    values = (100 * np.exp(np.random.default_rng(0).normal(0, 0.3, 200))).tolist()
    forecast, logs = (
        forecast_after(Log1p(Constant()), values),
        forecast_after(Constant(), np.log1p(values).tolist()),
    )
    low, high = (np.expm1(logs.mean + z * logs.std) for z in (-1.645, 1.645))
    np.testing.assert_allclose(2 * 1.645 * forecast.std, high - low, rtol=1e-3)


def test_a_pause_is_no_trend() -> None:
    assert forecast_after(SkipIdle(Constant()), [100.0, 100.0, 0.0, 0.0]).mean.tolist() == [100, 100]


@pytest.mark.parametrize("name", ["constant", "kalman", "lag_regression", "ensemble"])
def test_zeros_after_a_warm_start_end_yesterdays_load(name: str) -> None:
    yesterday = [100.0 + n % 7 for n in range(60)]
    assert forecast_after(SkipIdle(BY_NAME[name]()), [*yesterday, *[0.0] * 4]).mean.max() == 0
    assert forecast_after(BY_NAME[name](), [*yesterday, *[0.0] * 4]).mean[0] < 10


def test_load_that_comes_again_is_what_it_was() -> None:
    forecast = forecast_after(SkipIdle(Kalman()), [*[100.0] * 30, *[0.0] * 50, 100.0])
    assert forecast.mean.tolist() == [100, 100]


def test_before_any_load_it_is_silent() -> None:
    assert forecast_after(SkipIdle(Kalman()), []) is None
    assert forecast_after(SkipIdle(Kalman()), [0.0]).mean.tolist() == [0, 0]


@pytest.mark.parametrize("wrapper", [Log1p, SkipIdle])
def test_a_name_is_no_predictor(wrapper: Any) -> None:
    with pytest.raises(ConfigError, match=rf"{wrapper.__name__}\.predictor = 'kalman'"):
        wrapper("kalman")
