"""What came a period ago, moved to where the series stands now."""

from __future__ import annotations

import attrs
import numpy as np

from planner_core.data.checks import config_number
from planner_core.predictors._history import Values, appended, find_period, is_due
from planner_core.predictors._spread import LONGEST, Spread
from planner_core.predictors.protocol import Forecast

LOOK_EVERY = 48
"""Values between two searches for a period."""
MEMORY = 100.0
"""Values over which it is learned how much of a difference to the last period stays."""


@attrs.frozen(kw_only=True)
class SeasonalNaiveState:
    """The values seen, and how long a difference to the last period lasts."""

    values: Values = attrs.field(factory=lambda: np.zeros(0), eq=attrs.cmp_using(eq=np.array_equal))
    """The latest values, spikes cut: a period of them and a few more where it was given, else at most ``memory``."""
    count: int = 0
    """Values seen in all."""
    period: int | None = None
    above: float = 0.0
    """What the last value was above the one a period before it."""
    persistence: tuple[float, float] = (0.0, 0.0)
    """Recent sums: of such a difference times the one before, and of the latter's square."""
    spread: Spread = Spread()


@attrs.frozen(kw_only=True)
class SeasonalNaive:
    """Repeats the last period, moved by what usually stays of the last value's difference to it."""

    period: int | None = attrs.field(
        default=None, validator=config_number(whole=True, least=2, optional=True)
    )
    """Steps of the season, such as 480 for a day of 180-s intervals; ``None``: found from the data."""
    memory: int = attrs.field(default=2048, validator=config_number(whole=True, least=64))
    """Values among which a period is looked for."""

    @property
    def _num_kept(self) -> int:
        return self.memory if self.period is None else self.period + _width(self.period)

    def init(self) -> SeasonalNaiveState:
        """Nothing seen."""
        return SeasonalNaiveState(period=self.period)

    def observe(self, state: SeasonalNaiveState, value: float) -> SeasonalNaiveState:
        """The state after ``value``."""
        spread, tamed = state.spread.learn(value)
        period, above, (products, squares) = state.period, state.above, state.persistence
        if period is not None and len(state.values) >= period:
            before, above = above, tamed - float(_a_period_ago(state.values, period, 1)[0])
            products += before * above - products / MEMORY
            squares += before**2 - squares / MEMORY
        values, count = appended(state.values, tamed, self._num_kept), state.count + 1
        if self.period is None and is_due(count, LOOK_EVERY):
            period = find_period(values) or period
        state = SeasonalNaiveState(
            values=values,
            count=count,
            period=period,
            above=above,
            persistence=(products, squares),
            spread=spread,
        )
        path = _path(state, LONGEST)
        return state if path is None else attrs.evolve(state, spread=spread.expect(path))

    def forecast(self, state: SeasonalNaiveState, steps: int = 1) -> Forecast | None:
        """The last period again; ``None`` until one has been seen, and found if it wasn't given."""
        path = _path(state, steps)
        return None if path is None else Forecast(mean=path, std=state.spread.std(steps))


def _path(state: SeasonalNaiveState, steps: int) -> Values | None:
    """The next ``steps`` values, never negative."""
    period, (products, squares) = state.period, state.persistence
    if period is None or len(state.values) < period:
        return None
    stays = min(max(products / squares, 0.0), 1.0) if squares > 0 else 1.0
    path = _a_period_ago(state.values, period, steps) + state.above * stays ** np.arange(1, steps + 1)
    return np.maximum(path, 0.0)


def _a_period_ago(values: Values, period: int, steps: int) -> Values:
    """What came a period before the next ``steps`` values: means over a few values around each."""
    sums = np.concatenate(([0.0], np.cumsum(values)))
    then = len(values) - period + np.arange(steps) % period
    starts = np.maximum(then - _width(period), 0)
    stops = np.minimum(then + _width(period) + 1, len(values))
    means: Values = (sums[stops] - sums[starts]) / (stops - starts)
    return means


def _width(period: int) -> int:
    """Values to either side that a mean takes in: a quarter of an hour of a day."""
    return period // 96
