"""How wide is a forecast? Checked through the predictors, whose spread is all of one kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from planner_core.predictors import Constant, Ensemble, Kalman, LagRegression

Z_OF_90_PERCENT = 1.645
DICE = np.random.default_rng(11)


def covered(predictor: Any, series: np.ndarray[Any, Any], ahead: int) -> float:
    """Share of the values that lay in the 90 % interval of the forecast made ``ahead`` steps before."""
    state, hits = predictor.init(), []
    for number, value in enumerate(series[:-ahead]):
        state = predictor.observe(state, float(value))
        if number >= 100:
            forecast = predictor.forecast(state, ahead)
            off = abs(series[number + ahead] - forecast.mean[-1])
            hits.append(off <= Z_OF_90_PERCENT * forecast.std[-1])
    return float(np.mean(hits))


@pytest.mark.parametrize("ahead", [1, 3])
@pytest.mark.parametrize("predictor", [Constant(), Kalman()], ids=lambda p: type(p).__name__)
@pytest.mark.parametrize(
    "series",
    [
        DICE.normal(100, 10, 1200),
        DICE.poisson(3, 1200),
        100 * np.exp(DICE.standard_t(2, 1200) / 5),
        1000 + DICE.normal(0, 3, 1200).cumsum(),
        DICE.normal(100, np.where(np.arange(1200) // 300 % 2, 3, 30)),
    ],
    ids=["noise", "counts", "heavy tails", "random walk", "calm and storm"],
)
def test_nine_values_in_ten_lie_in_the_90_percent_interval(
    series: np.ndarray[Any, Any], predictor: Any, ahead: int
) -> None:
    assert 0.85 <= covered(predictor, series, ahead) <= 0.95


@pytest.mark.parametrize("num_errors", [2, 4, 8, 16])
def test_a_young_forecast_is_as_unsure_as_its_few_errors_demand(num_errors: int) -> None:
    walks = np.random.default_rng(7).normal(0, 3, (400, num_errors + 2)).cumsum(axis=1) + 1000
    hits = []
    for *past, coming in walks.tolist():
        state = Constant().init()
        for value in past:
            state = Constant().observe(state, value)
        forecast = Constant().forecast(state)
        hits.append(abs(coming - forecast.mean[0]) <= Z_OF_90_PERCENT * forecast.std[0])
    assert 0.8 <= np.mean(hits) <= 0.95


@pytest.mark.parametrize("predictor", [Constant(), Kalman(), LagRegression()], ids=lambda p: type(p).__name__)
def test_a_young_forecast_is_no_surer_further_ahead(predictor: Any) -> None:
    state = predictor.init()
    for value in DICE.normal(100, 10, 9).tolist():
        state = predictor.observe(state, value)
        forecast = predictor.forecast(state, 12)
        assert forecast is None or (np.diff(forecast.std) >= 0).all()


@pytest.mark.parametrize("make", [Kalman, LagRegression])
def test_one_spike_moves_neither_forecast_nor_spread(make: Callable[[], Any]) -> None:
    noise = DICE.normal(100, 5, 100).tolist()
    state = make().init()
    for value in noise:
        state = make().observe(state, value)
    before = make().forecast(state, 3)
    after = make().forecast(make().observe(state, 1e6), 3)
    assert after.mean.max() < 1.5 * before.mean.max()
    assert after.std.max() < 2 * before.std.max()


@pytest.mark.parametrize("make", [Kalman, LagRegression, Ensemble])
def test_a_new_level_is_believed_after_four_values(make: Callable[[], Any]) -> None:
    state = make().init()
    for value in (*DICE.normal(100, 5, 100), *DICE.normal(300, 5, 4)):
        state = make().observe(state, float(value))
    forecast = make().forecast(state, 3)
    assert forecast.mean.tolist() == pytest.approx([300] * 3, abs=40)
