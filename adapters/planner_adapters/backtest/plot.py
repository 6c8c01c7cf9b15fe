"""Forecast against truth, as a page that opens without a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from planner_adapters.backtest.evaluation import Forecasts
from planner_adapters.backtest.series import Series
from planner_adapters.report.figures_page import COLOURS, numbers, place_of, write_figures

Floats = npt.NDArray[np.float64]

MOST_BYTES = 1_000_000
"""Of numbers in a page, beside the 1.2 MB of plotly itself."""
BYTES = 2 * 4 * 4 / 3
"""Of a point: x and y, as base64 of float32."""
TRUTH, PALE = "--text", "@2e"


def write_plot(
    path: str | Path,
    series: Series,
    forecasts: Mapping[str, Forecasts],
    *,
    title: str,
    warmup: float = 0.0,
    shown: Sequence[str] = (),
) -> None:
    """Draws the truth and, at their first horizon, the forecasts with their 90 % intervals.

    ``shown`` are drawn at once (by default all), the others after a click into the legend. Of a series too long for a
    page of 3 MB, real points are drawn: the highest and the lowest truth of each stretch, and all forecasts there.
    """
    num_stretches = int(MOST_BYTES / BYTES / (3 * len(forecasts) + 1) / 2)
    kept = _kept(series.values, num_stretches)
    hours = numbers(kept * series.interval_s / 3600)

    def line(values: Floats, colour: str, **more: Any) -> dict[str, Any]:
        usual = {"mode": "lines", "line": {"color": colour, "width": 1.5}}
        return {"x": hours, "y": numbers(values[kept]), **usual, **more}

    data = [line(series.values, TRUTH, name="truth")]
    for (name, made), colour in zip(forecasts.items(), cycle(COLOURS), strict=False):
        low, high = made.interval_90()
        of_it = {"legendgroup": name, "visible": True if not shown or name in shown else "legendonly"}
        edge = {**of_it, "line": {"width": 0}, "showlegend": False, "hoverinfo": "skip"}
        data.append(line(low[0], colour, **edge))
        data.append(line(high[0], colour, fill="tonexty", fillcolor=colour + PALE, **edge))
        data.append(line(made.mean[0], colour, name=name, **of_it))
    layout: dict[str, Any] = {
        "xaxis": {"title": {"text": _since(series)}},
        "yaxis": {"title": {"text": f"per {series.interval_s:g} s"}, "rangemode": "tozero"},
        "hovermode": "x unified",
    }
    if warmup:
        layout |= _shaded(warmup * len(series) * series.interval_s / 3600)
    caption = "Bands: the 90 % intervals. A click into the legend shows a predictor or hides it."
    if len(kept) < len(series):
        caption += f" {len(kept):,} of {len(series):,} points: the highest and lowest of {num_stretches:,} stretches."
    place = place_of("forecast", title, caption)
    write_figures(path, {"forecast": {"data": data, "layout": layout}}, title="planner backtest", body=place)


def _shaded(end: float) -> dict[str, Any]:
    """The warm-up, which isn't scored."""
    box = {"type": "rect", "xref": "x", "x0": 0, "x1": end, "yref": "paper", "y0": 0, "y1": 1}
    words = {"text": "warm-up", "x": 0, "xanchor": "left", "yref": "paper", "y": 1, "yanchor": "top"}
    return {
        "shapes": [{**box, "fillcolor": "--grey@1f", "line": {"width": 0}, "layer": "below"}],
        "annotations": [{**words, "showarrow": False, "font": {"color": "--faint"}}],
    }


def _kept(values: Floats, num_stretches: int) -> npt.NDArray[np.int_]:
    """The steps that are drawn."""
    if len(values) <= 2 * num_stretches:
        return np.arange(len(values))
    kept = []
    for stretch in np.array_split(np.arange(len(values)), num_stretches):
        truth = values[stretch]
        unknown = np.isnan(truth)
        if not unknown.all():
            kept += [stretch[np.nanargmin(truth)], stretch[np.nanargmax(truth)]]
        if unknown.any():
            kept.append(stretch[np.argmax(unknown)])  # so that a gap stays one
    return np.unique(kept)


def _since(series: Series) -> str:
    if series.start_s < 1e8:
        return "hours"
    return f"hours since {datetime.fromtimestamp(series.start_s, UTC):%Y-%m-%d %H:%M} UTC"
