"""Takes the pictures of the gallery, each of a real run: `python docs/gallery/take.py` (some minutes).

Needs `pip install '.[cli]' matplotlib playwright nbclient ipykernel` and a Chromium (`CHROMIUM`, by default
/usr/bin/chromium).
"""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import nbformat
import numpy as np
from nbclient import NotebookClient
from playwright.sync_api import Page, sync_playwright

from planner_adapters.cli import main
from planner_adapters.grafana.build import COLOURS
from planner_adapters.journal import read_journal
from planner_adapters.report.reasons import kind_of
from planner_adapters.simulation.synthetic import working_day

HERE = Path(__file__).parent
EXAMPLES = HERE.parents[1] / "examples"
OURS, OTHER, TRUTH = "#0072b2", "#d55e00", "#555555"
ENGINE = ("--mode=agg", "--engine=llama-3.1-70b-fp8-h100")
PAGE = (
    "<body style='font:15px system-ui,sans-serif;margin:12px'>"
    "<style>td,th{padding:6px 12px;vertical-align:top}</style>"
)
QUICK = (
    "optimization_target: sla\nenable_load_scaling: true\n"
    "throughput_adjustment_interval_seconds: 30\nload_predictor: constant\n"
)
"""The tide of a day in twenty minutes asks for a slow loop that is quicker than usual."""

mpl.use("agg")
mpl.rcParams |= {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}


def notebook_outputs(name: str) -> list[dict[str, Any]]:
    """The data of all outputs, in their order."""
    notebook = nbformat.read(EXAMPLES / name, as_version=4)
    NotebookClient(notebook, timeout=600).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return [dict(output["data"]) for output in outputs if "data" in output]


def what_if(page: Page) -> None:
    """The table of a decision that a budget bound, and the sweep of that budget."""
    outputs = notebook_outputs("what_if.ipynb")
    (HERE / "budget.png").write_bytes(
        base64.b64decode(next(o["image/png"] for o in outputs if "image/png" in o))
    )
    (table,) = [o["text/html"] for o in outputs if "gpu_budget" in o.get("text/html", "")]
    page.set_content(PAGE + table)
    page.locator("table").screenshot(path=HERE / "decision.png")


def compare(page: Page, folder: Path) -> None:
    """The page of `planner compare`: its two plots, for the trace of examples/your_traffic.ipynb."""
    trace = EXAMPLES / "your_traffic.ipynb"
    cells = json.loads(trace.read_text(encoding="utf-8"))["cells"]
    made = next("".join(cell["source"]) for cell in cells if "savetxt" in "".join(cell["source"]))
    names: dict[str, Any] = {
        "np": np,
        "Path": Path,
        "mkdtemp": lambda: str(folder),
        "load_workload": lambda _: _,
    }
    exec(made.partition("workload =")[0], names)  # noqa: S102  # a cell of ours
    html, config = folder / "compare.html", folder / "planner.yaml"
    config.write_text(QUICK, encoding="utf-8")
    sla = ("--ttft-ms=1500", "--itl-ms=40", "--startup-s=45")
    assert (
        main(["compare", str(folder / "trace.csv"), *ENGINE, *sla, f"--config={config}", f"--html={html}"])
        == 0
    )
    page.goto(html.as_uri())
    page.wait_for_selector("body[data-drawn]")
    for number, name in enumerate(("compare", "fleets")):
        page.locator("figure").nth(number).screenshot(path=HERE / f"{name}.png")


def why(folder: Path) -> None:
    """A working day in two hours: the fleet, the latency that the next request would meet, and the reasons."""
    day, journal = working_day(hours=2.0, mean_rps=6.0), folder / "journal.jsonl"
    trace = folder / "day.csv"
    columns = np.column_stack([day.arrival_s, day.input_tokens, day.output_tokens])
    header = "arrival_s,input_tokens,output_tokens"
    np.savetxt(trace, columns, delimiter=",", header=header, comments="", fmt=["%.3f", "%d", "%d"])
    told = ("--target=sla", "--ttft-ms=1000", "--itl-ms=50", "--startup-s=60", "--max-gpus=64")
    assert main(["replay", str(trace), *ENGINE, *told, f"--journal={journal}", "--json"]) == 0
    ticks = list(read_journal(journal))
    minutes = np.array([inputs.now_s / 60 for inputs, _ in ticks])
    whys = [decision.explanations["agg"] for _, decision in ticks]  # type: ignore[index]
    figure, (fleet, latency, reasons) = plt.subplots(
        3, 1, figsize=(7.2, 6), sharex=True, layout="constrained", height_ratios=[3, 2, 3]
    )
    edges = np.linspace(0, minutes[-1], 121)
    load = np.histogram(day.arrival_s / 60, edges)[0] / (60 * np.diff(edges))
    requests = fleet.twinx()
    requests.fill_between(edges[:-1], load, step="post", color=TRUTH, alpha=0.2, linewidth=0)
    requests.set(ylabel="requests/s", ylim=(0, None))
    ready = [inputs.workers["agg"].ready for inputs, _ in ticks]  # type: ignore[index]
    fleet.step(minutes, [w.replicas for w in whys], where="post", color=OTHER, ls="--", label="asked for")
    fleet.step(minutes, ready, where="post", color=OURS, label="serving")
    fleet.set(ylabel="replicas", ylim=(0, None))
    fleet.legend(loc="upper left")
    estimated = [decision.diagnostics.estimated_ttft_ms or np.nan for _, decision in ticks]
    latency.plot(minutes, estimated, color=OURS, lw=0.8, label="TTFT of the next request, slowest engine")
    latency.axhline(1000, color=TRUTH, ls="--", lw=1, label="target")
    latency.set(ylabel="ms", yscale="log")
    latency.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderaxespad=0)
    seen = list(dict.fromkeys(str(w.load_reason) for w in whys))
    for row, reason in enumerate(seen):
        held = [(at, 5 / 60) for at, w in zip(minutes, whys, strict=True) if w.load_reason == reason]
        reasons.broken_barh(held, (row - 0.4, 0.8), color=COLOURS[kind_of(reason)])
    reasons.set(yticks=range(len(seen)), yticklabels=seen, xlabel="minutes")
    figure.savefig(HERE / "why.png", dpi=100)


if __name__ == "__main__":
    chromium = os.environ.get("CHROMIUM", "/usr/bin/chromium")
    with TemporaryDirectory() as name, sync_playwright() as browsers:
        browser = browsers.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1000, "height": 800})
        what_if(page)
        compare(page, Path(name))
        why(Path(name))
        browser.close()
