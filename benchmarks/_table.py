"""The lines of ``closed_loop.py`` as a Markdown table, and as a plot of attainment against GPU-hours."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]

BASELINES = ("hpa-queue", "hpa-kv", "keda", "kpa", "unit")
HEADER = (
    "trace, mode, start, simulator",
    "oracle 99 %",
    "planner",
    "÷ oracle",
    "turns",
    *BASELINES,
    "cheapest as good",
    "beaten by",
    "original, best",
    "original, cheapest as good",
)


def by_cell(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Runs of each cell, in the order of the file."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        if row["policy"] != "finished":
            found.setdefault(json.dumps(row["cell"]), []).append(row)
    return found


def markdown(rows: Sequence[Row]) -> str:
    """One line per cell."""
    lines = [HEADER, ("---",) * len(HEADER)]
    lines += [cells for runs in by_cell(rows).values() if (cells := line(runs)) is not None]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def line(runs: Sequence[Row]) -> tuple[str, ...] | None:
    """What a cell came to; ``None`` before its planner has run."""
    cell = runs[0]["cell"]
    here = [run for run in runs if run["played_on"] == cell["simulator"] and run["policy"] != "oracle"]
    ours = one(here, "planner")
    oracle = next((r for r in runs if r["policy"] == "oracle" and r["params"]["attainment"] == 0.99), None)
    if ours is None:
        return None
    others = [run for run in here if run["policy"] not in ("planner", "original")]
    originals = [run for run in here if run["policy"] == "original"]
    beaten = [run for run in others if dominates(run, ours)]
    ratio = "–" if oracle is None else f"{ours['gpu_hours'] / oracle['gpu_hours']:.2f}"
    return (
        f"{cell['trace']}, {cell['mode']}, {cell['startup_s']:g} s, {cell['simulator']}",
        "–" if oracle is None else figures(oracle) + ("" if oracle["reached"] else " (not reached)"),
        f"**{figures(ours)}**",
        ratio,
        str(ours["direction_changes"]),
        *(figures(one(here, policy)) for policy in BASELINES),
        named(cheapest_as_good(others, ours)),
        ", ".join(sorted({run["policy"] for run in beaten})) or "nobody",
        named(max(originals, key=lambda run: (run["sla_attainment"], -run["gpu_hours"]), default=None)),
        named(cheapest_as_good(originals, ours)),
    )


def one(runs: Sequence[Row], policy: str) -> Row | None:
    """A policy with its usual parameters."""
    return next((run for run in runs if run["policy"] == policy and run["is_default"]), None)


def dominates(run: Row, ours: Row) -> bool:
    """More attainment for fewer GPU-hours."""
    return bool(run["sla_attainment"] > ours["sla_attainment"] and run["gpu_hours"] < ours["gpu_hours"])


def cheapest_as_good(runs: Sequence[Row], ours: Row) -> Row | None:
    """The run with the fewest GPU-hours among those with at least our attainment."""
    good = [run for run in runs if run["sla_attainment"] >= ours["sla_attainment"]]
    return min(good, key=lambda run: float(run["gpu_hours"]), default=None)


def figures(run: Row | None) -> str:
    """Attainment and GPU-hours."""
    return "–" if run is None else f"{run['sla_attainment']:.1%}, {run['gpu_hours']:.2f}"


def named(run: Row | None) -> str:
    """The same with who it was."""
    if run is None:
        return "–"
    params = " ".join(str(value) for value in run["params"].values())
    return f"{figures(run)} ({run['policy']} {params})"


def plot(rows: Sequence[Row], path: Path) -> None:
    """A panel per cell: requests that miss against GPU-hours; a star is a policy as usual, a line its front."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    panels = by_cell(rows)
    columns = min(4, len(panels))
    lines = math.ceil(len(panels) / columns)
    figure, axes = plt.subplots(lines, columns, figsize=(4 * columns, 3.2 * lines), squeeze=False)
    colours = dict(
        zip(("planner", "oracle", "original", "static", *BASELINES), plt.cm.tab10.colors, strict=False)
    )
    for axis, runs in zip(axes.flat, panels.values(), strict=False):
        cell = runs[0]["cell"]
        shown = [r for r in runs if r["played_on"] == cell["simulator"] or r["policy"] == "oracle"]
        for policy, colour in colours.items():
            mine = sorted((r for r in shown if r["policy"] == policy), key=lambda r: float(r["gpu_hours"]))
            front, best = [], -1.0
            for run in mine:
                if run["sla_attainment"] > best:
                    front.append(run)
                    best = run["sla_attainment"]
            axis.plot(*points(front), "-", color=colour, linewidth=1, label=policy)
            for is_default, mark, size in ((False, ".", 4), (True, "*", 11)):
                some = [run for run in mine if run["is_default"] is is_default]
                axis.plot(*points(some), mark, color=colour, markersize=size)
        axis.set_yscale("log")
        axis.set_ylim(1, 1e-4)
        most = [run["gpu_hours"] for run in shown if run["policy"] in ("planner", "oracle")]
        axis.set_xlim(0, 2.5 * max(most, default=1.0))
        axis.set_title(
            f"{cell['trace']}, {cell['mode']}\n{cell['startup_s']:g} s, {cell['simulator']}", fontsize=8
        )
        axis.tick_params(labelsize=7)
    for axis in axes.flat[len(panels) :]:
        axis.axis("off")
    figure.supxlabel("GPU-hours", fontsize=9, y=0.07)
    figure.supylabel("share of requests that miss the SLA", fontsize=9)
    figure.legend(
        *axes.flat[0].get_legend_handles_labels(), loc="lower center", ncols=len(colours), fontsize=8
    )
    figure.tight_layout(rect=(0.01, 0.07, 1, 1))
    figure.savefig(path, dpi=110)


def points(runs: Sequence[Row]) -> tuple[list[float], list[float]]:
    """GPU-hours, and the share that misses, at least a hundredth of a percent."""
    return [r["gpu_hours"] for r in runs], [max(1 - r["sla_attainment"], 1e-4) for r in runs]
