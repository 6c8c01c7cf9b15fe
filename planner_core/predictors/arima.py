"""ARIMA (Box and Jenkins 1970), its order chosen by Akaike's criterion and chosen again as evidence grows.

statsmodels estimates on a bounded window, now and then; the ticks between apply the difference equation.
"""

from __future__ import annotations

import warnings
from typing import Any

import attrs
import numpy as np

from planner_core.data.checks import config_number
from planner_core.predictors._guests import guest
from planner_core.predictors._history import Values, appended, is_due
from planner_core.predictors._spread import LONGEST, Spread
from planner_core.predictors.protocol import Forecast

Order = tuple[int, int, int]
"""p, d, q: autoregressive terms, differences (0 or 1), moving-average terms."""

ORDERS: tuple[Order, ...] = ((0, 1, 1), (1, 1, 1), (0, 1, 2), (2, 1, 1), (1, 0, 0), (1, 0, 1), (2, 0, 1))
"""What is tried. Without a difference there is a mean; with one there is no drift."""
RANDOM_WALK: Order = (0, 1, 0)
"""The order while nothing else is known: repeat the last value."""
FIRST = 16
"""Values before the first estimate."""
ESTIMATE_EVERY, SELECT_EVERY = 48, 192
"""Values between two estimates of the coefficients, and between two choices of the order."""
ROUNDS = 25
"""Rounds of the likelihood's maximisation; more change the forecast little and may take long."""


@attrs.frozen(kw_only=True)
class ArimaState:
    """The values seen, the model as last estimated, and what its difference equation needs."""

    values: Values = attrs.field(factory=lambda: np.zeros(0), eq=attrs.cmp_using(eq=np.array_equal))
    """The latest values, spikes cut; at most ``window``."""
    count: int = 0
    """Values seen in all."""
    order: Order = RANDOM_WALK
    mean: float = 0.0
    """Of the series, where the order has no difference."""
    ar: tuple[float, ...] = ()
    ma: tuple[float, ...] = ()
    residuals: tuple[float, ...] = ()
    """One-step errors of the model, newest first; as many as ``ma``."""
    spread: Spread = Spread()


@attrs.frozen(kw_only=True)
class Arima:
    """Autoregression and moving average, of the series or of its changes."""

    window: int = attrs.field(default=200, validator=config_number(whole=True, least=32))
    """Values that the model is estimated on, the latest ones."""

    def __attrs_post_init__(self) -> None:
        guest("statsmodels.tsa.statespace.sarimax", "Arima")

    def init(self) -> ArimaState:
        """Nothing seen."""
        return ArimaState()

    def observe(self, state: ArimaState, value: float) -> ArimaState:
        """The state after ``value``, estimated anew if it is time."""
        spread, tamed = state.spread.learn(value)
        residuals = state.residuals
        if residuals:
            residuals = (tamed - _path(state, 1, positive=False)[0], *residuals)[: len(residuals)]
        state = attrs.evolve(
            state,
            values=appended(state.values, tamed, self.window),
            count=state.count + 1,
            residuals=residuals,
        )
        if state.count >= FIRST and is_due(state.count, ESTIMATE_EVERY):
            state = _estimated(state)
        return attrs.evolve(state, spread=spread.expect(_path(state, LONGEST)))

    def forecast(self, state: ArimaState, steps: int = 1) -> Forecast | None:
        """The difference equation, step after step; ``None`` before the first value."""
        if not state.count:
            return None
        return Forecast(mean=_path(state, steps), std=state.spread.std(steps))


def _path(state: ArimaState, steps: int, *, positive: bool = True) -> list[float]:
    """The next ``steps`` values: never negative unless asked for, never past twice the highest that was seen."""
    p, d, _ = state.order
    recent = state.values[-(p + d) :].tolist()
    last = recent[-1] if recent else 0.0
    past = [after - before for before, after in zip(recent, recent[1:], strict=False)] if d else recent
    past = [value - state.mean for value in reversed(past)]
    residuals = list(state.residuals)
    highest = 2.0 * float(state.values.max())
    path = []
    for _ in range(steps):
        change = sum(map(float.__mul__, state.ar, past)) + sum(map(float.__mul__, state.ma, residuals))
        last = change + (last if d else state.mean)
        last = min(max(last, 0.0), highest) if positive else last
        path.append(last)
        past, residuals = [change, *past], [0.0, *residuals]
    return path


def _estimated(state: ArimaState) -> ArimaState:
    """The state with coefficients, and if it is time the order, from the values seen."""
    low, high = float(state.values.min()), float(state.values.max())
    if not high - low > 1e-9 * high:
        return attrs.evolve(state, order=RANDOM_WALK, mean=0.0, ar=(), ma=(), residuals=())
    scaled = (state.values - low) / (high - low)
    select = state.order == RANDOM_WALK or is_due(state.count, SELECT_EVERY)
    fits = [fit for order in (ORDERS if select else (state.order,)) if (fit := _fit(scaled, order)) is not None]
    if not fits:
        return state
    _, order, mean, ar, ma, residuals = min(fits, key=lambda fit: fit[0])
    return attrs.evolve(
        state,
        order=order,
        mean=low + mean * (high - low) if order[1] == 0 else 0.0,
        ar=ar,
        ma=ma,
        residuals=tuple(residual * (high - low) for residual in residuals),
    )


def _fit(values: Values, order: Order) -> tuple[float, Order, float, Any, Any, tuple[float, ...]] | None:
    """Akaike's criterion (corrected for few values), order, mean, coefficients, last residuals; ``None``: no fit.

    The likelihood is that of all values but the first given the first, so that orders with and without a
    difference compare.
    """
    from statsmodels.tsa.statespace.sarimax import SARIMAX

    p, d, q = order
    series = np.diff(values) if d else values
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            model = SARIMAX(series, order=(p, 0, q), trend="n" if d else "c")
            fit = model.fit(disp=0, maxiter=ROUNDS, cov_type="none")
        except (ValueError, np.linalg.LinAlgError):
            return None
    params = dict(zip(model.param_names, (float(value) for value in fit.params), strict=True))
    ar = tuple(params[f"ar.L{lag}"] for lag in range(1, p + 1))
    ma = tuple(params[f"ma.L{lag}"] for lag in range(1, q + 1))
    mean = params.get("intercept", 0.0) / max(1 - sum(ar), 1e-6)
    num, free = len(values) - 1, p + q + 2 - d
    likelihood = float(fit.llf_obs[1 - d :].sum())
    criterion = 2 * free - 2 * likelihood + 2 * free * (free + 1) / max(num - free - 1, 1)
    residuals = tuple(float(value) for value in fit.resid[::-1][:q])
    if not all(map(np.isfinite, (criterion, mean, *ar, *ma, *residuals))):
        return None
    return criterion, order, mean, ar, ma, residuals
