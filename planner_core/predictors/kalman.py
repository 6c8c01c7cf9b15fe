"""A Kalman filter of a level and its trend (the local linear trend model; Harvey 1989, section 2.3).

The gains of a Kalman filter don't depend on what is measured, so they are computed once and a tick only applies
them. With a state of two numbers that takes less than to load filterpy, which the tests compare it with. Only the
ratios of the noises matter to the forecast. Unless the user fixes them, filters with different ratios run side by
side, and the one that has forecast best lately speaks.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from operator import itemgetter

import attrs

from planner_core.data.checks import config_number
from planner_core.predictors._spread import LONGEST, Spread
from planner_core.predictors.protocol import Forecast

Noises = tuple[float, float, float]
"""Variances of the changes of level and trend, and of the measurement."""

TRIED: tuple[Noises, ...] = tuple(
    (level, level * trend, 1.0) for level in (0.05, 0.7, 10.0) for trend in (1e-6, 0.02, 0.2)
)
"""The noises of the filters that run side by side: from a slow level to one that jumps, with and without a trend."""
USUAL: Noises = (1.0, 0.1, 10.0)
"""``q_level``, ``q_trend`` and ``r``, where only some of them are set."""
SETTLED = 64
"""Steps after which the gains are taken to have settled."""
DIFFUSE = 1e4
"""Variance of level and trend before the first value, in measurement variances."""
SCORE_MEMORY = 100
"""Values over which a filter's score, its mean absolute error, is taken."""


@attrs.frozen(kw_only=True)
class KalmanState:
    """What the filters believe, and how they have done."""

    count: int = 0
    filters: tuple[tuple[float, float, float], ...] = ()
    """Level, trend per step, and recent mean absolute error of each."""
    spread: Spread = Spread()


@attrs.frozen(kw_only=True)
class Kalman:
    """Follows a level and its trend through noise.

    The noises are estimated unless one of them is set; the others of the three are then 1, 0.1 and 10.
    """

    q_level: float | None = attrs.field(default=None, validator=config_number(above=0, optional=True))
    """Variance of the level's change per step."""
    q_trend: float | None = attrs.field(default=None, validator=config_number(above=0, optional=True))
    """Variance of the trend's change per step."""
    r: float | None = attrs.field(default=None, validator=config_number(above=0, optional=True))
    """Variance of the measurement."""
    min_points: int = attrs.field(default=5, validator=config_number(whole=True, least=1))
    """Values before the first forecast."""

    def init(self) -> KalmanState:
        """Nothing seen."""
        return KalmanState()

    def observe(self, state: KalmanState, value: float) -> KalmanState:
        """The state after ``value``."""
        spread, value = state.spread.learn(value)
        gains = self._gains(min(state.count, SETTLED - 1))
        weight = 1.0 / min(state.count + 1, SCORE_MEMORY)
        before = state.filters or ((value, 0.0, 0.0),) * len(gains)
        filters = []
        for (level, trend, score), (of_level, of_trend) in zip(before, gains, strict=True):
            error = value - level - trend
            score += (abs(error) - score) * weight
            if spread.jumped:
                filters.append((value, 0.0, score))
            else:
                filters.append((level + trend + of_level * error, trend + of_trend * error, score))
        return KalmanState(
            count=state.count + 1, filters=tuple(filters), spread=spread.expect(_path(filters, LONGEST))
        )

    def forecast(self, state: KalmanState, steps: int = 1) -> Forecast | None:
        """The level moved on by the trend; ``None`` before ``min_points`` values."""
        if state.count < self.min_points:
            return None
        return Forecast(mean=_path(state.filters, steps), std=state.spread.std(steps))

    def _gains(self, step: int) -> tuple[tuple[float, float], ...]:
        """The gains of each filter at a step: those of level and trend."""
        given = (self.q_level, self.q_trend, self.r)
        if given == (None, None, None):
            return tuple(_gains_of(noises)[step] for noises in TRIED)
        fixed = [own if own is not None else usual for own, usual in zip(given, USUAL, strict=True)]
        return (_gains_of(tuple(fixed))[step],)


@cache
def _gains_of(noises: Noises) -> tuple[tuple[float, float], ...]:
    """By step: the gains of level and trend, until they have settled (Harvey 1989, section 3.2)."""
    q_level, q_trend, r = noises
    of_level, of_both, of_trend = DIFFUSE * r, 0.0, q_trend  # the covariance of level and trend
    gains = []
    for _ in range(SETTLED):
        of_level, of_both, of_trend = (
            of_level + 2 * of_both + of_trend + q_level,
            of_both + of_trend,
            of_trend + q_trend,
        )
        level_gain, trend_gain = of_level / (of_level + r), of_both / (of_level + r)
        gains.append((level_gain, trend_gain))
        of_level, of_both, of_trend = (
            of_level * (1 - level_gain),
            of_both * (1 - level_gain),
            of_trend - trend_gain * of_both,
        )
    return tuple(gains)


def _path(filters: Sequence[tuple[float, float, float]], steps: int) -> list[float]:
    level, trend, _ = min(filters, key=itemgetter(2))
    return [max(level + trend * step, 0.0) for step in range(1, steps + 1)]
