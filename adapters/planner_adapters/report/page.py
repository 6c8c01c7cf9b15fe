"""A run as one HTML file that opens without a network."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from planner_adapters.figures import NAMES
from planner_adapters.report.builder import hold_s
from planner_adapters.report.reasons import KINDS, kind_of
from planner_adapters.report.series import Curve, Feed, Moment, Series
from planner_core import Explanation, PlannerConfig, Role

MOST_TEXT = 4_000_000
"""Characters of explanations in a page: with very many long ones, each is cut."""
POLICY = (
    "default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
)


def write_report(path: str | Path, series: Series, *, title: str = "Planner report") -> None:
    """Writes :func:`html_of` to a file."""
    Path(path).write_text(html_of(series, title=title), encoding="utf-8")


def html_of(series: Series, *, title: str = "Planner report") -> str:
    """The page: charts, figures and tables.

    It asks for nothing from outside, and its policy forbids it; strings of the run stay text, whatever they hold.
    """
    body = Template(part("page.html")).substitute(title=escape(title), live="")
    begin = "planner.show(JSON.parse(document.getElementById('data').textContent));"
    return alone(title=title, body=body, data=data_of(series), scripts=(plotly_js(), page_js(), begin))


def alone(*, title: str, body: str, data: Any, scripts: Sequence[str]) -> str:
    """A page that opens without a network. ``body`` is HTML; ``data`` is JSON in the element ``data``."""
    allowed = " ".join(f"'sha256-{_sha256(script)}'" for script in scripts)
    head = (
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}; script-src {allowed}">\n'
        f"<style>{part('page.css')}</style>"
    )
    inline = "\n".join(f"<script>{script}</script>" for script in scripts)
    element = f'<script type="application/json" id="data">{in_script(data)}</script>'
    return _framed(title=title, head=head, body=body, foot=f"{element}\n{inline}")


def live_page(*, title: str, head: str, foot: str, live: str) -> str:
    """The page of a report, to be filled by whoever serves it; all but the title is HTML."""
    body = Template(part("page.html")).substitute(title=escape(title), live=live)
    return _framed(title=title, head=head, body=body, foot=foot)


def _framed(*, title: str, head: str, body: str, foot: str) -> str:
    return Template(part("frame.html")).substitute(title=escape(title), head=head, body=body, foot=foot)


def part(name: str, of: str = "planner_adapters.report") -> str:
    """A file of a package."""
    return (files(of) / name).read_text(encoding="utf-8")


def page_js() -> str:
    """What draws the page: the run as it is told, what is in each chart, and the page around them."""
    return "\n".join(part(name) for name in ("run.js", "charts.js", "page.js"))


def plotly_js() -> str:
    """Plotly's bundle of lines and bars, which travels with this package: a quarter of the whole of plotly.js."""
    return part("plotly_js/plotly-basic.min.js")


def in_script(data: Any) -> str:
    """JSON that may stand in a script element: no string in it can end the element or begin a comment."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _sha256(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


# What page.js draws


def data_of(series: Series) -> dict[str, Any]:
    """A series as JSON data. Times are seconds since ``start_s``; curves are base64 of little-endian float32."""
    moments = [m for each in (*series.timelines.values(), *series.changes.values()) for m in each]
    longest = max(200, MOST_TEXT // max(1, len(moments)))
    return {
        "facts": facts_of(series),
        "curves": {name: _packed(curve, series.start_s) for name, curve in series.curves.items()},
        "lanes": lanes_of(series.timelines, series.start_s, longest),
        "changes": changes_of(series.changes, series.start_s, longest),
        "now": now_of(series.end_s, series.config, series.latest, series.feeds, series.totals),
    }


def lanes_of(
    timelines: Mapping[tuple[Role, str], Sequence[Moment]], start_s: float, longest: int = MOST_TEXT
) -> list[dict[str, Any]]:
    """The timelines, as columns."""
    return [
        {"role": role, "loop": loop, **_columns(m, start_s, longest)} for (role, loop), m in timelines.items()
    ]


def changes_of(
    changes: Mapping[tuple[Role, str], Sequence[Moment]], start_s: float, longest: int = MOST_TEXT
) -> list[dict[str, Any]]:
    """The changes, as columns."""
    return [{"role": role, "way": way, **_columns(m, start_s, longest)} for (role, way), m in changes.items()]


def facts_of(series: Series) -> dict[str, Any]:
    """What holds for the whole run."""
    config = series.config
    return {
        "start_s": series.start_s,
        "end_s": series.end_s - series.start_s,
        "bucket_s": series.bucket_s,
        "since_epoch": series.since_epoch,
        "skipped": series.num_skipped,
        "hold_s": 0.0 if config is None else hold_s(config),
        "roles": [] if config is None else list(config.engines),
        "about": [] if config is None else list(_about(config)),
        "kinds": KINDS,
        "names": NAMES,
    }


def _about(config: PlannerConfig) -> Sequence[str]:
    shell, sla = config.shell, config.sla
    named = [text for text in (shell.model_name, shell.namespace) if text is not None]
    promise = f"TTFT {sla.ttft_ms:g} ms, ITL {sla.itl_ms:g} ms" if config.target == "sla" else None
    budget = "no GPU budget" if config.limits.max_gpus is None else f"budget {config.limits.max_gpus} GPUs"
    advisory = "advisory: nothing is changed" if shell.advisory else None
    return [t for t in (*named, config.mode, f"target {config.target}", promise, budget, advisory) if t]


def now_of(
    at_s: float,
    config: PlannerConfig | None,
    latest: Mapping[Role, Explanation],
    feeds: Sequence[Feed],
    totals: Mapping[str, float],
) -> dict[str, Any]:
    """What is new with every tick, beside points and moments."""
    return {
        "at_s": at_s,
        "latest": [
            {"role": role, "reason": why.reason, "kind": kind_of(why.reason), "sentence": why.sentence()}
            for role, why in latest.items()
        ],
        "feeds": [{"name": feed.name, "age_s": feed.age_s, "fed": feed.fed} for feed in feeds],
        "cards": [] if config is None else [list(card) for card in cards(config, totals)],
        "times": [list(row) for row in times(totals)],
    }


def cards(config: PlannerConfig, totals: Mapping[str, float]) -> list[tuple[str, str, str]]:
    """The figures on top of the page: name, value, and what it means or lacks."""
    get = totals.get
    hours, known_s, ticks = get("gpu_s", 0.0) / 3600, get("gpu_known_s", 0.0), get("ticks", 0.0)
    observed, within = get("observed", 0.0), get("within", 0.0)
    ups, downs = (sum(get(f"{role}.{way}", 0.0) for role in config.engines) for way in ("up", "down"))
    each = ", ".join(
        f"{role} {get(f'{role}.up', 0):.0f} up {get(f'{role}.down', 0):.0f} down" for role in config.engines
    )
    if config.target != "sla":
        attained = ("Attainment", "–", f"target {config.target} promises no latency")
    elif not observed:
        attained = ("Attainment", "not known", "no latencies were observed")
    else:
        note = f"of {observed:,.0f} ticks with observed latencies; of ticks, not of requests"
        attained = ("Attainment", f"{within / observed:.2%}", note)
    return [
        attained,
        (
            "GPU-hours",
            f"{hours:,.2f}" if known_s else "not known",
            f"over {known_s / 3600:,.2f} h with known replicas",
        ),
        ("Scale events", f"{ups + downs:,.0f}", each),
        ("Ticks", f"{ticks:,.0f}", ""),
    ]


def times(totals: Mapping[str, float]) -> list[tuple[str, str, str, str, float]]:
    """Time in each reason, most first within a timeline: role, loop, reason, kind, seconds."""
    rows = []
    for name, seconds in totals.items():
        if name.count(".") == 2:
            role, loop, reason = name.split(".")
            rows.append((role, loop, reason, kind_of(reason), seconds))
    order = {str(role): place for place, role in enumerate(Role)}
    return sorted(rows, key=lambda row: (order[row[0]], row[1], -row[4]))


def _packed(curve: Curve, start_s: float) -> dict[str, str]:
    return {"at": base64_of(curve.at_s - start_s), "values": base64_of(curve.values)}


def base64_of(values: Any) -> str:
    """Numbers as little-endian float32."""
    return base64.b64encode(np.asarray(values, "<f4").tobytes()).decode()


def _columns(moments: Sequence[Moment], start_s: float, longest: int) -> dict[str, Any]:
    return {
        "at": [round(moment.at_s - start_s, 3) for moment in moments],
        "reason": [moment.reason for moment in moments],
        "kind": [kind_of(moment.reason) for moment in moments],
        "text": [cut(moment.sentence, longest) for moment in moments],
    }


def cut(text: str, longest: int) -> str:
    """The text, or its beginning."""
    return text if len(text) <= longest else text[: longest - 1] + "…"
