"""Figures as a page that opens without a network, in the colours of a report."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any, TypeAlias

from planner_adapters.report.page import alone, base64_of, part, plotly_js

Figure: TypeAlias = dict[str, Any]
"""``data`` and ``layout`` as plotly.js takes them, of the kinds in its basic bundle: lines, bars and pies.

A colour may be a name of the style sheet, as ``--blue``, or one with an opacity in hexadecimal digits: ``--blue@2e``.
"""
COLOURS = ("--blue", "--red", "--green", "--pink", "--orange", "--olive", "--grey", "--text")
"""For things of one kind, in this order."""


def write_figures(path: str | Path, figures: Mapping[str, Figure], *, title: str, body: str) -> None:
    """Writes one HTML file: ``body`` is HTML, in which :func:`place_of` makes room for each figure."""
    html = f"<header>\n<h1>{escape(title)}</h1>\n</header>\n<main>\n{body}\n</main>\n"
    scripts = plotly_js(), part("figures.js")
    Path(path).write_text(alone(title=title, body=html, data=figures, scripts=scripts), encoding="utf-8")


def place_of(name: str, title: str, caption: str, kind: str = "high") -> str:
    """HTML for the figure of that name, with words; ``kind`` is a class of the style sheet: ``high`` or ``middle``."""
    return (
        f'<h3 id="{name}-title">{escape(title)}</h3>\n<figure><div class="chart {kind}" id="{name}" role="img" '
        f'aria-labelledby="{name}-title"></div>\n<figcaption>{escape(caption)}</figcaption></figure>\n'
    )


def numbers(values: Any) -> dict[str, str]:
    """Numbers for a figure, NaN where there is a gap: half the bytes, and more digits than a screen shows."""
    return {"dtype": "f4", "bdata": base64_of(values)}
