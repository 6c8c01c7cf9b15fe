"""Predictors of the slow loop: what the traffic will be."""

from __future__ import annotations

from planner_core.predictors.arima import Arima, ArimaState
from planner_core.predictors.constant import Constant, ConstantState
from planner_core.predictors.ensemble import Ensemble, EnsembleState
from planner_core.predictors.holt_winters import HoltWinters, HoltWintersState
from planner_core.predictors.kalman import Kalman, KalmanState
from planner_core.predictors.lag_regression import LagRegression, LagRegressionState
from planner_core.predictors.prophet import Prophet, ProphetState
from planner_core.predictors.protocol import Forecast, Predictor
from planner_core.predictors.seasonal_naive import SeasonalNaive, SeasonalNaiveState
from planner_core.predictors.wrappers import Log1p, Log1pState, SkipIdle, SkipIdleState

BY_NAME = {
    "arima": Arima,
    "constant": Constant,
    "ensemble": Ensemble,
    "holt_winters": HoltWinters,
    "kalman": Kalman,
    "lag_regression": LagRegression,
    "prophet": Prophet,
    "seasonal_naive": SeasonalNaive,
}
"""The names that a configuration file may use."""

__all__ = [
    "BY_NAME",
    "Arima",
    "ArimaState",
    "Constant",
    "ConstantState",
    "Ensemble",
    "EnsembleState",
    "Forecast",
    "HoltWinters",
    "HoltWintersState",
    "Kalman",
    "KalmanState",
    "LagRegression",
    "LagRegressionState",
    "Log1p",
    "Log1pState",
    "Predictor",
    "Prophet",
    "ProphetState",
    "SeasonalNaive",
    "SeasonalNaiveState",
    "SkipIdle",
    "SkipIdleState",
]
