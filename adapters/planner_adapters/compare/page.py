"""The comparison as a page that opens without a network: Pareto plot, timeline and table for each trace."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from planner_adapters.compare.case import Case
from planner_adapters.compare.outcome import Outcome, front
from planner_adapters.compare.policies import ORACLE, PLANNER, all_policies
from planner_adapters.compare.table import HEADER, cells, notes, oracle_gpu_hours, shown
from planner_adapters.report.figures_page import COLOURS, Figure, numbers, place_of, write_figures

TICKS = (0.5, 0.8, 0.9, 0.95, 0.99, 0.999, 0.9999)
LEAST_MISSED = 1e-4
"""Share of missed requests below which points lie on the upper edge: the axis is logarithmic."""
LOAD_STEPS, LOAD_STEP_S = 240, 5.0
"""Most steps in which the load is drawn, and how long each is at least."""
WIDTH = 2.0
"""Of the plot, in GPU-hours of the run with the highest attainment."""
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "triangle-down", "pentagon", "x", "cross")
"""Beside the colours, for who can't tell these apart."""


def write_page(path: str | Path, cases: Sequence[Case], outcomes: Sequence[Outcome]) -> None:
    """Writes one HTML file."""
    sections: list[str] = []
    figures: dict[str, Figure] = {}
    for number, case in enumerate(cases):
        mine = [outcome for outcome in outcomes if outcome.trace == case.name]
        ids = f"pareto-{number}", f"timeline-{number}"
        figures |= dict(zip(ids, (_pareto(mine), _timeline(case, mine)), strict=True))
        sections.append(_section(case, mine, *ids))
    write_figures(path, figures, title="planner compare", body="\n".join(sections))


def describe(case: Case) -> str:
    """What was simulated, in a line."""
    sla, workload = case.config.sla, case.workload
    startup = ", ".join(sorted({f"{spec.startup_s:g} s" for spec in case.roles.values()}))
    return (
        f"{len(workload):,} requests in {workload.arrival_s[-1] / 3600:.2f} h; {case.config.mode}, {case.engine}; "
        f"TTFT {sla.ttft_ms:g} ms, ITL {sla.itl_ms:g} ms; a replica starts in {startup}"
    )


def _section(case: Case, outcomes: Sequence[Outcome], pareto: str, timeline: str) -> str:
    said = "".join(f"<p>{escape(note)}</p>\n" for note in notes(outcomes))
    return (
        f"<section>\n<h2>{escape(case.name)}</h2>\n<p>{escape(describe(case))}</p>\n"
        + place_of(
            pareto,
            "Attainment against GPU-hours",
            "Up and left is better. Lines: what is worth having of each policy; stars: its usual parameters. "
            "A double click shows everything.",
        )
        + place_of(
            timeline,
            "Replicas over the load",
            "Starting and draining ones count. A click into the legend shows a policy or hides it.",
            "middle",
        )
        + said
        + _table(outcomes)
        + "</section>"
    )


def _table(outcomes: Sequence[Outcome]) -> str:
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in HEADER)
    kinds = ("", "", *(' class="number"' for _ in HEADER[2:]))
    least = oracle_gpu_hours(outcomes)
    rows = "".join(
        "<tr>"
        + "".join(
            f"<td{kind}>{escape(cell)}</td>" for kind, cell in zip(kinds, cells(outcome, least), strict=True)
        )
        + "</tr>\n"
        for outcome in outcomes
    )
    return (
        '<details><summary>All runs</summary><div class="scroll" tabindex="0" role="region" aria-label="All runs">'
        f"<table><thead><tr>{head}</tr></thead>\n<tbody>{rows}</tbody></table></div></details>\n"
    )


def _styles() -> dict[str, tuple[str, str]]:
    """Colour and symbol of each policy."""
    return dict(zip(all_policies(), zip(cycle(COLOURS), cycle(SYMBOLS), strict=False), strict=False))


def _pareto(outcomes: Sequence[Outcome]) -> Figure:
    data: list[dict[str, Any]] = []
    bounds = [outcome for outcome in outcomes if outcome.figures.get("lower_bound_gpu_hours")]
    if bounds:
        bound = {
            "x": [outcome.figures["lower_bound_gpu_hours"] for outcome in bounds],
            "y": [_missed(outcome.candidate.params["attainment"]) for outcome in bounds],
        }
        data.append(
            {**bound, "name": "lower bound", "mode": "lines", "line": {"color": "--faint", "dash": "dot"}}
        )
    for policy in reversed(_styles()):  # the planner last, above others of the same figures
        data += _front(policy, outcomes)
    return {
        "data": data,
        "layout": {
            "xaxis": {"title": {"text": "GPU-hours"}, "range": [0.0, _widest(outcomes)]},
            "yaxis": {
                "title": {"text": "requests within the SLA"},
                "type": "log",
                "range": [0.0, float(np.log10(LEAST_MISSED))],
                "tickvals": [1 - share for share in TICKS],
                "ticktext": [f"{share:.4g}" for share in TICKS],
            },
            "legend": {"traceorder": "reversed"},
            "hovermode": "closest",
        },
    }


def _front(policy: str, outcomes: Sequence[Outcome]) -> Iterator[dict[str, Any]]:
    """A policy's front as a line, and its runs as points, of which the usual one is a star."""
    colour, symbol = _styles()[policy]
    mine = [outcome for outcome in outcomes if outcome.candidate.policy == policy]
    usual: dict[str, Any] = {"legendgroup": policy, "hoverinfo": "text", "name": policy, "cliponaxis": False}
    for is_default in (False, True):
        some = [outcome for outcome in mine if outcome.candidate.is_default is is_default]
        star = {"symbol": "star", "size": 15, "line": {"width": 1, "color": "--page"}}
        marker = star if is_default else {"symbol": symbol, "size": 7}
        if some:
            points = {**_points(some), **usual, "mode": "markers", "showlegend": False}
            yield {**points, "marker": {"color": colour, **marker}}
    if mine:
        # the legend shows line and symbol; the points of the front lie upon the others
        marker = {"color": colour, "symbol": symbol, "size": 7}
        line = {"color": colour, "width": 1.5}
        yield {**_points(front(mine)), **usual, "mode": "lines+markers", "line": line, "marker": marker}


def _widest(outcomes: Sequence[Outcome]) -> float:
    """GPU-hours up to which points are worth a look: a few times what was enough for the best of all."""
    best = front(outcomes)
    return min(WIDTH * best[-1].gpu_hours, 1.05 * max(outcome.gpu_hours for outcome in outcomes))


def _points(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    return {
        "x": [outcome.gpu_hours for outcome in outcomes],
        "y": [_missed(outcome.attainment) for outcome in outcomes],
        "text": [
            f"{outcome.candidate.policy} {shown(outcome.candidate.params)}<br>"
            f"{outcome.attainment:.2%}, {outcome.gpu_hours:.2f} GPU-hours"
            for outcome in outcomes
        ],
    }


def _missed(attainment: float) -> float:
    return max(1 - attainment, LEAST_MISSED)


def _timeline(case: Case, outcomes: Sequence[Outcome]) -> Figure:
    arrival_s = case.workload.arrival_s
    end_s = max(float(arrival_s[-1]), LOAD_STEP_S)
    edges = np.linspace(0, end_s, min(LOAD_STEPS, int(end_s / LOAD_STEP_S)) + 1)
    load = np.histogram(arrival_s, edges)[0] / np.diff(edges)
    unit, unit_s = ("hours", 3600) if end_s > 7200 else ("minutes", 60)
    data: list[dict[str, Any]] = [
        {
            "x": numbers(edges[:-1] / unit_s),
            "y": numbers(load),
            "name": "requests/s",
            "yaxis": "y2",
            "mode": "lines",
            "line": {"color": "--grey", "width": 0, "shape": "hv"},
            "fill": "tozeroy",
            "fillcolor": "--grey@40",
        }
    ]
    for outcome in outcomes:
        candidate = outcome.candidate
        if candidate.is_default:
            at_s, replicas = outcome.steps
            data.append(
                {
                    "x": numbers(at_s / unit_s),
                    "y": numbers(replicas),
                    "name": f"{candidate.policy} {shown(candidate.params)}",
                    "mode": "lines",
                    "line": {"color": _styles()[candidate.policy][0], "shape": "hv", "width": 1.6},
                    "visible": True if candidate.policy in (PLANNER, ORACLE) else "legendonly",
                }
            )
    drawn = [outcome.steps[1].max() for outcome in outcomes if outcome.candidate.is_default]
    whole = {"dtick": 1} if max(drawn, default=0) <= 5 else {}
    second = {"side": "right", "overlaying": "y", "showgrid": False, "tickmode": "auto"}
    return {
        "data": data,
        "layout": {
            "xaxis": {"title": {"text": unit}},
            "yaxis": {"title": {"text": "replicas"}, "rangemode": "tozero", **whole},
            "yaxis2": {"title": {"text": "requests/s"}, "rangemode": "tozero", **second},
            "hovermode": "x unified",
        },
    }
