"""The pages in a browser: of each command that makes one, and the dashboard, light and dark, wide and narrow."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("aiohttp", reason="the dashboard is served by aiohttp, which is not installed")

from planner_adapters.cli import main
from planner_adapters.compare import case_of, compare, write_page
from planner_adapters.config_file import Settings
from planner_adapters.dashboard import Dashboard
from planner_adapters.report import series_of, write_report
from planner_adapters.simulation.deployment import engine_of, plan_deployment
from planner_adapters.simulation.workload import Workload
from planner_core import PlannerConfig

Run = Callable[..., Any]
BOUND_S = 60.0
NUM_TICKS = 24
DRAWN = "body[data-drawn]:not([data-busy])"


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three policies on five minutes of traffic, in which it comes and goes."""
    settings = Settings(values={"mode": "agg", "optimization_target": "sla", "enable_load_scaling": True})
    deployment = plan_deployment(settings, engine_of(name="llama-3.1-70b-fp8-h100"), startup_s=10.0)
    workload = Workload(
        name="</script><script>alert(1)</script>",
        arrival_s=300 * np.linspace(0.0, 1.0, 3000) ** 0.5,
        input_tokens=np.full(3000, 1000),
        output_tokens=np.full(3000, 50),
    )
    case = case_of(workload, deployment)
    with ThreadPoolExecutor(1) as executor:
        outcomes = compare([case], executor, policies=("planner", "hpa-queue", "static"))
    path = tmp_path_factory.mktemp("compare") / "compare.html"
    write_page(path, [case], outcomes)
    return path


def forecast_page(folder: Path, page: Path) -> list[str]:
    """Four days, of which some hours aren't known."""
    hours = np.arange(96)
    load = 100 + 60 * np.sin(hours * 2 * np.pi / 24) + 10 * np.cos(3 * hours)
    rows = [f"{1.8e9 + 3600 * hour:.0f},{load[hour]:.1f}" for hour in hours if not 40 <= hour < 46]
    (folder / "&lt;b&gt;days.csv").write_text("\n".join(["t_s,requests", *rows]))
    return [
        "backtest",
        str(folder / "&lt;b&gt;days.csv"),
        "--predictors=kalman,constant",
        f"--plot={page}",
        "--json",
    ]


def profile_page(folder: Path, page: Path) -> list[str]:
    """An engine that was measured at three contexts."""
    batch, context = (grid.ravel() for grid in np.meshgrid([1, 4, 16, 64, 256], [500, 2000, 8000]))
    engine = {
        "prefill_isl": [128, 1024, 4096, 16384],
        "prefill_ttft": [12.0, 25.0, 90.0, 440.0],
        "prefill_thpt_per_gpu": [10667, 40960, 45511, 37236],
        "x_kv_usage": list(batch * context / 2.1e6),
        "y_context_length": context.tolist(),
        "z_itl": list(6 + 0.05 * batch + 1e-5 * batch * context),
        "max_kv_tokens": [2_100_000],
    }
    (folder / "engine.json").write_text(json.dumps(engine))
    return ["profile", str(folder / "engine.json"), "--itl-ms=20", f"--plot={page}", "--json"]


PLOTS = {"backtest": forecast_page, "profile": profile_page}


@pytest.fixture(params=["report", "dashboard", "compare", "backtest", "profile"])
def opened(
    request: pytest.FixtureRequest,
    noisy_run: Run,
    config: PlannerConfig,
    hostile: tuple[str, ...],
    tmp_path: Path,
) -> Iterator[tuple[str, str]]:
    """A page's name and address."""
    name, ticks = request.param, list(noisy_run(NUM_TICKS, notes=hostile))
    if name == "compare":
        yield name, request.getfixturevalue("comparison").as_uri()
    elif name in PLOTS:
        assert main(PLOTS[name](tmp_path, tmp_path / "page.html")) == 0
        yield name, (tmp_path / "page.html").as_uri()
    elif name == "report":
        write_report(tmp_path / "report.html", series_of(ticks))
        yield name, (tmp_path / "report.html").as_uri()
    else:
        with Beside(config) as beside:
            for tick in ticks:
                beside.update(*tick)
            yield name, f"http://127.0.0.1:{beside.port}/"


def test_every_page_can_be_read_by_everybody(
    opened: tuple[str, str],
    page_of: Callable[..., Any],
    serious_violations: Callable[[Any], Any],
    shots: Path,
) -> None:
    name, url = opened
    for width in (1280, 390):
        for scheme in ("light", "dark"):
            with page_of(width, scheme) as (page, said, _):
                page.goto(url)
                page.wait_for_selector(DRAWN)
                page.screenshot(path=shots / f"{name}_{width}_{scheme}.png", full_page=True)
                assert page.evaluate("document.documentElement.scrollWidth") <= width
                for details in page.locator("details").all():
                    details.evaluate("each => { each.open = true; }")
                    details.locator("td").first.wait_for()
                assert serious_violations(page) == []
                assert said == []


def test_the_dashboard_keeps_up_with_the_ticks(
    noisy_run: Run, config: PlannerConfig, page_of: Callable[..., Any]
) -> None:
    hostile = ("worker <img src=x onerror=alert(2)> </script> is silent",)
    ticks = list(noisy_run(40, notes=hostile))
    with Beside(config) as beside:
        for tick in ticks[:30]:
            beside.update(*tick)
        with page_of(1280, "dark") as (page, said, asked):
            page.goto(f"http://127.0.0.1:{beside.port}/")
            page.wait_for_selector("body[data-drawn]")
            for number, tick in enumerate(ticks[30:], 1):
                beside.update(*tick)
                page.wait_for_selector(f"body[data-ticks='{number}']", timeout=1000 * BOUND_S)
            page.wait_for_selector("body[data-drawn]:not([data-busy])")
            says = {why.sentence() for why in ticks[-1][1].explanations.values()}
            assert set(page.locator("#latest p").all_text_contents()) == says
            page.evaluate("scrollTo(0, document.body.scrollHeight)")
            assert page.locator("#latest p").first.evaluate("p => p.getBoundingClientRect().top") >= 0
            page.wait_for_function(  # the lines grow with the ticks
                """() => {
                    const chart = document.getElementById('capacity');
                    const line = chart.querySelector('path.js-line').getBBox();
                    return (line.x + line.width) / chart._fullLayout._size.w > 0.95;
                }"""
            )
            assert page.locator("img").count() == 0
            here = (f"http://127.0.0.1:{beside.port}/", "data:", "blob:")
            assert [url for url in asked if not url.startswith(here)] == []
            assert said == []


class Beside:
    """A dashboard whose event loop runs in a thread: playwright, in this one, doesn't let a loop turn."""

    def __init__(self, config: PlannerConfig) -> None:
        self._dashboard = Dashboard(config, port=0)
        self._stop = asyncio.Event()

    def __enter__(self) -> Beside:
        ready = threading.Event()

        async def serve() -> None:
            self._loop = asyncio.get_running_loop()
            async with self._dashboard:
                self.port = self._dashboard.port
                ready.set()
                await self._stop.wait()

        self._thread = threading.Thread(target=lambda: asyncio.run(serve()))
        self._thread.start()
        assert ready.wait(BOUND_S)
        return self

    def update(self, *tick: Any) -> None:
        self._loop.call_soon_threadsafe(self._dashboard.update, *tick)

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(BOUND_S)
