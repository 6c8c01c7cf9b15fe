"""The last value, repeated: the forecast that every other one has to beat."""

from __future__ import annotations

import math

import attrs
import numpy as np

from planner_core.data.checks import config_number
from planner_core.predictors.protocol import Forecast


@attrs.frozen(kw_only=True)
class ConstantState:
    """The last value, and the mean squared change from one value to the next."""

    last: float | None = None
    mean_squared_change: float = 0.0
    num_changes: int = 0
    """How many changes the mean rests on, up to the predictor's memory."""


@attrs.frozen(kw_only=True)
class Constant:
    """Repeats the last value. Its spread grows with the root of the steps, as a random walk's does."""

    memory: int = attrs.field(default=32, validator=config_number(whole=True, least=1))
    """Changes that the spread remembers (the mean is exponential beyond that)."""

    def init(self) -> ConstantState:
        """Nothing seen."""
        return ConstantState()

    def observe(self, state: ConstantState, value: float) -> ConstantState:
        """The state after ``value``."""
        if state.last is None:
            return ConstantState(last=value)
        num = min(state.num_changes + 1, self.memory)
        squared = (value - state.last) ** 2
        mean = state.mean_squared_change + (squared - state.mean_squared_change) / num
        return ConstantState(last=value, mean_squared_change=mean, num_changes=num)

    def forecast(self, state: ConstantState, steps: int = 1) -> Forecast | None:
        """The last value for each step; ``None`` before the first."""
        if state.last is None:
            return None
        std = math.sqrt(state.mean_squared_change) * np.sqrt(np.arange(1, steps + 1))
        return Forecast(mean=np.full(steps, state.last), std=std)
