# pyright: basic
"""Prophet (Taylor and Letham 2018): a trend with change points and a season, fitted anew every few values.

The one predictor whose values take more than computing: its backend runs a child process that reads and writes
temporary files. The same values give the same forecast all the same. Time is counted in steps, so that a season of
any length is one, and no time stamp is ever needed.
"""

from __future__ import annotations

import logging
import warnings
from typing import Any

import attrs
import numpy as np

from planner_core.data.checks import config_number
from planner_core.predictors._guests import guest
from planner_core.predictors._history import Values, appended, find_period
from planner_core.predictors._spread import LONGEST, Spread
from planner_core.predictors.protocol import Forecast

FIRST = 10
"""Values before the first forecast; with fewer, a fit takes ten times as long and means nothing."""
FOURIER_ORDER = 6
"""Waves of which the season is made up."""
PERSISTENCE_MEMORY = 50.0
"""Values over which it is learned how much of the curve's error stays for the next one."""


@attrs.frozen(kw_only=True)
class ProphetState:
    """The values seen, and the curve that was fitted to them, drawn on into the future."""

    values: Values = attrs.field(factory=lambda: np.zeros(0), eq=attrs.cmp_using(eq=np.array_equal))
    """The latest values, spikes cut; at most ``window_size``."""
    curve: tuple[float, ...] = ()
    """From the last value on, which comes first; empty before the first fit."""
    persistence: tuple[float, float] = (0.0, 0.0)
    """Recent sums: of the curve's error times the one before, and of the latter's square."""
    spread: Spread = Spread()


@attrs.frozen(kw_only=True)
class Prophet:
    """Fits a trend with change points and a season. Between two fits, and past the last, its error is carried on."""

    window_size: int = attrs.field(default=50, validator=config_number(whole=True, least=2))
    """Values that are fitted, the latest ones. A season needs two periods among them."""
    period: int | None = attrs.field(
        default=None, validator=config_number(whole=True, least=2, optional=True)
    )
    """Steps of the season, such as 480 for a day of 180-s intervals; ``None``: found from the data."""
    fit_every: int = attrs.field(default=8, validator=config_number(whole=True, least=1))
    """Values between two fits; each takes a tenth of a second."""

    def __attrs_post_init__(self) -> None:
        for name in ("cmdstanpy", "prophet"):
            logger = logging.getLogger(name)
            if not logger.handlers:  # else somebody wants to hear it
                logger.addHandler(logging.NullHandler())
                logger.propagate = False
        guest("prophet", "Prophet")

    def init(self) -> ProphetState:
        """Nothing seen."""
        return ProphetState()

    def observe(self, state: ProphetState, value: float) -> ProphetState:
        """The state after ``value``, fitted anew if the curve comes to its end."""
        spread, tamed = state.spread.learn(value)
        values = appended(state.values, tamed, max(self.window_size, FIRST))
        curve, (products, squares) = state.curve, state.persistence
        if curve:
            before, error = float(state.values[-1]) - curve[0], tamed - curve[1]
            products += before * error - products / PERSISTENCE_MEMORY
            squares += before**2 - squares / PERSISTENCE_MEMORY
        curve = curve[1:]
        if len(values) >= FIRST and len(curve) <= LONGEST:
            curve = self._curve(values, LONGEST + self.fit_every)
        state = attrs.evolve(state, values=values, curve=curve, persistence=(products, squares))
        return attrs.evolve(state, spread=spread.expect(self._path(state, LONGEST)))

    def forecast(self, state: ProphetState, steps: int = 1) -> Forecast | None:
        """The curve, moved by what is left of the last value's distance to it; ``None`` before 10 values."""
        if not state.curve:
            return None
        return Forecast(mean=self._path(state, steps), std=state.spread.std(steps))

    def _path(self, state: ProphetState, steps: int) -> Values:
        if not state.curve:
            return np.full(steps, state.values[-1])
        curve, (products, squares) = state.curve, state.persistence
        if len(curve) <= steps:
            curve = self._curve(state.values, steps)
        stays = min(max(products / squares, 0.0), 1.0) if squares > 0 else 1.0
        error = float(state.values[-1]) - curve[0]
        path = np.array(curve[1 : steps + 1]) + error * stays ** np.arange(1, steps + 1)
        return np.asarray(np.clip(path, 0.0, 2.0 * float(state.values.max())), dtype=np.float64)

    def _curve(self, values: Values, steps: int) -> tuple[float, ...]:
        """The fitted curve at the last value and ``steps`` on."""
        low, high = float(values.min()), float(values.max())
        if high - low > 1e-9 * high:
            curve = _fitted(values, self.period or find_period(values), steps)
            if np.isfinite(curve).all():
                return tuple(curve.tolist())
        return (float(values[-1]),) * (steps + 1)


def _fitted(values: Values, period: int | None, steps: int) -> Values:
    """A fit to the values, at the last one and ``steps`` on; of shape (1 + steps,)."""
    import pandas as pd
    import prophet

    days = pd.date_range("2000-01-01", periods=len(values) + steps, freq="D")
    model: Any = prophet.Prophet(
        yearly_seasonality=False,
        weekly_seasonality=False,
        daily_seasonality=False,
        uncertainty_samples=0,
    )
    if period is not None and len(values) >= 2 * period:
        model.add_seasonality("season", period=period, fourier_order=min(FOURIER_ORDER, period // 2))
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        model.fit(pd.DataFrame({"ds": days[: len(values)], "y": values}), seed=1)
        curve: Values = model.predict(pd.DataFrame({"ds": days}))["yhat"].to_numpy(dtype=np.float64)
    return curve[len(values) - 1 :]
