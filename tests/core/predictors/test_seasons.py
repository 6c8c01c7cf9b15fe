"""Daily and weekly shapes: found in the data, used once two have been seen, never trusted blindly."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from planner_core.predictors import Constant, Ensemble, HoltWinters, LagRegression, SeasonalNaive

DICE = np.random.default_rng(2)
DAY = 48


def days(num: int, noise: float = 3.0) -> list[float]:
    hours = np.arange(num * DAY) / DAY
    shape = 100 + 60 * np.sin(2 * np.pi * hours) + 25 * np.sin(4 * np.pi * hours)
    return np.maximum(shape + DICE.normal(0, noise, len(hours)), 0).tolist()


def error(predictor: Any, values: list[float], skip: int, ahead: int = 1) -> float:
    """Mean absolute error of the forecasts made after ``skip`` values or more; unready ones don't count."""
    state, errors = predictor.init(), []
    for number, value in enumerate(values[:-ahead], start=1):
        state = predictor.observe(state, value)
        forecast = predictor.forecast(state, ahead) if number >= skip else None
        if forecast is not None:
            errors.append(abs(values[number + ahead - 1] - forecast.mean[-1]))
    return float(np.mean(errors))


def state_after(predictor: Any, values: list[float]) -> Any:
    state = predictor.init()
    for value in values:
        state = predictor.observe(state, value)
    return state


@pytest.mark.parametrize("predictor", [LagRegression(), SeasonalNaive()], ids=lambda p: type(p).__name__)
def test_a_day_is_found_within_three(predictor: Any) -> None:
    assert state_after(predictor, days(3)).period == pytest.approx(DAY, abs=1)


@pytest.mark.parametrize("predictor", [LagRegression(), SeasonalNaive()], ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("noise", [DICE.normal(100, 10, 600), DICE.normal(0, 1, 600).cumsum() + 100])
def test_no_season_is_seen_where_there_is_none(predictor: Any, noise: Any) -> None:
    assert state_after(predictor, noise.tolist()).period is None


@pytest.mark.parametrize(
    "predictor",
    [LagRegression(), LagRegression(period=DAY), HoltWinters(period=DAY), SeasonalNaive(period=DAY)],
    ids=["LagRegression, found", "LagRegression", "HoltWinters", "SeasonalNaive"],
)
def test_the_season_makes_forecasts_better(predictor: Any) -> None:
    values = days(8)
    assert error(predictor, values, 4 * DAY, ahead=3) < 0.6 * error(Constant(), values, 4 * DAY, ahead=3)


def test_a_week_is_used_once_two_have_been_seen() -> None:
    weekend = np.tile(np.repeat([1.0, 0.3], [5 * 24, 2 * 24]), 5)
    values = (weekend * (100 + 40 * np.sin(np.arange(len(weekend)) / 24 * 2 * np.pi))).tolist()
    skip = 3 * 7 * 24
    assert error(LagRegression(period=24), values, skip) < 0.4 * error(Constant(), values, skip)


def test_a_season_that_ended_does_no_harm() -> None:
    values = [*days(6), *DICE.normal(100, 3, 4 * DAY)]
    for predictor in (LagRegression(), HoltWinters(period=DAY), Ensemble()):
        assert error(predictor, values, 8 * DAY) < 1.2 * error(Constant(), values, 8 * DAY)


def test_a_seasonal_member_joins_the_ensemble_once_it_knows_its_period() -> None:
    ensemble = Ensemble(members=(Constant(), SeasonalNaive()))
    values = days(6)
    weights = [ensemble.weights(state_after(ensemble, values[:number])) for number in (40, len(values))]
    assert weights[0][0].tolist() == [1.0, 0.0]
    shares = weights[1] / weights[1].sum(axis=1, keepdims=True)
    assert (shares[1:, 1] > 0.9).all()
