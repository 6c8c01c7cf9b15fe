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

import attrs
import numpy as np
from playwright.sync_api import Playwright, sync_playwright

from planner_adapters.report import series_of, write_report
from planner_core import (
    Decision,
    LoadReason,
    ObservedLatencies,
    PlannerConfig,
    ThroughputReason,
    TickInput,
    TrafficForecast,
    TrafficObservation,
    WorkerCounts,
    initial_state,
    tick,
)

START_S, TICK_S = 1.8e9, 5.0
WINDOW = {"width": 1280, "height": 900}
GOAL_SEEN_S, GOAL_MB = 3.0, 15.0


def ticks(number: int) -> Iterator[tuple[TickInput, Decision]]:
    """One decision of the planner, with other figures and reasons each time."""
    rng = np.random.default_rng(0)
    config = PlannerConfig.from_mapping(
        {"mode": "disagg", "optimization_target": "sla", "enable_load_scaling": True, "max_gpu_budget": 16}
    )
    state = initial_state(config, START_S)
    usual = tick(TickInput(config=config, state=state, now_s=START_S + TICK_S))
    load, throughput = list(LoadReason), list(ThroughputReason)
    for place in range(1, number + 1):
        ready, drawn = int(rng.integers(1, 6)), rng.lognormal(size=8)
        whys = {
            role: attrs.evolve(
                why,
                load_reason=rng.choice(load),
                throughput_reason=rng.choice(throughput),
                current=ready,
                replicas=ready + int(rng.integers(-1, 2)),
                floor=ready,
                numbers={f"quantity_{n}_tokens": float(value) for n, value in enumerate(drawn)},
            )
            for role, why in usual.explanations.items()
        }
        forecast = TrafficForecast(
            rate_rps=9 * drawn[2], rate_std_rps=drawn[3], isl=900 * drawn[4], osl=90 * drawn[5]
        )
        found = attrs.evolve(
            usual.diagnostics,
            estimated_ttft_ms=400 * drawn[0],
            estimated_itl_ms=40 * drawn[1],
            predicted=forecast,
            roles={
                role: attrs.evolve(
                    usual.diagnostics.roles[role],
                    capacity_rps=drawn[5],
                    kv_utilisation=min(drawn[6], 1.0),
                    queued_prefill_tokens=1e4 * drawn[7],
                )
                for role in whys
            },
        )
        counts = WorkerCounts(ready=ready, starting_ages_s=(1.0,) * (place % 2), draining=place % 3)
        inputs = TickInput(
            config=config,
            state=state,
            now_s=START_S + TICK_S * place,
            workers=dict.fromkeys(config.engines, counts),
            traffic=TrafficObservation(
                duration_s=TICK_S, num_requests=50 * drawn[6], isl=1e3 * drawn[7], osl=90 * drawn[0]
            ),
            observed=ObservedLatencies(ttft_ms=300 * drawn[1], itl_ms=30 * drawn[2]),
        )
        replicas = {role: why.replicas for role, why in whys.items() if why.replicas is not None}
        yield inputs, attrs.evolve(usual, replicas=replicas, explanations=whys, diagnostics=found)


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
