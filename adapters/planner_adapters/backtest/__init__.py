"""Which predictor would have forecast a series best? Rolling-origin evaluation, and the series for it."""

from __future__ import annotations

from planner_adapters.backtest.evaluation import BacktestRow, Forecasts, backtest, compare, roll
from planner_adapters.backtest.reading import load_series
from planner_adapters.backtest.series import Series, SeriesError, count_arrivals, resample

__all__ = [
    "BacktestRow",
    "Forecasts",
    "Series",
    "SeriesError",
    "backtest",
    "compare",
    "count_arrivals",
    "load_series",
    "resample",
    "roll",
]
