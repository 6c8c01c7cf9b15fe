"""Rolling-origin evaluation: step by step, each predictor forecasts what it hasn't seen, and then sees it.

A value of NaN is not known. No predictor observes it, and nothing is scored against it. As in the planner, the
predictor's own forecast stands in for it, so that a season keeps its phase; a long outage isn't filled in.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

from planner_core.data.errors import ConfigError
from planner_core.predictors import Predictor
from planner_core.stages.forecast import MOST_MISSED

Floats = npt.NDArray[np.float64]

Z = {0.5: 0.0, 0.9: 1.2815515655446004, 0.95: 1.6448536269514722}
"""Standard deviations from the mean to a quantile of a normal distribution."""
FAIR_SHARE = 0.9
"""A predictor that was scored on less than this share of the steps of another doesn't rank before it."""


@attrs.frozen(kw_only=True)
class BacktestRow:
    """How one predictor did at one horizon. ``None``: nothing could be scored, or the scale is zero."""

    predictor: str
    mae: float | None
    """Mean absolute error."""
    rmse: float | None
    """Root of the mean squared error."""
    mase: float | None
    """MAE over that of "repeat the last value", one step ahead, in the warm-up (Hyndman and Koehler 2006)."""
    pinball_90: float | None
    """Mean pinball loss of the 0.9 quantile, max(mean + 1.282 std, 0) (Koenker and Bassett 1978)."""
    coverage_90: float | None
    """Share of values in the central 90 % interval, mean ± 1.645 std, cut off at 0."""
    ms_per_tick: float
    """Mean time of one observe and one forecast."""
    horizon: int
    """Steps between the last value seen and the one forecast."""
    pinball_50: float | None
    """Of the median, which is the mean: half the MAE."""
    pinball_95: float | None
    mae_ratio: float | None
    """MAE over that of "repeat the last value" on the same steps: below 1, the predictor earns its place."""
    num_scored: int
    """Steps scored: known, after the warm-up, and forecast. A predictor that is ready late has fewer."""
    ms_per_tick_median: float
    ms_per_tick_max: float


@attrs.frozen(kw_only=True, eq=False)
class Forecasts:
    """What a predictor said of each step of a series before it came, by horizon; NaN while not ready.

    ``mean`` and ``std`` have the shape (horizons, steps): ``mean[0, 7]`` is the forecast of step 7 that was made
    ``horizons[0]`` steps earlier. ``tick_ms`` has one time for every known value.
    """

    horizons: tuple[int, ...]
    mean: Floats
    std: Floats
    tick_ms: Floats

    def quantile(self, q: float) -> Floats:
        """The forecast of the quantile 0.5, 0.9 or 0.95, never below 0."""
        return np.maximum(self.mean + Z[q] * self.std, 0.0)

    def interval_90(self) -> tuple[Floats, Floats]:
        """The central interval that should hold nine values in ten."""
        half = Z[0.95] * self.std
        return np.maximum(self.mean - half, 0.0), self.mean + half


def backtest(
    values: npt.ArrayLike,
    predictors: Mapping[str, Predictor[Any]],
    *,
    horizons: Sequence[int] = (1,),
    warmup: float = 0.2,
) -> tuple[BacktestRow, ...]:
    """A row for each predictor and horizon, the smallest MAE of each horizon first, those hardly scored last.

    ``values`` are non-negative, one per step, NaN where not known; the first ``warmup`` of them teach and
    aren't scored. :class:`~planner_core.ConfigError` if an argument can't be meant.
    """
    values = as_values(values)
    return compare(
        values, {name: roll(p, values, horizons=horizons) for name, p in predictors.items()}, warmup=warmup
    )


def as_values(values: npt.ArrayLike) -> Floats:
    """The values as an array; :class:`~planner_core.ConfigError` if they are no series."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or np.isinf(array).any() or (array < 0).any():
        raise ConfigError("values: must be a row of finite numbers of at least 0, or NaN where not known")
    return array


def roll(
    predictor: Predictor[Any],
    values: npt.ArrayLike,
    *,
    horizons: Sequence[int] = (1,),
    on_step: Callable[[int], None] = lambda step: None,
) -> Forecasts:
    """The forecasts of one predictor over the series. Each is made from the values before its origin alone."""
    values, horizons = as_values(values), _horizons(horizons)
    steps, count = max(horizons), len(values)
    mean, std = np.full((2, len(horizons), count), np.nan)
    state, expected, missed, tick_ms = predictor.init(), None, 0, []
    for step, value in enumerate(values.tolist()):
        known = value == value
        missed = 0 if known else missed + 1
        began = time.perf_counter()
        if known:
            state = predictor.observe(state, value)
        elif expected is not None and missed <= MOST_MISSED:
            state = predictor.observe(state, float(expected.mean[0]))
        expected = predictor.forecast(state, steps)
        if known:
            tick_ms.append((time.perf_counter() - began) * 1e3)
        if expected is not None:
            for row, ahead in enumerate(horizons):
                if step + ahead < count:
                    mean[row, step + ahead] = expected.mean[ahead - 1]
                    std[row, step + ahead] = expected.std[ahead - 1]
        on_step(step)
    return Forecasts(horizons=horizons, mean=mean, std=std, tick_ms=np.array(tick_ms))


def compare(
    values: npt.ArrayLike, forecasts: Mapping[str, Forecasts], *, warmup: float = 0.2
) -> tuple[BacktestRow, ...]:
    """The rows of :func:`backtest`, from forecasts that have been made."""
    values = as_values(values)
    first = int(check_warmup(warmup) * len(values))
    scale = _mean(np.abs(np.diff(values[:first])))
    rows = [
        _row(name, made, place, values, first, scale)
        for name, made in forecasts.items()
        for place in range(len(made.horizons))
    ]
    most = {
        row.horizon: max(other.num_scored for other in rows if other.horizon == row.horizon) for row in rows
    }
    rows.sort(key=lambda row: (row.horizon, row.num_scored < FAIR_SHARE * most[row.horizon], row.mae or 0.0))
    return tuple(rows)


def _row(
    name: str, made: Forecasts, place: int, values: Floats, first: int, scale: float | None
) -> BacktestRow:
    horizon, mean = made.horizons[place], made.mean[place]
    scored = ~np.isnan(values) & ~np.isnan(mean) & (np.arange(len(values)) >= first)
    truth, last = values[scored], _repeated(values, horizon)[scored]
    error = truth - mean[scored]
    low, high = (bound[place][scored] for bound in made.interval_90())
    mae, squared = _mean(np.abs(error)), _mean(error**2)
    pinball = {q: _mean(pinball_loss(truth, made.quantile(q)[place][scored], q)) for q in Z}
    times = made.tick_ms if len(made.tick_ms) else np.zeros(1)
    return BacktestRow(
        predictor=name,
        mae=mae,
        rmse=None if squared is None else squared**0.5,
        mase=_ratio(mae, scale),
        pinball_90=pinball[0.9],
        coverage_90=_mean(((low <= truth) & (truth <= high)).astype(np.float64)),
        ms_per_tick=float(times.mean()),
        horizon=horizon,
        pinball_50=pinball[0.5],
        pinball_95=pinball[0.95],
        mae_ratio=_ratio(mae, _mean(np.abs(truth - last))),
        num_scored=len(truth),
        ms_per_tick_median=float(np.median(times)),
        ms_per_tick_max=float(times.max()),
    )


def pinball_loss(truth: Floats, forecast: Floats, q: float) -> Floats:
    """Of each step: ``q`` per unit that the truth is above the forecast quantile, 1 − ``q`` per unit below."""
    error = truth - forecast
    return np.maximum(q * error, (q - 1) * error)


def _repeated(values: Floats, horizon: int) -> Floats:
    """For each step the last value that was known ``horizon`` steps earlier."""
    known = np.where(np.isnan(values), -1, np.arange(len(values)))
    latest = np.maximum.accumulate(known)
    filled = np.where(latest >= 0, values[latest], np.nan)
    return np.concatenate(
        (np.full(min(horizon, len(values)), np.nan), filled[: max(0, len(values) - horizon)])
    )


def _mean(values: Floats) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None


def _ratio(value: float | None, scale: float | None) -> float | None:
    return value / scale if value is not None and scale else None


def _horizons(horizons: Sequence[int]) -> tuple[int, ...]:
    if (
        not horizons
        or any(type(h) is not int or h < 1 for h in horizons)
        or len(set(horizons)) < len(horizons)
    ):
        raise ConfigError(f"horizons = {tuple(horizons)!r}: must be different whole numbers of at least 1")
    return tuple(horizons)


def check_warmup(warmup: float) -> float:
    """The share itself; :class:`~planner_core.ConfigError` if it is none."""
    if not 0 <= warmup < 1:
        raise ConfigError(f"warmup = {warmup!r}: must be a share of the series, at least 0 and below 1")
    return warmup
