"""Predictors of the slow loop: what the traffic will be.

Each, and all by their names, are loaded when they are first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from planner_core.data.later import loader
from planner_core.predictors.protocol import Forecast, Predictor

if TYPE_CHECKING:
    from planner_core.predictors.arima import Arima, ArimaState
    from planner_core.predictors.constant import Constant, ConstantState
    from planner_core.predictors.ensemble import Ensemble, EnsembleState
    from planner_core.predictors.holt_winters import HoltWinters, HoltWintersState
    from planner_core.predictors.kalman import Kalman, KalmanState
    from planner_core.predictors.lag_regression import LagRegression, LagRegressionState
    from planner_core.predictors.names import BY_NAME
    from planner_core.predictors.prophet import Prophet, ProphetState
    from planner_core.predictors.seasonal_naive import SeasonalNaive, SeasonalNaiveState
    from planner_core.predictors.wrappers import Log1p, Log1pState, SkipIdle, SkipIdleState

_LATER = {
    "BY_NAME": "names",
    **dict.fromkeys(("Arima", "ArimaState"), "arima"),
    **dict.fromkeys(("Constant", "ConstantState"), "constant"),
    **dict.fromkeys(("Ensemble", "EnsembleState"), "ensemble"),
    **dict.fromkeys(("HoltWinters", "HoltWintersState"), "holt_winters"),
    **dict.fromkeys(("Kalman", "KalmanState"), "kalman"),
    **dict.fromkeys(("LagRegression", "LagRegressionState"), "lag_regression"),
    **dict.fromkeys(("Prophet", "ProphetState"), "prophet"),
    **dict.fromkeys(("SeasonalNaive", "SeasonalNaiveState"), "seasonal_naive"),
    **dict.fromkeys(("Log1p", "Log1pState", "SkipIdle", "SkipIdleState"), "wrappers"),
}
"""The modules of names that are loaded when they are asked for."""

__getattr__ = loader(__name__, _LATER)

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
