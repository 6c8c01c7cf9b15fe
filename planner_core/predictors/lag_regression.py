"""A linear regression on the last values, their means, and what came one day and one week ago.

Inputs and target are taken as differences to the last value, so that a ridge shrinks towards "repeat the last
value" where little is known. Fitted by Huber's M-estimator (iteratively
reweighted least squares), in which spikes weigh little. Between two fits a tick only multiplies.
"""

from __future__ import annotations

from typing import TypeAlias

import attrs
import numpy as np
import numpy.typing as npt

from planner_core.data.checks import config_number
from planner_core.predictors._history import WEEK, Values, appended, find_period, is_due, median
from planner_core.predictors._spread import JUMP, LONGEST, Spread
from planner_core.predictors.protocol import Forecast

Stretch: TypeAlias = tuple[int, int]
"""An input: the mean of the values from so many to so many steps before the target."""

MEANS = (16, 64)
"""Beside the single lags, the means over this many of the last values: the level behind the noise."""
FIRST = 16
"""Values before the first fit; until then the last value is repeated."""
REFIT_EVERY = 24
"""Values between two fits."""
FITTED = 2048
"""Rows of a fit, the latest ones."""
HALF_LIFE = 1500.0
"""Rows after which a row weighs half."""
HUBER = 1.5
"""Residuals up to so many medians of their absolute values weigh fully."""
LEVEL = True
ROUNDS = 4
"""Rounds of reweighting."""
SMALLEST_CHANGE = 1e-3
"""Inputs that vary by less than this share of the level aren't blown up to count like the others."""
RIDGE = 0.001
"""Weight of "repeat the last value" beside the data, as a share of the inputs' variance."""
RIDGE_ROWS = 8.0
"""The same as a number of rows: what counts while there are few."""


@attrs.frozen(kw_only=True)
class LagRegressionState:
    """The values seen, and the regression as it was last fitted."""

    values: Values = attrs.field(factory=lambda: np.zeros(0), eq=attrs.cmp_using(eq=np.array_equal))
    """The latest values, spikes cut; at most ``memory``."""
    count: int = 0
    """Values seen in all."""
    period: int | None = None
    """Steps of the period that was given or found."""
    inputs: tuple[Stretch, ...] = ()
    weights: tuple[float, ...] = ()
    """Of a constant, of the last value, and of what each input differs from it; empty before the first fit."""
    spread: Spread = Spread()


@attrs.frozen(kw_only=True)
class LagRegression:
    """Learns how the next value follows from the last ones, and from those of a day and a week ago."""

    period: int | None = attrs.field(
        default=None, validator=config_number(whole=True, least=2, optional=True)
    )
    """Steps of the season, such as 480 for a day of 180-s intervals; ``None``: found from the data."""
    lags: int = attrs.field(default=6, validator=config_number(whole=True, least=1, most=64))
    """How many of the last values are inputs, one by one."""
    memory: int = attrs.field(default=2048, validator=config_number(whole=True, least=64))
    """Values that are kept. The season is used once two periods have been seen, the week likewise."""

    def init(self) -> LagRegressionState:
        """Nothing seen."""
        return LagRegressionState(period=self.period)

    def observe(self, state: LagRegressionState, value: float) -> LagRegressionState:
        """The state after ``value``, fitted anew if it is time."""
        spread, tamed = state.spread.learn(value)
        before = _moved(state.values, tamed) if spread.jumped else state.values
        values, count = appended(before, tamed, self.memory), state.count + 1
        state = attrs.evolve(state, values=values, count=count)
        if count >= FIRST and is_due(count, REFIT_EVERY):
            state = self._fitted(state)
        return attrs.evolve(state, spread=spread.expect(_path(state, LONGEST)))

    def forecast(self, state: LagRegressionState, steps: int = 1) -> Forecast | None:
        """The regression, step after step on its own forecasts; ``None`` before the first value."""
        if not len(state.values):
            return None
        return Forecast(mean=_path(state, steps), std=state.spread.std(steps))

    def _fitted(self, state: LagRegressionState) -> LagRegressionState:
        values = state.values
        period = self.period or find_period(values) or state.period
        inputs = tuple((lag, lag) for lag in range(2, min(self.lags, len(values) // 4) + 1))
        for more in (
            tuple((length, 1) for length in MEANS),
            _ago(period, period) if period else (),
            _ago(WEEK * period, period) if period else (),
        ):
            if len(values) >= 2 * _reach(inputs + more):
                inputs += more
        targets = np.arange(max(_reach(inputs), len(values) - FITTED), len(values))
        before = values[targets - 1]
        weights = _huber(_rows(values, targets, inputs), values[targets] - before)
        return attrs.evolve(state, period=period, inputs=inputs, weights=weights)


def _moved(values: Values, level: float) -> Values:
    """The values with the latest ones, those behind the means, at a new level that the very last ones announced."""
    old, recent = values[: -max(MEANS)], values[-max(MEANS) : 1 - JUMP]
    around = median(recent[-min(MEANS) :])
    moved = np.maximum(recent + (level - around), 0.0)
    return np.concatenate((old, moved, np.full(JUMP - 1, level)))


def _ago(steps: int, period: int) -> tuple[Stretch, ...]:
    """The value so many steps before the target, the mean around it, and the mean just before that."""
    wide = max(1, period // 48)  # half an hour of a day
    return (steps, steps), (steps + wide, steps - wide), (steps + 2 * wide + 1, steps + 1)


def _reach(inputs: tuple[Stretch, ...]) -> int:
    """Values that must lie before a target."""
    return max((start for start, _ in inputs), default=1)


def _rows(values: Values, targets: npt.NDArray[np.int_], inputs: tuple[Stretch, ...]) -> Values:
    """A constant 1, the last value, and what the inputs differ from it, for each target, an index into ``values``.

    Of shape (targets, 2 + inputs).
    """
    sums = np.concatenate(([0.0], np.cumsum(values)))
    starts, stops = np.array(inputs, dtype=np.int_).reshape(-1, 2).T
    targets = targets[:, None]
    means = (sums[targets - stops + 1] - sums[targets - starts]) / (starts - stops + 1)
    last = values[targets - 1]
    rows = np.where(starts == stops, values[targets - starts], means) - last
    return np.hstack((np.ones_like(last), last, rows))


def _huber(rows: Values, targets: Values) -> tuple[float, ...]:
    """The weights of the inputs, the first two of which are a constant 1 and the last value."""
    num, width = rows.shape
    scale = np.sqrt(np.mean(rows**2, axis=0))
    level = float(scale[1])
    if not level > 0:
        return tuple([0.0] * int(width))
    scale[2:] = np.maximum(scale[2:], SMALLEST_CHANGE * level)
    rows = rows / scale
    newer = 0.5 ** (np.arange(num)[::-1] / HALF_LIFE)
    ridge = (RIDGE * num + RIDGE_ROWS) * np.eye(width)
    weights, residuals = np.zeros(width), targets
    for _ in range(ROUNDS):
        usual = max(HUBER * median(np.abs(residuals)), 1e-9 * level)
        trust = newer * usual / np.maximum(np.abs(residuals), usual)
        weighted = rows.T * trust
        weights = np.linalg.solve(weighted @ rows + ridge * trust.mean(), weighted @ targets)
        residuals = targets - rows @ weights
    return tuple(float(f"{weight:.6g}") for weight in weights / scale)


def _path(state: LagRegressionState, steps: int) -> Values:
    """The next ``steps`` values: never negative, and never past twice the highest that was seen."""
    inputs, weights = state.inputs, np.array(state.weights)
    reach = min(_reach(inputs), len(state.values))
    path = np.concatenate((state.values[len(state.values) - reach :], np.zeros(steps)))
    highest = 2.0 * float(state.values.max())
    for target in range(reach, reach + steps):
        last = path[target - 1]
        change = _rows(path[: target + 1], np.array([target]), inputs)[0] @ weights if state.weights else 0.0
        path[target] = min(max(last + float(change), 0.0), highest)
    return path[reach:]
