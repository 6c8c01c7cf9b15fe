"""Several predictors, each weighed by how it has done lately.

The weight of a member falls exponentially with the sum of its recent absolute errors, relative to the best one's (the
exponentially weighted average forecaster; Cesa-Bianchi and Lugosi 2006, chapter 2): a few errors tell little, many a
lot. It is counted per horizon: who sees the next step best may see the fourth one worst.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

from planner_core.data.checks import config_number, object_with
from planner_core.data.errors import ConfigError
from planner_core.predictors._spread import HORIZONS, LONGEST, SURPRISE, Spread
from planner_core.predictors.constant import Constant
from planner_core.predictors.kalman import Kalman
from planner_core.predictors.lag_regression import LagRegression
from planner_core.predictors.protocol import Forecast, Predictor

ENOUGH = 4
"""Errors of a member before it is weighed; until then it has a say only if no other has as many."""

Row = tuple[float | None, ...]
"""One number per member; ``None`` for those that aren't ready."""


@attrs.frozen(kw_only=True)
class Score:
    """How a member has done at one horizon."""

    error: float = 0.0
    """Mean absolute error, exponential over the ensemble's memory."""
    count: int = 0
    """Errors in it, up to that memory."""


@attrs.frozen(kw_only=True)
class EnsembleState:
    """The members' states and scores."""

    members: tuple[Any, ...]
    expected: tuple[tuple[Row, ...], ...] = ((),) * len(HORIZONS)
    """By horizon: the members' latest forecasts, oldest first, at most as many as its steps."""
    scores: tuple[tuple[Score, ...], ...]
    """By horizon and member."""
    spread: Spread = Spread()


def _usual_members() -> tuple[Predictor[Any], ...]:
    """The last value, what a trend and what lags foretell; and a plain mean of the latest few, for noisy beginnings."""
    smooth = Kalman(q_level=0.3, q_trend=3e-7, r=1.0, min_points=1)
    return (Constant(), Kalman(min_points=1), LagRegression(), smooth)


def _are_predictors(instance: Any, attribute: attrs.Attribute[Any], members: Any) -> None:
    if not members:
        raise ConfigError("Ensemble.members = (): must be one predictor or more")
    for member in members:
        object_with("init", "observe", "forecast")(instance, attribute, member)


@attrs.frozen(kw_only=True)
class Ensemble:
    """The weighted mean of its members' forecasts. Who isn't ready joins once it is."""

    members: tuple[Predictor[Any], ...] = attrs.field(
        factory=_usual_members, converter=tuple, validator=_are_predictors
    )
    memory: int = attrs.field(default=150, validator=config_number(whole=True, least=1))
    """Errors over which the members are judged."""
    sharpness: float = attrs.field(default=40.0, validator=config_number(least=0))
    """How much a worse member loses: at 40, 5 % more error than the best costs a factor of e² once the memory is
    full, and e when it is half full; 0 weighs all alike."""

    def init(self) -> EnsembleState:
        """Nothing seen."""
        return EnsembleState(
            members=tuple(member.init() for member in self.members),
            scores=((Score(),) * len(self.members),) * len(HORIZONS),
        )

    def observe(self, state: EnsembleState, value: float) -> EnsembleState:
        """The state after ``value``: every member has learned it and has been judged by it."""
        spread, _ = state.spread.learn(value)
        most = SURPRISE * float(state.spread.std(1)[0]) or math.inf
        scores = tuple(
            tuple(
                self._judged(score, forecast, value, most)
                for score, forecast in zip(row, due[0], strict=True)
            )
            if len(due) == steps
            else row
            for steps, due, row in zip(HORIZONS, state.expected, state.scores, strict=True)
        )
        members = tuple(
            member.observe(known, value) for member, known in zip(self.members, state.members, strict=True)
        )
        state = attrs.evolve(state, members=members, scores=scores)
        paths = self._paths(state, LONGEST)
        mean = self._mean(state, paths)
        expected = tuple(
            (
                *due[len(due) == steps :],
                tuple(None if path is None else float(path[steps - 1]) for path in paths),
            )
            for steps, due in zip(HORIZONS, state.expected, strict=True)
        )
        return attrs.evolve(state, expected=expected, spread=spread if mean is None else spread.expect(mean))

    def forecast(self, state: EnsembleState, steps: int = 1) -> Forecast | None:
        """The weighted mean for each step; ``None`` while no member is ready."""
        mean = self._mean(state, self._paths(state, steps))
        return None if mean is None else Forecast(mean=mean, std=state.spread.std(steps))

    def weights(self, state: EnsembleState) -> npt.NDArray[np.float64]:
        """Each member's share at the horizons of 1, 2, 4 and 8 steps, of shape (horizons, members)."""
        ready = [path is not None for path in self._paths(state, 1)]
        return np.array([self._weights(row, ready) for row in state.scores])

    def _judged(self, score: Score, forecast: float | None, truth: float, most: float) -> Score:
        """One error more, at most ``most`` of it: a surprise to all must not drown what tells the members apart."""
        if forecast is None:
            return score
        count = min(score.count + 1, self.memory)
        error = min(abs(truth - forecast), most)
        return Score(error=score.error + (error - score.error) / count, count=count)

    def _paths(self, state: EnsembleState, steps: int) -> list[npt.NDArray[np.float64] | None]:
        forecasts = [
            member.forecast(known, steps) for member, known in zip(self.members, state.members, strict=True)
        ]
        return [None if forecast is None else forecast.mean for forecast in forecasts]

    def _mean(
        self, state: EnsembleState, paths: Sequence[npt.NDArray[np.float64] | None]
    ) -> npt.NDArray[np.float64] | None:
        known = np.array([path for path in paths if path is not None])
        if not len(known):
            return None
        ready = [path is not None for path in paths]
        ahead = np.arange(1, known.shape[1] + 1)
        by_horizon = np.array([self._weights(row, ready) for row in state.scores])[:, ready]
        weights = np.array([np.interp(ahead, HORIZONS, column) for column in by_horizon.T])
        mean: npt.NDArray[np.float64] = (known * weights).sum(axis=0) / weights.sum(axis=0)
        return mean

    def _weights(self, scores: Sequence[Score], ready: Sequence[bool]) -> list[float]:
        """The members' shares at one horizon."""
        judged = [is_ready and score.count >= ENOUGH for score, is_ready in zip(scores, ready, strict=True)]
        if not any(judged):
            return [float(is_ready) for is_ready in ready]
        best = min(score.error for score, counts in zip(scores, judged, strict=True) if counts)
        if best <= 0:
            return [float(counts and score.error <= 0) for score, counts in zip(scores, judged, strict=True)]
        return [
            math.exp(-self.sharpness * score.count / self.memory * (score.error / best - 1))
            if counts
            else 0.0
            for score, counts in zip(scores, judged, strict=True)
        ]
