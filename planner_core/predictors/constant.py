"""The last value, repeated: the forecast that every other one has to beat."""

from __future__ import annotations

import attrs
import numpy as np

from planner_core.data.checks import config_number
from planner_core.predictors._spread import LONGEST, Spread
from planner_core.predictors.protocol import Forecast


@attrs.frozen(kw_only=True)
class ConstantState:
    """The last value, and how wrong it has been for those after it."""

    last: float | None = None
    spread: Spread = Spread()


@attrs.frozen(kw_only=True)
class Constant:
    """Repeats the last value."""

    memory: int = attrs.field(default=32, validator=config_number(whole=True, least=1))
    """Errors that the spread remembers, per horizon."""

    def init(self) -> ConstantState:
        """Nothing seen."""
        return ConstantState()

    def observe(self, state: ConstantState, value: float) -> ConstantState:
        """The state after ``value``."""
        spread, _ = state.spread.learn(value, self.memory)
        return ConstantState(last=value, spread=spread.expect((value,) * LONGEST))

    def forecast(self, state: ConstantState, steps: int = 1) -> Forecast | None:
        """The last value for each step; ``None`` before the first."""
        if state.last is None:
            return None
        return Forecast(mean=np.full(steps, state.last), std=state.spread.std(steps))
