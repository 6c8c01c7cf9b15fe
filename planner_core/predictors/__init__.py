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

BY_NAME = {"constant": Constant}
"""The names that a configuration file may use."""

__all__ = ["BY_NAME", "Constant", "ConstantState", "Forecast", "Predictor"]
