"""What holds of every predictor, by name: the protocol, and sense on series that have none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from planner_core import MissingExtraError, codec
from planner_core.predictors import BY_NAME, Constant, Kalman, LagRegression, Log1p, SkipIdle
from planner_core.testing import check_predictor

DICE = np.random.default_rng(3)
DEGENERATE = {
    "constant": [5.0] * 60,
    "zeros": [0.0] * 60,
    "one point": [7.0],
    "three points": [7.0, 9.0, 8.0],
    "a spike": [5.0] * 40 + [1e6] + [5.0] * 20,
    "falling to zero": [*np.linspace(50, 0, 30), *[0.0] * 30],
    "alternating": [1.0, 9.0] * 30,
    "noise": DICE.poisson(20, 60).astype(float).tolist(),
}
FAST = [name for name in BY_NAME if name != "prophet"]


PERIOD = {"seasonal_naive": {"period": 4}}
"""What a series without a season can't tell."""
BRIEF: dict[str, dict[str, Any]] = {
    "arima": {"window": 128},
    "constant": {},
    "ensemble": {"members": (Constant(), Kalman(), LagRegression(memory=256))},
    "holt_winters": {"memory": 256},
    "kalman": {},
    "lag_regression": {"memory": 256},
    "seasonal_naive": {"memory": 256},
}
"""Options with which the memory is full within a day."""


def built(name: str, **options: Any) -> Any:
    """The predictor; skips where the package that it needs isn't installed."""
    try:
        return BY_NAME[name](**options)
    except MissingExtraError as missing:
        # A slim installation leaves the guests out on purpose; that they are named is tested elsewhere.
        pytest.skip(str(missing))


def after(predictor: Any, values: list[float]) -> Any:
    state = predictor.init()
    for value in values:
        state = predictor.observe(state, value)
    return state


@pytest.mark.parametrize("wrap", [Log1p, SkipIdle])
def test_a_wrapped_predictor_keeps_the_protocol(wrap: Any) -> None:
    check_predictor(wrap(BY_NAME["constant"]()))


@pytest.mark.parametrize("series", DEGENERATE)
@pytest.mark.parametrize("name", FAST)
def test_forecasts_of_degenerate_series_are_sensible(name: str, series: str) -> None:
    values = DEGENERATE[series]
    predictor = built(name, **PERIOD.get(name, {}))
    forecast = predictor.forecast(after(predictor, values), 3)
    if forecast is None:
        assert len(values) < 20
        return
    assert np.isfinite(forecast.mean).all()
    assert np.isfinite(forecast.std).all()
    assert (forecast.mean >= 0).all()
    assert forecast.mean.max() <= 2 * max(values[-30:]) + 1


@pytest.mark.parametrize("name", FAST)
def test_a_load_that_went_away_is_forgotten(name: str) -> None:
    predictor = built(name, **PERIOD.get(name, {}))
    forecast = predictor.forecast(after(predictor, [100.0] * 40 + [0.0] * 40))
    assert forecast is not None
    assert forecast.mean[0] < 5


def bytes_written(predictor: Any, days: int, seen_every: int) -> list[int]:
    """Length of the state as JSON, day by day of 480 values, one every 180 s."""
    per_day = 480
    hours = np.arange(days * per_day) * 24 / per_day
    values = DICE.poisson(40 + 30 * np.sin(hours * 2 * np.pi / 24)).astype(float).tolist()
    state, sizes = predictor.init(), [0] * days
    for number, value in enumerate(values):
        state = predictor.observe(state, value)
        if number % seen_every == 0:
            sizes[number // per_day] = max(sizes[number // per_day], len(codec.dumps(state)))
    return sizes


@pytest.mark.parametrize(("name", "options"), BRIEF.items())
def test_what_is_remembered_does_not_grow_once_the_memory_is_full(name: str, options: Any) -> None:
    _, second, third = bytes_written(built(name, **options), days=3, seen_every=8)
    assert third <= 1.05 * second


@pytest.mark.nightly
@pytest.mark.parametrize("name", BY_NAME)
def test_a_year_is_remembered_in_no_more_than_its_second_week(name: str) -> None:
    days = 365 if name != "prophet" else 21  # which fits every eighth value anew, for a tenth of a second
    sizes = bytes_written(built(name), days, seen_every=40)
    assert max(sizes[14:]) <= 1.05 * max(sizes[7:14])


def test_prophet_gives_the_same_forecast_for_the_same_values_and_says_nothing(
    capfd: pytest.CaptureFixture[str],
) -> None:
    predictor = built("prophet")
    values = (10 + 5 * np.sin(np.arange(30) / 3)).tolist()
    first, second = (predictor.forecast(after(predictor, values), 2) for _ in range(2))
    assert first == second
    assert (first.mean >= 0).all()
    assert capfd.readouterr() == ("", "")
