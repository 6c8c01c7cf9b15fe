"""Forecast against truth, as a page that opens without a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from planner_adapters.backtest.evaluation import Forecasts
from planner_adapters.backtest.series import Series
from planner_core import MissingExtraError

Floats = npt.NDArray[np.float64]

STRETCHES = 1000
"""Of a long series, the highest and the lowest value of so many stretches are drawn."""
TRUTH, COLOURS = "#222222", ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#999933")
"""Okabe and Ito's palette, which colour-blind people can tell apart."""


def plotly() -> ModuleType:
    """The guest that draws; :class:`~planner_core.MissingExtraError` with the pip command if it isn't there."""
    try:
        import plotly.graph_objects
    except ImportError:
        raise MissingExtraError("a plot needs plotly: pip install 'planner-core[report]'") from None
    return plotly.graph_objects  # type: ignore[no-any-return]


def write_plot(
    path: str | Path,
    series: Series,
    forecasts: Mapping[str, Forecasts],
    *,
    title: str,
    shown: Sequence[str] = (),
) -> None:
    """Draws the truth and, at their first horizon, the forecasts with their 90 % intervals.

    ``shown`` are drawn at once (by default all), the others after a click into the legend. What is drawn of a long
    series are real points: the highest and lowest truth of each of 1 000 stretches, and every forecast there.
    """
    go = plotly()
    kept = _kept(series.values)
    hours = _short(kept * series.interval_s / 3600)
    figure = go.Figure()
    for (name, made), colour in zip(forecasts.items(), COLOURS * len(forecasts), strict=False):
        low, high = made.interval_90()
        usual = {
            "x": hours,
            "legendgroup": name,
            "visible": True if not shown or name in shown else "legendonly",
            "line": {"color": colour, "width": 1.5},
        }
        edge = usual | {"line": {"width": 0}, "showlegend": False, "hoverinfo": "skip"}
        figure.add_scatter(y=_short(low[0][kept]), **edge)
        figure.add_scatter(y=_short(high[0][kept]), fill="tonexty", fillcolor=_pale(colour), **edge)
        figure.add_scatter(y=_short(made.mean[0][kept]), name=name, **usual)
    figure.add_scatter(
        x=hours, y=_short(series.values[kept]), name="truth", line={"color": TRUTH, "width": 1}
    )
    figure.update_layout(
        title={"text": title, "subtitle": {"text": _subtitle(series, len(kept))}},
        xaxis_title=_since(series),
        yaxis={"title": f"per {series.interval_s:g} s", "rangemode": "tozero"},
        hovermode="x unified",
        template="plotly_white",
    )
    page: str = figure.to_html(include_plotlyjs=True, full_html=True)
    Path(path).write_text(page, encoding="utf-8")


def _kept(values: Floats) -> npt.NDArray[np.int_]:
    """The steps that are drawn."""
    if len(values) <= 2 * STRETCHES:
        return np.arange(len(values))
    kept = []
    for stretch in np.array_split(np.arange(len(values)), STRETCHES):
        truth = values[stretch]
        known = ~np.isnan(truth)
        if known.any():
            kept += [stretch[np.nanargmin(truth)], stretch[np.nanargmax(truth)]]
        if not known.all():
            kept.append(stretch[np.argmin(known)])  # so that a gap stays one
    return np.unique(kept)


def _subtitle(series: Series, num_kept: int) -> str:
    band = "the bands are the 90 % intervals"
    if num_kept == len(series):
        return band
    return f"{band}; {num_kept:,} of {len(series):,} points: the highest and lowest truth of {STRETCHES:,} stretches"


def _since(series: Series) -> str:
    if series.start_s < 1e8:
        return "hours"
    return f"hours since {datetime.fromtimestamp(series.start_s, UTC):%Y-%m-%d %H:%M} UTC"


def _short(values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Half the bytes, and more digits than a screen shows."""
    return values.astype(np.float32)


def _pale(colour: str) -> str:
    red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.18)"
