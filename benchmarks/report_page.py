"""How fast the report of a week of 5-s ticks opens in a browser, and how large it is.

Every figure changes at every tick, so that nothing can be left out. Time runs from the navigation: *seen* until all
charts in the first window are drawn and the page answers, *all* until every chart is. Each reading has a browser of its
own, with nothing cached. Needs playwright and a Chromium (`CHROMIUM`, by default /usr/bin/chromium).
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from runpy import run_path

from playwright.sync_api import Playwright, sync_playwright

from planner_adapters.report import series_of, write_report
from planner_core import Decision, PlannerConfig, TickInput

TICK_S = 5.0
WINDOW = {"width": 1280, "height": 900}
GOAL_SEEN_S, GOAL_MB = 3.0, 15.0
NOISE = Path(__file__).parents[1] / "tests/adapters/noise.py"


def ticks(number: int) -> Iterator[tuple[TickInput, Decision]]:
    """One decision of the planner, with other figures and reasons each time."""
    config = PlannerConfig.from_mapping(
        {"mode": "disagg", "optimization_target": "sla", "enable_load_scaling": True, "max_gpu_budget": 16}
    )
    return run_path(str(NOISE))["noisy_ticks"](config, number)


def opened(playwright: Playwright, url: str) -> tuple[float, float]:
    """Seconds until what is in the window is drawn, and until all is."""
    program = os.environ.get("CHROMIUM", "/usr/bin/chromium")
    browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
    page = browser.new_page(viewport=WINDOW)
    page.goto(url, wait_until="commit")
    page.wait_for_selector("body[data-drawn]")
    seen_ms, all_ms = (float(page.locator("body").get_attribute(f"data-{name}")) for name in ("seen", "all"))
    browser.close()
    return seen_ms / 1000, all_ms / 1000


def main() -> None:
    """Prints size and times."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--days", type=float, default=7.0, help="default: %(default)s")
    parser.add_argument("--runs", type=int, default=7, help="default: %(default)s")
    arguments = parser.parse_args()
    number = round(arguments.days * 86400 / TICK_S)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        path = Path(folder) / "report.html"
        write_report(path, series_of(ticks(number)))
        size = path.stat().st_size / 1e6
        print(f"{number:,} ticks: {size:.1f} MB (goal: < {GOAL_MB:g} MB)")
        readings = [opened(playwright, path.as_uri()) for _ in range(arguments.runs)]
    for name, times in zip(("seen", "all"), zip(*readings, strict=True), strict=True):
        goal = f" (goal: < {GOAL_SEEN_S:g} s)" if name == "seen" else ""
        print(f"{name}: median {statistics.median(times):.2f} s, {min(times):.2f} to {max(times):.2f}{goal}")
    print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
