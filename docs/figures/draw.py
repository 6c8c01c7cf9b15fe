"""Draws the pictures of the pages on forecasting, of synthetic traffic: `python docs/figures/draw.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt

from planner_adapters.backtest import roll
from planner_core.predictors import Constant, Ensemble, Forecast, Predictor

Floats = npt.NDArray[np.float64]

HERE = Path(__file__).parent
PER_HOUR, PER_DAY = 20, 480
"""Intervals of 180 s."""
STARTUP_S, INTERVAL_S = 600.0, 180.0
QUANTILE_Z = 0.8416
TRUTH, OURS, LAST, MARK = "#555555", "#0072b2", "#d55e00", "#009e73"
"""Of Okabe and Ito's palette, which colour-blind people can tell apart."""

mpl.use("svg")
mpl.rcParams |= {
    "svg.hashsalt": "planner",  # equal pictures, equal files
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "figure.figsize": (7.2, 3.0),
    "figure.constrained_layout.use": True,
}


def traffic(days: float, noise: float = 1.0, seed: int = 2) -> Floats:
    """Requests per second of a service with a day and a night, as means of 180 s."""
    hour = np.arange(int(days * PER_DAY)) / PER_HOUR
    mean = 6 + 30 * (_step(hour % 24 - 9) - _step(hour % 24 - 18)) - 8 * np.exp(-((hour % 24 - 13) ** 2) * 2)
    dice = np.random.default_rng(seed)
    return np.asarray(np.maximum(mean + noise * dice.standard_normal(len(hour)), 0.0))


def _step(hours: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-4 * hours)))


def seen(predictor: Predictor[Any], values: Floats, steps: int) -> Forecast:
    """What the predictor says after these values."""
    state = predictor.init()
    for value in values.tolist():
        state = predictor.observe(state, value)
    forecast = predictor.forecast(state, steps)
    assert forecast is not None
    return forecast


def draw_horizon(axes: Any) -> None:
    """One decision on a morning: values, horizon, peak, quantile, floor."""
    now, steps = int((3 * 24 + 8.75) * PER_HOUR), int(np.ceil((STARTUP_S + INTERVAL_S) / INTERVAL_S))
    values = traffic(4)
    forecast = seen(Ensemble(), values[:now], steps)
    past, ahead = np.arange(now - 25, now), np.arange(now, now + steps)
    minutes = INTERVAL_S / 60
    high = forecast.mean + QUANTILE_Z * forecast.std
    axes.step(
        (past - now + 1) * minutes, values[past], where="pre", color=TRUTH, label="measured, per interval"
    )
    axes.plot((ahead - now + 1) * minutes, values[ahead], "o", ms=3, color="#aaaaaa", label="what came")
    axes.plot((ahead - now + 1) * minutes, forecast.mean, color=OURS, label="forecast: mean")
    axes.fill_between((ahead - now + 1) * minutes, forecast.mean, high, color=OURS, alpha=0.25, lw=0)
    axes.plot((ahead - now + 1) * minutes, high, color=OURS, ls=":", label="its quantile 0.8")
    axes.axvspan(0, steps * minutes, color="#000000", alpha=0.05, lw=0)
    axes.annotate("the horizon", (0.3, axes.get_ylim()[0]), va="bottom", fontsize=9)
    peak = float(high[np.argmax(forecast.mean)])
    axes.hlines(peak, 0, steps * minutes, color=MARK, lw=2, label="planned for")
    axes.set(xlabel="minutes from now", ylabel="requests per second")
    axes.legend(loc="upper left", fontsize=8)


def draw_outage(axes: Any) -> None:
    """An hour without measurements, told as unknown and as zero."""
    values, begin = traffic(4), int((3 * 24 + 8.5) * PER_HOUR)
    end = begin + PER_HOUR
    unknown, zero = values.copy(), values.copy()
    unknown[begin:end], zero[begin:end] = np.nan, 0.0
    shown = np.arange(begin - 40, end + 40)
    hours = (shown - begin) / PER_HOUR
    axes.plot(hours, unknown[shown], color=TRUTH, label="measured")
    for told, colour, label in ((zero, LAST, "taken for zero"), (unknown, OURS, "known to be unknown")):
        axes.plot(
            hours, roll(Ensemble(), told).mean[0][shown], color=colour, lw=1.2, label=f"forecast, {label}"
        )
    axes.axvspan(0, 1, color="#000000", alpha=0.05, lw=0)
    axes.annotate("no measurement", (0.04, 1.5), fontsize=9)
    axes.set(xlabel="hours", ylabel="requests per second", ylim=(0, None))
    axes.legend(loc="upper left", fontsize=8)


def draw_season(axes: Any) -> None:
    """The error of each day: a season is worth something once it has been seen twice."""
    days = 7
    values = traffic(days)
    for predictor, colour in ((Constant(), LAST), (Ensemble(), OURS)):
        mean = roll(predictor, values, horizons=(8,)).mean[0]
        errors = [
            np.nanmean(np.abs(mean - values)[day * PER_DAY : (day + 1) * PER_DAY]) for day in range(days)
        ]
        shift = 0.2 if colour == OURS else -0.2
        name = type(predictor).__name__.lower()
        axes.bar(np.arange(1, days + 1) + shift, errors, 0.38, color=colour, label=name)
    axes.set(xlabel="day", ylabel="mean absolute error, rps", ylim=(0, 2.8))
    axes.legend(loc="upper right", ncols=2, fontsize=8)


def main() -> None:
    """Write each picture beside this file."""
    for name, draw in (("horizon", draw_horizon), ("outage", draw_outage), ("season", draw_season)):
        figure, axes = plt.subplots()
        draw(axes)
        figure.savefig(HERE / f"forecasting_{name}.svg", metadata={"Date": None})
        plt.close(figure)


if __name__ == "__main__":
    main()
