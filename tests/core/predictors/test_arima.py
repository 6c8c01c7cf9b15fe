from __future__ import annotations

import numpy as np
import pytest

from planner_core.predictors import Arima, ArimaState, Constant

pytest.importorskip("statsmodels")
DICE = np.random.default_rng(9)


def after(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> ArimaState:
    state = Arima().init()
    for value in values:
        state = Arima().observe(state, float(value))
    return state


def autoregressive(num: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """A random walk whose changes last: 0.7 of each comes again."""
    changes = np.zeros(num)
    for number in range(1, num):
        changes[number] = 0.7 * changes[number - 1] + DICE.normal()
    return 500 + changes.cumsum()


def test_the_order_grows_with_the_evidence() -> None:
    values = autoregressive(100)
    few, many = after(values[:20]), after(values)
    assert len(few.ar) + len(few.ma) <= 1
    assert len(many.ar) + len(many.ma) >= 1
    assert many.ar != few.ar


def test_it_finds_that_changes_last() -> None:
    state = after(autoregressive(200))
    forecast = Arima().forecast(state, 6)
    assert forecast is not None
    last_change = state.changes[-1]
    assert (forecast.mean[0] - state.last) * last_change > 0


def test_noise_around_a_level_is_smoothed_away() -> None:
    values = DICE.normal(100, 10, 200)
    ours, theirs = [], []
    state = after(values[:100])
    for value in values[100:]:
        forecast = Arima().forecast(state)
        assert forecast is not None
        ours.append(abs(value - forecast.mean[0]))
        theirs.append(abs(value - state.last))
        state = Arima().observe(state, value)
    assert np.mean(ours) < 0.8 * np.mean(theirs)


@pytest.mark.parametrize("values", [[5.0] * 20, [0.0] * 20, [3.0], [3.0, 4.0, 5.0]])
def test_what_has_nothing_to_estimate_is_repeated(values: list[float]) -> None:
    forecast, constant = Arima().forecast(after(np.array(values)), 2), Constant()
    assert forecast is not None
    assert forecast.mean.tolist() == [values[-1]] * 2
    assert constant is not None
