"""The comparison as a page that opens without a network: Pareto plot, timeline and table for each trace."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from itertools import cycle
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from planner_adapters.compare.case import Case
from planner_adapters.compare.outcome import Outcome, front
from planner_adapters.compare.policies import ORACLE, PLANNER, all_policies
from planner_adapters.compare.table import HEADER, cells, notes, shown
from planner_adapters.report.page import alone, part, plotly_js

Figure: TypeAlias = dict[str, Any]
"""``data`` and ``layout`` as plotly.js takes them; a colour may be a name of the style sheet, such as ``--blue``."""

TICKS = (0.5, 0.8, 0.9, 0.95, 0.99, 0.999, 0.9999)
LEAST_MISSED = 1e-4
"""Share of missed requests below which points lie on the upper edge: the axis is logarithmic."""
LOAD_STEPS = 240
WIDTH = 2.0
"""Of the plot, in GPU-hours of the run with the highest attainment."""
COLOURS = ("--blue", "--red", "--green", "--pink", "--orange", "--olive", "--grey", "--text")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "triangle-down", "pentagon", "x", "cross")
"""Beside the colours, for who can't tell these apart."""
STYLE = """
:root { --olive: #77721a; --load: rgba(107, 113, 120, .25); }
@media (prefers-color-scheme: dark) { :root { --olive: #c9c254; --load: rgba(154, 161, 169, .25); } }
.chart { height: 30rem; }
.chart.timeline { height: 24rem; }
"""


def write_page(path: str | Path, cases: Sequence[Case], outcomes: Sequence[Outcome]) -> None:
    """Writes one HTML file."""
    sections: list[str] = []
    figures: dict[str, Figure] = {}
    for number, case in enumerate(cases):
        mine = [outcome for outcome in outcomes if outcome.trace == case.name]
        ids = f"pareto-{number}", f"timeline-{number}"
        figures |= dict(zip(ids, (_pareto(mine), _timeline(case, mine)), strict=True))
        sections.append(_section(case, mine, *ids))
    body = "<header>\n<h1>planner compare</h1>\n</header>\n<main>\n" + "\n".join(sections) + "\n</main>\n"
    draw = part("compare.js", of="planner_adapters.compare")
    html = alone(title="planner compare", body=body, data=figures, scripts=(plotly_js(), draw), style=STYLE)
    Path(path).write_text(html, encoding="utf-8")


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
        + _figure(
            pareto,
            "Attainment against GPU-hours",
            "Up and left is better. Lines: what is worth having of each policy; stars: its usual parameters. "
            "A double click shows everything.",
        )
        + _figure(
            timeline,
            "Replicas over the load",
            "Starting and draining ones count. A click into the legend shows a policy or hides it.",
            "timeline",
        )
        + said
        + _table(outcomes)
        + "</section>"
    )


def _figure(name: str, title: str, caption: str, kind: str = "") -> str:
    return (
        f'<h3 id="{name}-title">{title}</h3>\n<figure><div class="chart {kind}" id="{name}" role="img" '
        f'aria-labelledby="{name}-title"></div>\n<figcaption>{caption}</figcaption></figure>\n'
    )


def _table(outcomes: Sequence[Outcome]) -> str:
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in HEADER)
    kinds = ("", "", *(' class="number"' for _ in HEADER[2:]))
    rows = "".join(
        "<tr>"
        + "".join(f"<td{kind}>{escape(cell)}</td>" for kind, cell in zip(kinds, cells(outcome), strict=True))
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
    data = [trace for policy in _styles() for trace in _front(policy, outcomes)]
    bounds = [outcome for outcome in outcomes if outcome.figures.get("lower_bound_gpu_hours")]
    if bounds:
        bound = {
            "x": [outcome.figures["lower_bound_gpu_hours"] for outcome in bounds],
            "y": [_missed(outcome.candidate.params["attainment"]) for outcome in bounds],
        }
        data.append(
            {**bound, "name": "lower bound", "mode": "lines", "line": {"color": "--faint", "dash": "dot"}}
        )
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
    edges = np.linspace(0, max(float(arrival_s[-1]), 1.0), LOAD_STEPS + 1)
    load = np.histogram(arrival_s, edges)[0] / np.diff(edges)
    unit, unit_s = ("hours", 3600) if edges[-1] > 7200 else ("minutes", 60)
    data: list[dict[str, Any]] = [
        {
            "x": _short(edges[:-1] / unit_s),
            "y": _short(load),
            "name": "requests/s",
            "yaxis": "y2",
            "mode": "lines",
            "line": {"color": "--grey", "width": 0, "shape": "hv"},
            "fill": "tozeroy",
            "fillcolor": "--load",
        }
    ]
    for outcome in outcomes:
        candidate = outcome.candidate
        if candidate.is_default:
            at_s, replicas = outcome.steps
            data.append(
                {
                    "x": _short(at_s / unit_s),
                    "y": _short(replicas),
                    "name": f"{candidate.policy} {shown(candidate.params)}",
                    "mode": "lines",
                    "line": {"color": _styles()[candidate.policy][0], "shape": "hv", "width": 1.6},
                    "visible": True if candidate.policy in (PLANNER, ORACLE) else "legendonly",
                }
            )
    second = {"side": "right", "overlaying": "y", "showgrid": False, "tickmode": "auto"}
    return {
        "data": data,
        "layout": {
            "xaxis": {"title": {"text": unit}},
            "yaxis": {"title": {"text": "replicas"}, "rangemode": "tozero"},
            "yaxis2": {"title": {"text": "requests/s"}, "rangemode": "tozero", **second},
            "hovermode": "x unified",
        },
    }


def _short(values: npt.NDArray[Any]) -> list[float]:
    """More digits than a screen shows, in few letters."""
    return [float(f"{value:.6g}") for value in values]
