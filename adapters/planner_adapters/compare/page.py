"""The comparison as a page that opens without a network: Pareto plot, timeline and table for each trace."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from planner_adapters.backtest.plot import COLOURS, TRUTH, plotly
from planner_adapters.compare.case import Case
from planner_adapters.compare.outcome import Outcome, front
from planner_adapters.compare.policies import ORACLE, PLANNER, all_policies
from planner_adapters.compare.table import HEADER, cells, notes, shown

TICKS = (0.5, 0.8, 0.9, 0.95, 0.99, 0.999, 0.9999)
LEAST_MISSED = 1e-4
"""Share of missed requests below which points lie on the upper edge: the axis is logarithmic."""
LOAD_STEPS = 240
WIDTH = 2.0
"""Of the plot, in GPU-hours of the run with the highest attainment."""
SYMBOLS = {True: "star", False: "circle"}
STYLE = (
    "body{font-family:system-ui,sans-serif;margin:2em auto;max-width:75em;padding:0 1em}"
    "table{border-collapse:collapse}td,th{padding:.2em .8em;text-align:right;border-bottom:1px solid #ddd}"
    "td:first-child,th:first-child,td:nth-child(2),th:nth-child(2){text-align:left}"
)


def write_page(path: str | Path, cases: Sequence[Case], outcomes: Sequence[Outcome]) -> None:
    """Writes one HTML file; :class:`~planner_core.MissingExtraError` names the pip command where plotly is absent."""
    go = plotly()
    parts = []
    for case in cases:
        mine = [outcome for outcome in outcomes if outcome.trace == case.name]
        parts.append(f"<h2>{escape(case.name)}</h2><p>{escape(describe(case))}</p>")
        for figure in (_pareto(go, mine), _timeline(go, case, mine)):
            parts.append(
                figure.to_html(full_html=False, include_plotlyjs="inline" if len(parts) == 1 else False)
            )
        parts += [f"<p>{escape(note)}</p>" for note in notes(mine)]
        parts.append(_table(mine))
    body = "\n".join(parts)
    html = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>planner compare</title>'
        f"<style>{STYLE}</style></head>\n<body><h1>planner compare</h1>\n{body}\n</body></html>\n"
    )
    Path(path).write_text(html, encoding="utf-8")


def describe(case: Case) -> str:
    """What was simulated, in a line."""
    sla, workload = case.config.sla, case.workload
    startup = ", ".join(sorted({f"{spec.startup_s:g} s" for spec in case.roles.values()}))
    return (
        f"{len(workload):,} requests in {workload.arrival_s[-1] / 3600:.2f} h; {case.config.mode}, {case.engine}; "
        f"TTFT {sla.ttft_ms:g} ms, ITL {sla.itl_ms:g} ms; a replica starts in {startup}"
    )


def _colours() -> Mapping[str, str]:
    return dict(zip(all_policies(), cycle((*COLOURS, "#000000")), strict=False))


def _pareto(go: Any, outcomes: Sequence[Outcome]) -> Any:
    figure = go.Figure()
    for policy, colour in _colours().items():
        of_policy = [outcome for outcome in outcomes if outcome.candidate.policy == policy]
        if not of_policy:
            continue
        best = front(of_policy)
        usual: dict[str, Any] = {"legendgroup": policy, "hoverinfo": "text", "name": policy}
        figure.add_scatter(**_points(best), **usual, mode="lines", line={"color": colour, "width": 1.5})
        for is_default in (False, True):
            some = [outcome for outcome in of_policy if outcome.candidate.is_default is is_default]
            marker = {"color": colour, "symbol": SYMBOLS[is_default], "size": 14 if is_default else 6}
            figure.add_scatter(**_points(some), **usual, mode="markers", marker=marker, showlegend=False)
    bounds = [outcome for outcome in outcomes if outcome.figures.get("lower_bound_gpu_hours")]
    figure.add_scatter(
        x=[outcome.figures["lower_bound_gpu_hours"] for outcome in bounds],
        y=[_missed(outcome.candidate.params["attainment"]) for outcome in bounds],
        name="lower bound",
        mode="lines",
        line={"color": TRUTH, "dash": "dot"},
    )
    figure.update_layout(
        title={
            "text": "Attainment against GPU-hours",
            "subtitle": {"text": "lines: fronts; stars: usual parameters; double-click to see all"},
        },
        xaxis={"title": "GPU-hours", "range": [0.0, _widest(outcomes)]},
        yaxis={
            "title": "requests within the SLA",
            "type": "log",
            "range": [0.0, float(np.log10(LEAST_MISSED))],
            "tickvals": [1 - share for share in TICKS],
            "ticktext": [f"{share:.4g}" for share in TICKS],
        },
        template="plotly_white",
        height=560,
    )
    return figure


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


def _timeline(go: Any, case: Case, outcomes: Sequence[Outcome]) -> Any:
    figure = go.Figure()
    arrival_s = case.workload.arrival_s
    edges = np.linspace(0, max(float(arrival_s[-1]), 1.0), LOAD_STEPS + 1)
    load = np.histogram(arrival_s, edges)[0] / np.diff(edges)
    figure.add_scatter(
        x=edges[:-1] / 3600,
        y=load,
        name="requests/s",
        yaxis="y2",
        mode="lines",
        line={"color": TRUTH, "width": 0, "shape": "hv"},
        fill="tozeroy",
        fillcolor="rgba(120,120,120,0.25)",
    )
    colours = _colours()
    for outcome in outcomes:
        candidate = outcome.candidate
        if not candidate.is_default:
            continue
        at_s, replicas = outcome.steps
        figure.add_scatter(
            x=at_s / 3600,
            y=replicas,
            name=f"{candidate.policy} {shown(candidate.params)}",
            mode="lines",
            line={"color": colours[candidate.policy], "shape": "hv", "width": 1.5},
            visible=True if candidate.policy in (PLANNER, ORACLE) else "legendonly",
        )
    figure.update_layout(
        title={"text": "Replicas over the load", "subtitle": {"text": "starting and draining ones count"}},
        xaxis_title="hours",
        yaxis={"title": "replicas", "rangemode": "tozero"},
        yaxis2={
            "title": "requests/s",
            "side": "right",
            "overlaying": "y",
            "rangemode": "tozero",
            "showgrid": False,
            "tickmode": "auto",
        },
        legend={"x": 1.08},
        hovermode="x unified",
        template="plotly_white",
        height=460,
    )
    return figure


def _table(outcomes: Sequence[Outcome]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in HEADER)
    rows = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells(outcome)) + "</tr>\n"
        for outcome in outcomes
    )
    return f"<details><summary>All runs</summary><table><tr>{head}</tr>\n{rows}</table></details>"
