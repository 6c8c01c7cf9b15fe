"""The names that a configuration file may use for predictors."""

from __future__ import annotations

from planner_core.predictors.arima import Arima
from planner_core.predictors.constant import Constant
from planner_core.predictors.ensemble import Ensemble
from planner_core.predictors.holt_winters import HoltWinters
from planner_core.predictors.kalman import Kalman
from planner_core.predictors.lag_regression import LagRegression
from planner_core.predictors.prophet import Prophet
from planner_core.predictors.seasonal_naive import SeasonalNaive

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
"""The predictors that text can name; the others are passed as objects."""
