"""Points, curves and capacity, as a page that opens without a network."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from planner_adapters.profile.capacity import RoleCapacity
from planner_adapters.profile.fits import FittedRole
from planner_adapters.report.figures_page import COLOURS, Figure, numbers, place_of, write_figures
from planner_core import SlaTargets
from planner_core.maths.sla import capacity
from planner_core.perf import BatchLoad, Profiled

MULTIPLES = (0.25, 0.5, 1, 2, 4)
"""Of the SLA, on the axis over which the capacity is drawn."""
PROMISES = 41
"""Between them, for which it is found."""
MOST_PASSES = 4000
"""Drawn of a file; of more, every so many-th."""
BEYOND = 1.5
"""Curves run on to this many times what was profiled, so that the extrapolation is seen."""
POINTS_AND_CURVES = "Points: measured. Lines: the model, which runs on beyond them."


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
    figures: dict[str, Figure] = {}
    places = []

    def add(name: str, words: str, caption: str, figure: Figure, width: str = "") -> None:
        figures[name] = figure
        places.append(f'<section class="{width}">{place_of(name, words, caption, "middle")}</section>')

    if profile is not None:
        add("prefill", "Prefill: TTFT over prompt tokens", POINTS_AND_CURVES, _prefill(profile))
        add("decode", "Decode: ITL over requests", POINTS_AND_CURVES, _decode(profile))
    else:
        add(
            "passes",
            "Passes: estimated over measured",
            "On the diagonal, the model is right.",
            _passes(fitted),
        )
    marks = "Diamonds: with the SLA as it is. A line ends where even a lone request misses it."
    add("capacity", "Capacity of one engine", marks, _capacity(capacities, sla), "wide" if profile else "")
    body = f'<p>{escape(title)}</p>\n<div id="charts">{"".join(places)}</div>'
    write_figures(path, figures, title="planner profile", body=body)


def _prefill(profile: Profiled) -> Figure:
    isl = profile.prefill_isl_tokens
    tokens = np.geomspace(isl[0], BEYOND * isl[-1], 200)
    estimate = profile.iteration_s((), BatchLoad(prefill_tokens=tokens, prefill_pairs=tokens**2 / 2))
    data = [
        _points("measured", isl, profile.prefill_ttft_ms, COLOURS[0]),
        _line("model", tokens, np.asarray(estimate.mean_s) * 1e3, COLOURS[0]),
    ]
    return {"data": data, "layout": _axes(_log("prompt tokens"), _log("ms"))}


def _decode(profile: Profiled) -> Figure:
    data = []
    for length, colour in zip(np.unique(profile.decode_context_tokens), cycle(COLOURS), strict=False):
        rows = profile.decode_context_tokens == length
        requests = profile.decode_kv_tokens[rows] / length
        batch = np.geomspace(requests.min(), BEYOND * requests.max(), 100)
        estimate = profile.iteration_s((), BatchLoad(num_decode=batch, decode_kv_tokens=batch * length))
        name = f"context {length:,.0f}"
        curve = _line(name, batch, np.asarray(estimate.mean_s) * 1e3, colour)
        data += [
            {**_points(name, requests, profile.decode_itl_ms[rows], colour), "legendgroup": name},
            {**curve, "legendgroup": name, "showlegend": False},
        ]
    return {"data": data, "layout": _axes(_log("requests"), _log("ms"))}


def _passes(fitted: Sequence[FittedRole]) -> Figure:
    data = []
    for each, colour in zip(fitted, cycle(COLOURS), strict=False):
        if each.measured_s is None or each.estimated_s is None:
            continue
        step = slice(None, None, 1 + len(each.measured_s) // MOST_PASSES)
        measured_ms, estimated_ms = (
            1e3 * np.asarray(each_s)[step] for each_s in (each.measured_s, each.estimated_s)
        )
        data.append(_points(str(each.role), measured_ms, estimated_ms, colour, size=4))
    return {"data": data, "layout": _axes(_log("measured, ms"), _log("estimated, ms"))}


def _capacity(capacities: Sequence[RoleCapacity], sla: SlaTargets) -> Figure:
    """Requests per second over how many times the SLA is promised, and a mark where it is what it is."""
    data = []
    looser = np.geomspace(MULTIPLES[0], MULTIPLES[-1], PROMISES)
    for each, colour in zip(capacities, cycle(COLOURS), strict=False):
        found = [capacity(each.curve, sla.ttft_ms * times, sla.itl_ms * times) for times in looser]
        rps = [np.nan if other.unreachable or other.rps is None else other.rps for other in found]
        bound = [f"bound by {other.binding}" for other in found]
        name = str(each.role) if each.found.rps is None else f"{each.role}: {each.found.rps:.3g} requests/s"
        data.append({**_line(name, looser, rps, colour), "text": bound, "legendgroup": each.role})
        if each.found.rps is not None:
            mark = _points(name, [1.0], [each.found.rps], colour, size=11, symbol="diamond")
            data.append({**mark, "legendgroup": each.role, "showlegend": False})
    targets = f"TTFT and ITL, as multiples of {sla.ttft_ms:g} and {sla.itl_ms:g} ms"
    rate = {"title": {"text": "requests/s"}, "rangemode": "tozero"}
    ticks = {"tickvals": MULTIPLES, "ticktext": [f"{times:g}" for times in MULTIPLES]}
    return {"data": data, "layout": _axes(_log(targets) | ticks, rate)}


def _points(name: str, x: Any, y: Any, colour: str, **marker: Any) -> dict[str, Any]:
    shape = {"color": colour, "size": 7, **marker}
    return {"name": name, "x": numbers(x), "y": numbers(y), "mode": "markers", "marker": shape}


def _line(name: str, x: Any, y: Any, colour: str) -> dict[str, Any]:
    return {"name": name, "x": numbers(x), "y": numbers(y), "mode": "lines", "line": {"color": colour}}


def _log(title: str) -> dict[str, Any]:
    return {"type": "log", "dtick": "D2", "title": {"text": title}}


def _axes(x: dict[str, Any], y: dict[str, Any]) -> dict[str, Any]:
    return {"xaxis": x, "yaxis": y, "hovermode": "closest"}
