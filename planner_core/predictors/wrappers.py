"""Predictors around a predictor: on logarithms, and without pauses."""

from __future__ import annotations

import math
from typing import Any

import attrs
import numpy as np

from planner_core.data.checks import config_number, object_with
from planner_core.predictors._spread import Z
from planner_core.predictors.protocol import Forecast, Predictor

HIGHEST_LOG = 690.0
"""A forecast of log(1 + x) is cut here: beyond, x is more than a float holds."""

_A_PREDICTOR = object_with("init", "observe", "forecast")


@attrs.frozen(kw_only=True)
class Log1pState:
    """What the predictor of the logarithms knows."""

    inner: Any


@attrs.frozen
class Log1p:
    """Forecasts log(1 + x) with a predictor, so that changes count by their ratio."""

    predictor: Predictor[Any] = attrs.field(validator=_A_PREDICTOR)

    def init(self) -> Log1pState:
        """Nothing seen."""
        return Log1pState(inner=self.predictor.init())

    def observe(self, state: Log1pState, value: float) -> Log1pState:
        """The state after ``value``."""
        return Log1pState(inner=self.predictor.observe(state.inner, math.log1p(value)))

    def forecast(self, state: Log1pState, steps: int = 1) -> Forecast | None:
        """The predictor's median, and the spread whose 90 % interval is as wide as its own."""
        logs = self.predictor.forecast(state.inner, steps)
        if logs is None:
            return None
        low, middle, high = (
            np.expm1(np.clip(logs.mean + z * logs.std, 0.0, HIGHEST_LOG)) for z in (-Z, 0.0, Z)
        )
        return Forecast(mean=middle, std=(high - low) / (2 * Z))


@attrs.frozen(kw_only=True)
class SkipIdleState:
    """What the predictor knows, and how long nothing has come."""

    inner: Any
    num_idle: int = 0
    """Zeros since the last value that wasn't one, up to one more than the patience."""
    has_been_busy: bool = False
    """Whether any value was above zero."""


@attrs.frozen
class SkipIdle:
    """Keeps pauses from a predictor, so that it learns the load that there is when there is any.

    A pause of up to ``patience`` values leaves the forecast as it is. With one more, the load is taken to have
    ended, and the forecast is zero, whatever was learned before, until something comes again.
    """

    predictor: Predictor[Any] = attrs.field(validator=_A_PREDICTOR)
    patience: int = attrs.field(default=3, kw_only=True, validator=config_number(whole=True, least=0))
    """Zeros in a row that are still a pause."""

    def init(self) -> SkipIdleState:
        """Nothing seen."""
        return SkipIdleState(inner=self.predictor.init())

    def observe(self, state: SkipIdleState, value: float) -> SkipIdleState:
        """The state after ``value``."""
        if value > 0:
            return SkipIdleState(inner=self.predictor.observe(state.inner, value), has_been_busy=True)
        return attrs.evolve(state, num_idle=min(state.num_idle + 1, self.patience + 1))

    def forecast(self, state: SkipIdleState, steps: int = 1) -> Forecast | None:
        """The predictor's forecast, or zero where the load has ended or never begun."""
        if state.num_idle > self.patience or (state.num_idle and not state.has_been_busy):
            return Forecast(mean=np.zeros(steps), std=np.zeros(steps))
        return self.predictor.forecast(state.inner, steps)
