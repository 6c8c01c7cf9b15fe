# pyright: basic
"""ARIMA(p, 1, q) (Box and Jenkins 1970): p and q chosen by Akaike's criterion, again and again as evidence grows.

The series is always differenced once: load wanders, and a mean fitted to its last hours is soon wrong. statsmodels
estimates on a bounded window, now and then; the ticks between apply the difference equation.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import attrs
import numpy as np

from planner_core.data.checks import config_number
from planner_core.predictors._guests import guest
from planner_core.predictors._history import Values, appended, is_due, median
from planner_core.predictors._spread import JUMP, LONGEST, Spread
from planner_core.predictors.protocol import Forecast

ORDERS = ((0, 1), (1, 1), (0, 2), (2, 1), (2, 2))
"""p and q that are tried."""
FIRST = 16
"""Values before the first estimate; until then the last value is repeated, which is ARIMA(0, 1, 0)."""
ESTIMATE_EVERY, SELECT_EVERY = 48, 192
"""Values between two estimates of the coefficients, and between two choices of the order (at first with each)."""
VALUES_PER_COEFFICIENT = 16
"""Values that must speak for each coefficient."""
ROUNDS = 25
"""Rounds in which the likelihood is maximised; more hardly change the forecast and may take long."""
USUAL = 4.0
"""Changes are cut to so many robust standard deviations before the estimate."""


@attrs.frozen(kw_only=True)
class ArimaState:
    """The changes seen, the model as last estimated, and its last residuals."""

    last: float = 0.0
    """The last value, spikes cut."""
    changes: Values = attrs.field(factory=lambda: np.zeros(0), eq=attrs.cmp_using(eq=np.array_equal))
    """The latest changes from one value to the next, without jumps to a new level; at most ``window``."""
    count: int = 0
    """Values seen in all."""
    ar: tuple[float, ...] = ()
    """The p coefficients of past changes, latest first."""
    ma: tuple[float, ...] = ()
    """The q coefficients of past residuals, latest first."""
    residuals: tuple[float, ...] = ()
    """The last q one-step errors, latest first."""
    spread: Spread = Spread()


@attrs.frozen(kw_only=True)
class Arima:
    """Autoregression and moving average of the series' changes."""

    window: int = attrs.field(default=256, validator=config_number(whole=True, least=32))
    """Changes that the model is estimated on, the latest ones."""

    def __attrs_post_init__(self) -> None:
        for module in ("statsmodels.tsa.statespace.sarimax", "statsmodels.base.covtype"):
            guest(module, "Arima")

    def init(self) -> ArimaState:
        """Nothing seen."""
        return ArimaState()

    def observe(self, state: ArimaState, value: float) -> ArimaState:
        """The state after ``value``, estimated anew if it is time."""
        spread, tamed = state.spread.learn(value)
        count, change, changes, residuals = (
            state.count + 1,
            tamed - state.last,
            state.changes,
            state.residuals,
        )
        if spread.jumped:  # what led to the new level is no change that may last
            change, changes = 0.0, np.concatenate((changes[: 1 - JUMP], np.zeros(JUMP - 1)))
            residuals = (0.0,) * len(residuals)
        elif residuals:
            residuals = (change - _next(state, changes[::-1], residuals), *residuals)[: len(residuals)]
        changes = appended(changes, change, self.window) if state.count else changes
        state = attrs.evolve(state, last=tamed, changes=changes, count=count, residuals=residuals)
        if count >= FIRST and is_due(count, ESTIMATE_EVERY):
            state = _estimated(state)
        return attrs.evolve(state, spread=spread.expect(_path(state, LONGEST)))

    def forecast(self, state: ArimaState, steps: int = 1) -> Forecast | None:
        """The difference equation, step after step; ``None`` before the first value."""
        if not state.count:
            return None
        return Forecast(mean=_path(state, steps), std=state.spread.std(steps))


def _next(state: ArimaState, changes: Sequence[float] | Values, residuals: Sequence[float]) -> float:
    """The next change, from past changes and residuals, latest first."""
    terms = (*zip(state.ar, changes, strict=False), *zip(state.ma, residuals, strict=False))
    return float(sum(coefficient * past for coefficient, past in terms))


def _path(state: ArimaState, steps: int) -> list[float]:
    """The next ``steps`` values, never negative."""
    changes: list[float] = state.changes[::-1][: len(state.ar)].tolist()
    value, residuals, path = state.last, list(state.residuals), []
    for _ in range(steps):
        change = _next(state, changes, residuals)
        changes, residuals = [change, *changes], [0.0, *residuals]
        value += change
        path.append(max(value, 0.0))
    return path


def _estimated(state: ArimaState) -> ArimaState:
    """The state with coefficients, and if it is time the order, from the changes seen."""
    usual = USUAL * 1.4826 * median(np.abs(state.changes))
    changes = np.clip(state.changes, -usual, usual) if usual > 0 else state.changes
    scale = float(changes.std())
    if not scale > 1e-9 * state.last:
        return attrs.evolve(state, ar=(), ma=(), residuals=())
    current = (len(state.ar), len(state.ma))
    if current == (0, 0) or state.count < SELECT_EVERY or state.count % SELECT_EVERY == 0:
        orders = [(p, q) for p, q in ORDERS if (p + q) * VALUES_PER_COEFFICIENT <= len(changes) + 1]
    else:
        orders = [current]
    fits = [_fit(changes / scale, p, q) for p, q in orders]
    known = [fit for fit in fits if fit is not None]
    if not known:
        return state
    _, ar, ma, residuals = min(known)
    return attrs.evolve(state, ar=ar, ma=ma, residuals=tuple(residual * scale for residual in residuals))


Floats = tuple[float, ...]


def _fit(changes: Values, p: int, q: int) -> tuple[float, Floats, Floats, Floats] | None:
    """Akaike's criterion (corrected for few values), coefficients and last residuals; ``None``: no fit."""
    from statsmodels.tsa.statespace.sarimax import SARIMAX

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            fit: Any = SARIMAX(changes, order=(p, 0, q)).fit(disp=False, maxiter=ROUNDS, cov_type="none")
        except (ValueError, np.linalg.LinAlgError):
            return None
        numbers = [float(fit.aicc), *map(float, fit.params), *map(float, fit.resid[::-1][:q])]
    if not np.isfinite(numbers).all():
        return None
    return numbers[0], tuple(numbers[1 : p + 1]), tuple(numbers[p + 1 : p + q + 1]), tuple(numbers[-q:])
