"""What holds of every predictor, by name: the protocol, and sense on series that have none."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

from planner_core import MissingExtraError
from planner_core.predictors import BY_NAME, Log1p, SeasonalNaive, SkipIdle
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


def built(name: str) -> Any:
    """The predictor; skips where the package that it needs isn't installed."""
    try:
        return SeasonalNaive(period=4) if name == "seasonal_naive" else BY_NAME[name]()
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
    predictor = built(name)
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
    predictor = built(name)
    forecast = predictor.forecast(after(predictor, [100.0] * 40 + [0.0] * 40))
    assert forecast is not None
    assert forecast.mean[0] < 5


@pytest.mark.parametrize("name", FAST)
def test_what_is_remembered_does_not_grow_for_ever(name: str) -> None:
    predictor = built(name)
    values = DICE.poisson(20, 1100).astype(float).tolist()
    state, sizes = predictor.init(), []
    for number, value in enumerate(values, start=1):
        state = predictor.observe(state, value)
        if number in (900, 1100):
            sizes.append(len(pickle.dumps(state)))
    assert sizes[1] <= 1.1 * sizes[0] or sizes[1] < 200_000


def test_prophet_gives_the_same_forecast_for_the_same_values_and_says_nothing(
    capfd: pytest.CaptureFixture[str],
) -> None:
    predictor = built("prophet")
    values = (10 + 5 * np.sin(np.arange(30) / 3)).tolist()
    first, second = (predictor.forecast(after(predictor, values), 2) for _ in range(2))
    assert first == second
    assert (first.mean >= 0).all()
    assert capfd.readouterr() == ("", "")
