from __future__ import annotations

import csv
import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from planner_core import ConfigError
from planner_core.predictors import Constant, Ensemble, Kalman


def errors(predictor: Any, values: np.ndarray[Any, Any], ahead: tuple[int, ...] = (1, 3)) -> list[float]:
    """Mean absolute errors by steps ahead, over a rolling origin after the first fifth."""
    state, found = predictor.init(), []
    for number, value in enumerate(values[: -max(ahead)]):
        state = predictor.observe(state, float(value))
        if number >= len(values) // 5:
            forecast = predictor.forecast(state, max(ahead))
            found.append([abs(values[number + step] - forecast.mean[step - 1]) for step in ahead])
    return np.mean(found, axis=0).tolist()


def test_it_leans_on_the_member_that_forecasts_best() -> None:
    dice = np.random.default_rng(0)
    noise, walk = dice.normal(100, 10, 300), 100 + dice.normal(0, 1, 300).cumsum()
    slow = Kalman(q_level=0.01, q_trend=1e-6, r=1.0)
    ensemble = Ensemble(members=(Constant(), slow))
    for values, best in ((noise, 1), (walk, 0)):
        state = ensemble.init()
        for value in values:
            state = ensemble.observe(state, float(value))
        weights = ensemble.weights(state)[0]
        assert np.argmax(weights) == best
        assert weights[best] > 0.75 * weights.sum()


def test_a_few_noisy_values_are_smoothed_before_anybody_could_be_judged() -> None:
    dice, ours, theirs = np.random.default_rng(2), 0.0, 0.0
    for _ in range(40):
        values = dice.normal(100, 30, 12).clip(0)
        one, last = errors(Ensemble(), values, ahead=(1,)), errors(Constant(), values, ahead=(1,))
        ours, theirs = ours + one[0], theirs + last[0]
    assert ours <= 0.9 * theirs


def test_one_member_alone_is_itself() -> None:
    alone, ensemble = Kalman(), Ensemble(members=[Kalman()])
    state, of_ensemble = alone.init(), ensemble.init()
    for value in np.random.default_rng(1).normal(50, 3, 60):
        state, of_ensemble = alone.observe(state, value), ensemble.observe(of_ensemble, value)
    forecast, of_it = ensemble.forecast(of_ensemble, 5), alone.forecast(state, 5)
    assert forecast is not None
    assert of_it is not None
    np.testing.assert_allclose(forecast.mean, of_it.mean)


def test_an_ensemble_of_nobody_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"Ensemble\.members = \(\): must be one predictor or more"):
        Ensemble(members=())


def test_a_name_is_no_member() -> None:
    with pytest.raises(ConfigError, match=r"Ensemble\.members = 'kalman': must be an object with init"):
        Ensemble(members=("kalman",))


@pytest.mark.parametrize(
    ("file", "per_value", "most"),
    [
        ("azure24_code_1week_10s.csv.gz", 18, 0.96),
        ("nab_nyc_taxi_30min.csv.gz", 1, 0.60),
        ("nab_twitter_amzn_5min.csv.gz", 1, 0.92),
        ("servegen_m_mid_14d_10min.csv.gz", 1, 1.00),
    ],
)
def test_it_beats_repeating_the_last_value_on_real_rates(
    shared_data: Path, file: str, per_value: int, most: float
) -> None:
    with gzip.open(shared_data / "rates" / file, "rt") as lines:
        rows = list(csv.reader(lines))[1:]
    counts = np.array([float(row[1]) for row in rows if row[1] and float(row[1]) > 0])
    values = counts[: len(counts) // per_value * per_value].reshape(-1, per_value).mean(axis=1)[:2400]
    constant = errors(Constant(), values)
    for ours, theirs in zip(errors(Ensemble(), values), constant, strict=True):
        assert ours <= most * theirs


def test_collection_gaps_full_of_zeros_cost_no_more_than_repeating_the_last_value() -> None:
    dice = np.random.default_rng(5)
    values = 1000 + 80 * dice.standard_normal(400)
    for start in range(60, 400, 60):
        values[start : start + 15] = 0.0  # a broken collector, in and out of which the level jumps at once
    errors = {}
    for predictor in (Constant(), Ensemble()):
        state, total = predictor.init(), 0.0
        for number, value in enumerate(values.tolist()):
            forecast = predictor.forecast(state)
            if forecast is not None and number >= 80:
                total += abs(value - float(forecast.mean[0]))
            state = predictor.observe(state, value)
        errors[type(predictor).__name__] = total
    assert errors["Ensemble"] <= 1.05 * errors["Constant"]
