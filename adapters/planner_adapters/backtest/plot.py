"""Forecast against truth, as a page that opens without a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import cycle
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from planner_adapters.backtest.evaluation import Forecasts
from planner_adapters.backtest.series import Series
from planner_core import MissingExtraError

Floats = npt.NDArray[np.float64]

MOST_BYTES = 1_000_000
"""Of numbers in a page, beside the 4.8 MB of plotly itself."""
BYTES = 2 * 4 * 4 / 3
"""Of a point: x and y, as base64 of float32."""
TRUTH, COLOURS = "#555555", ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#999933")
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
    warmup: float = 0.0,
    shown: Sequence[str] = (),
) -> None:
    """Draws the truth and, at their first horizon, the forecasts with their 90 % intervals.

    ``shown`` are drawn at once (by default all), the others after a click into the legend. Of a series too long for a
    page of 6 MB, real points are drawn: the highest and the lowest truth of each stretch, and all forecasts there.
    """
    go = plotly()
    num_stretches = int(MOST_BYTES / BYTES / (3 * len(forecasts) + 1) / 2)
    kept = _kept(series.values, num_stretches)
    hours = _short(kept * series.interval_s / 3600)
    figure = go.Figure()
    figure.add_scatter(
        x=hours, y=_short(series.values[kept]), name="truth", line={"color": TRUTH, "width": 1}
    )
    for (name, made), colour in zip(forecasts.items(), cycle(COLOURS), strict=False):
        low, high = made.interval_90()
        visible = True if not shown or name in shown else "legendonly"
        usual = {"x": hours, "legendgroup": name, "visible": visible, "mode": "lines"}
        edge = usual | {"line": {"width": 0}, "showlegend": False, "hoverinfo": "skip"}
        figure.add_scatter(y=_short(low[0][kept]), **edge)
        figure.add_scatter(y=_short(high[0][kept]), fill="tonexty", fillcolor=_pale(colour), **edge)
        figure.add_scatter(
            y=_short(made.mean[0][kept]), name=name, line={"color": colour, "width": 1.5}, **usual
        )
    if warmup:
        end = warmup * len(series) * series.interval_s / 3600
        figure.add_vrect(0, end, fillcolor="#000000", opacity=0.05, line_width=0, annotation_text="warm-up")
    subtitle = "bands: the 90 % intervals"
    if len(kept) < len(series):
        subtitle += f"; {len(kept):,} of {len(series):,} points: the highest and lowest of {num_stretches:,} stretches"
    figure.update_layout(
        title={"text": title, "subtitle": {"text": subtitle}},
        xaxis_title=_since(series),
        yaxis={"title": f"per {series.interval_s:g} s", "rangemode": "tozero"},
        hovermode="x unified",
        template="plotly_white",
    )
    page: str = figure.to_html(include_plotlyjs=True, full_html=True)
    Path(path).write_text(page, encoding="utf-8")


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


def _short(values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Half the bytes, and more digits than a screen shows."""
    return values.astype(np.float32)


def _pale(colour: str) -> str:
    red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.18)"
