"""Points, curves and capacity, as a page that opens without a network."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from planner_adapters.backtest.plot import COLOURS, plotly
from planner_adapters.profile.capacity import RoleCapacity
from planner_adapters.profile.fits import FittedRole
from planner_core import SlaTargets
from planner_core.maths.sla import capacity
from planner_core.perf import BatchLoad, Profiled

PROMISES = 41
"""Between a quarter of the SLA and four times as much, for which the capacity is drawn."""
MOST_PASSES = 4000
"""Drawn of a file; of more, every so many-th."""
BEYOND = 1.5
"""Curves run on to this many times what was profiled, so that the extrapolation is seen."""


def write_plot(
    path: str | Path,
    capacities: Sequence[RoleCapacity],
    *,
    title: str,
    sla: SlaTargets,
    profile: Profiled | None = None,
    fitted: Sequence[FittedRole] = (),
) -> None:
    """Draws a profile with the model's curves, or the passes of ``fitted`` against their estimates; and capacity."""
    plotly()
    from plotly.subplots import make_subplots

    left = ("prefill: TTFT over prompt tokens", "decode: ITL over requests") if profile else ("passes",)
    figure = make_subplots(rows=1, cols=len(left) + 1, subplot_titles=(*left, "capacity of one engine"))
    if profile is not None:
        _draw_prefill(figure, profile)
        _draw_decode(figure, profile)
    else:
        _draw_passes(figure, fitted)
    _draw_capacity(figure, capacities, sla, column=len(left) + 1)
    figure.update_layout(title=title, template="plotly_white", hovermode="closest")
    page: str = figure.to_html(include_plotlyjs=True, full_html=True)
    Path(path).write_text(page, encoding="utf-8")


def _draw_prefill(figure: Any, profile: Profiled) -> None:
    isl = profile.prefill_isl_tokens
    tokens = np.geomspace(isl[0], BEYOND * isl[-1], 200)
    estimate = profile.iteration_s((), BatchLoad(prefill_tokens=tokens, prefill_pairs=tokens**2 / 2))
    usual = {"legendgroup": "prefill", "marker": {"color": COLOURS[0]}, "line": {"color": COLOURS[0]}}
    figure.add_scatter(
        x=isl, y=profile.prefill_ttft_ms, mode="markers", name="prefill, measured", row=1, col=1, **usual
    )
    figure.add_scatter(
        x=tokens, y=np.asarray(estimate.mean_s) * 1e3, mode="lines", name="model", row=1, col=1, **usual
    )
    figure.update_xaxes(type="log", title="prompt tokens", row=1, col=1)
    figure.update_yaxes(type="log", title="ms", row=1, col=1)


def _draw_decode(figure: Any, profile: Profiled) -> None:
    for length, colour in zip(np.unique(profile.decode_context_tokens), cycle(COLOURS), strict=False):
        rows = profile.decode_context_tokens == length
        requests = profile.decode_kv_tokens[rows] / length
        batch = np.geomspace(requests.min(), BEYOND * requests.max(), 100)
        estimate = profile.iteration_s((), BatchLoad(num_decode=batch, decode_kv_tokens=batch * length))
        usual = {"legendgroup": f"{length:g}", "marker": {"color": colour}, "line": {"color": colour}}
        figure.add_scatter(
            x=requests,
            y=profile.decode_itl_ms[rows],
            mode="markers",
            name=f"context {length:,.0f}",
            row=1,
            col=2,
            **usual,
        )
        figure.add_scatter(
            x=batch,
            y=np.asarray(estimate.mean_s) * 1e3,
            mode="lines",
            showlegend=False,
            row=1,
            col=2,
            **usual,
        )
    figure.update_xaxes(type="log", title="requests", row=1, col=2)
    figure.update_yaxes(type="log", title="ms", row=1, col=2)


def _draw_passes(figure: Any, fitted: Sequence[FittedRole]) -> None:
    for each, colour in zip(fitted, cycle(COLOURS), strict=False):
        if each.measured_s is None or each.estimated_s is None:
            continue
        step = slice(None, None, 1 + len(each.measured_s) // MOST_PASSES)
        figure.add_scatter(
            x=np.asarray(each.measured_s)[step] * 1e3,
            y=np.asarray(each.estimated_s)[step] * 1e3,
            mode="markers",
            name=str(each.role),
            marker={"color": colour, "size": 4},
            row=1,
            col=1,
        )
    figure.update_xaxes(type="log", title="measured, ms", row=1, col=1)
    figure.update_yaxes(type="log", title="estimated, ms", row=1, col=1)


def _draw_capacity(figure: Any, capacities: Sequence[RoleCapacity], sla: SlaTargets, column: int) -> None:
    """Requests per second over how many times the SLA is promised, and a mark where it is what it is."""
    looser = np.geomspace(1 / 4, 4, PROMISES)
    for each, colour in zip(capacities, cycle(COLOURS), strict=False):
        found = [capacity(each.curve, sla.ttft_ms * times, sla.itl_ms * times) for times in looser]
        usual = {"row": 1, "col": column, "legendgroup": f"capacity {each.role}"}
        figure.add_scatter(
            x=looser,
            y=[None if other.unreachable else other.rps for other in found],
            text=[f"bound by {other.binding}" for other in found],
            name=f"{each.role}: capacity",
            mode="lines",
            line={"color": colour},
            **usual,
        )
        if each.found.rps is not None:
            figure.add_scatter(
                x=[1.0],
                y=[each.found.rps],
                name=f"{each.role}: {each.found.rps:.3g} requests/s",
                mode="markers",
                marker={"color": colour, "size": 11, "symbol": "diamond"},
                **usual,
            )
    targets = f"TTFT and ITL, as multiples of {sla.ttft_ms:g} and {sla.itl_ms:g} ms"
    figure.update_xaxes(type="log", title=targets, row=1, col=column)
    figure.update_yaxes(title="requests/s", rangemode="tozero", row=1, col=column)
