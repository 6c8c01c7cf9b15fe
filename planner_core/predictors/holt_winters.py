# pyright: basic
"""Exponential smoothing of level, damped trend and season (Holt 1957, Winters 1960, Gardner 1985).

statsmodels estimates the smoothing of level and trend on the seasonally adjusted values, now and then; the ticks
between apply the recursion. The season is the usual shape of a period, taken anew at each estimate.
"""

from __future__ import annotations

import warnings
from typing import Any

import attrs
import numpy as np

from planner_core.data.checks import config_number
from planner_core.predictors._guests import guest
from planner_core.predictors._history import Values, appended, find_period, is_due, median
from planner_core.predictors._spread import LONGEST, Spread
from planner_core.predictors.protocol import Forecast

FIRST = 16
"""Values before the first estimate."""
ESTIMATE_EVERY = 96
"""Values between two estimates."""
WINDOW = 256
"""Values that the smoothing is estimated on, the latest ones."""
ROUNDS = 50
"""Rounds in which the likelihood is maximised."""
USUAL = 4.0
"""Changes are cut to so many robust standard deviations before the estimate."""
PERIODS = 5
"""Periods that the season is the median of, the latest ones."""


@attrs.frozen(kw_only=True)
class HoltWintersState:
    """The values seen, the smoothing as last estimated, and what it has come to."""

    values: Values = attrs.field(factory=lambda: np.zeros(0), eq=attrs.cmp_using(eq=np.array_equal))
    """The latest values, spikes cut; at most ``memory``."""
    count: int = 0
    """Values seen in all."""
    level: float = 0.0
    trend: float = 0.0
    """Change of the level per step."""
    smoothing: tuple[float, float, float] = (0.5, 0.0, 0.9)
    """Of the level, of the trend, and the damping of the trend."""
    season: Values = attrs.field(factory=lambda: np.zeros(1), eq=attrs.cmp_using(eq=np.array_equal))
    """What each step of a period is above the level; the first stands for counts that the period divides."""
    spread: Spread = Spread()


@attrs.frozen(kw_only=True)
class HoltWinters:
    """Smooths level, damped trend and season."""

    period: int | None = attrs.field(
        default=None, validator=config_number(whole=True, least=2, optional=True)
    )
    """Steps of the season, such as 480 for a day of 180-s intervals; ``None``: found from the data."""
    memory: int = attrs.field(default=2048, validator=config_number(whole=True, least=64))
    """Values that are kept. The season is used once two periods have been seen and if it helps."""

    def __attrs_post_init__(self) -> None:
        guest("statsmodels.tsa.exponential_smoothing.ets", "HoltWinters")

    def init(self) -> HoltWintersState:
        """Nothing seen."""
        return HoltWintersState()

    def observe(self, state: HoltWintersState, value: float) -> HoltWintersState:
        """The state after ``value``, estimated anew if it is time."""
        spread, tamed = state.spread.learn(value)
        level, trend = _smoothed(state, tamed, anew=state.count == 0 or spread.jumped)
        state = attrs.evolve(
            state,
            values=appended(state.values, tamed, self.memory),
            count=state.count + 1,
            level=level,
            trend=trend,
        )
        if state.count >= FIRST and is_due(state.count, ESTIMATE_EVERY):
            state = self._estimated(state)
        return attrs.evolve(state, spread=spread.expect(_path(state, LONGEST)))

    def forecast(self, state: HoltWintersState, steps: int = 1) -> Forecast | None:
        """Level, damped trend and season; ``None`` before the first value."""
        if not state.count:
            return None
        return Forecast(mean=_path(state, steps), std=state.spread.std(steps))

    def _estimated(self, state: HoltWintersState) -> HoltWintersState:
        season = _season(state.values, self.period or find_period(state.values), state.count)
        recent = np.arange(state.count - min(WINDOW, len(state.values)), state.count)
        adjusted = state.values[-len(recent) :] - season[recent % len(season)]
        fitted = _fit(adjusted)
        if fitted is None:
            return state
        return attrs.evolve(state, season=season, level=fitted[0], trend=fitted[1], smoothing=fitted[2])


def _smoothed(state: HoltWintersState, value: float, *, anew: bool) -> tuple[float, float]:
    """Level and trend one value later."""
    alpha, beta, damping = state.smoothing
    value -= float(state.season[state.count % len(state.season)])
    if anew:
        return value, 0.0
    expected, trend = state.level + damping * state.trend, damping * state.trend
    error = value - expected
    return expected + alpha * error, trend + beta * error


def _path(state: HoltWintersState, steps: int) -> list[float]:
    """The next ``steps`` values, never negative."""
    level, trend, damping = state.level, state.trend, state.smoothing[2]
    path = []
    for step in range(steps):
        trend *= damping
        level += trend
        path.append(max(level + float(state.season[(state.count + step) % len(state.season)]), 0.0))
    return path


_NO_SEASON = np.zeros(1)


def _season(values: Values, period: int | None, count: int) -> Values:
    """The usual shape of a period, by ``count % period``; zeros where there is none or where it doesn't help."""
    if period is None or len(values) < 2 * period:
        return _NO_SEASON
    whole = values[len(values) % period :].reshape(-1, period)[-PERIODS:]
    before, last = _shape(whole[:-1]), whole[-1]
    apart = max(1, period // 24)
    if np.abs(_change(last - before, apart)).sum() > HELPS * np.abs(_change(last, apart)).sum():
        return _NO_SEASON
    return np.roll(_shape(whole), count % period)


HELPS = 0.95
"""Changes must shrink to this share when the shape of the periods before is taken out of the last one."""


def _shape(periods: Values) -> Values:
    """The median over the periods of what each step is above its period's mean, smoothed over its neighbours."""
    period = periods.shape[1]
    shape = np.quantile(periods - periods.mean(axis=1, keepdims=True), 0.5, axis=0)
    num = 2 * max(1, period // 96) + 1
    around = np.concatenate((shape[-(num // 2) :], shape, shape[: num // 2]))
    smooth: Values = np.convolve(around, np.full(num, 1 / num), mode="valid")
    return smooth


def _change(values: Values, apart: int) -> Values:
    return values[apart:] - values[:-apart]


def _fit(values: Values) -> tuple[float, float, tuple[float, float, float]] | None:
    """Level, trend and smoothing, from seasonally adjusted values; ``None`` where there is nothing to fit."""
    from statsmodels.tsa.exponential_smoothing.ets import ETSModel

    changes = np.diff(values)
    usual = USUAL * 1.4826 * median(np.abs(changes))
    changes = np.clip(changes, -usual, usual) if usual > 0 else changes
    scale = float(changes.std())
    if not scale > 1e-9 * float(np.abs(values).max()):
        return None
    walk = np.concatenate(([0.0], np.cumsum(changes / scale)))  # ends where the values do, but for the spikes
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            fit: Any = ETSModel(walk, trend="add", damped_trend=True).fit(disp=False, maxiter=ROUNDS)
        except (ValueError, np.linalg.LinAlgError):
            return None
        alpha, beta, damping = (float(value) for value in fit.params[:3])
        level = float(fit.level[-1] - walk[-1]) * scale + float(values[-1])
        trend = float(fit.slope[-1]) * scale
    if not np.isfinite([alpha, beta, damping, level, trend]).all():
        return None
    return level, trend, (alpha, beta, damping)
