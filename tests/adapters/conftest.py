from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest

from planner_core import (
    Decision,
    FpmBatch,
    ObservedLatencies,
    PlannerConfig,
    Role,
    TickInput,
    TrafficObservation,
    WorkerCounts,
    initial_state,
    tick,
)

Ticks = Iterator[tuple[TickInput, Decision]]
HOSTILE = (
    "</script><script>alert(1)</script>",
    "<img src=https://example.org/x onerror=alert(2)>",
    "<!--<script>",
    '"><a href="javascript:alert(3)">x</a>',
    "%{y} &lt;b&gt; \u2028 \x1b[31m \U0001f600",
)


@pytest.fixture(scope="session")
def config() -> PlannerConfig:
    return PlannerConfig.from_mapping(
        {"mode": "disagg", "optimization_target": "sla", "enable_load_scaling": True, "max_gpu_budget": 16}
    )


@pytest.fixture(scope="session")
def noisy_run(config: PlannerConfig) -> Callable[..., Ticks]:
    """Ticks of ``noise.py``; ``changes`` are of the configuration."""

    def run(num_ticks: int, *, start_s: float = 1.8e9, notes: tuple[str, ...] = (), **changes: Any) -> Ticks:
        asked = attrs.evolve(config, **changes)
        return iter(_noise.noisy_ticks(asked, num_ticks, start_s=start_s, notes=notes))

    return run


@pytest.fixture(scope="session")
def known_run() -> Callable[..., Ticks]:
    """Ticks of a planner under an SLA to which everything is known, every ``tick_s``; ``keys`` are configuration."""

    def run(num_ticks: int, *, tick_s: float = 5.0, **keys: Any) -> Ticks:
        told: dict[str, Any] = {
            "optimization_target": "sla",
            "enable_load_scaling": True,
            "load_adjustment_interval_seconds": tick_s,
            "load_predictor": "constant",
            "engines": {"prefill": {"max_num_batched_tokens": 8192}, "decode": {"max_kv_tokens": 100_000}},
            "max_gpu_budget": 64,
        }
        config = PlannerConfig.from_mapping(told | keys)
        passes = {role: _passes(role) for role in config.engines}
        traffic = TrafficObservation(duration_s=180, num_requests=360, isl=1000, osl=100)
        state = initial_state(config, 0.0, fpm=passes, traffic=(traffic,) * 4)
        for number in range(1, num_ticks + 1):
            now_s = number * tick_s
            inputs = TickInput(
                config=config,
                state=state,
                now_s=now_s,
                workers={role: WorkerCounts(ready=2) for role in config.engines},
                traffic=traffic if now_s % 180 == 0 else None,
                fpm=passes,
                observed=ObservedLatencies(ttft_ms=200.0, itl_ms=20.0, request_duration_s=3.0),
            )
            decision = tick(inputs)
            yield inputs, decision
            state = decision.state

    return run


def _passes(role: Role) -> FpmBatch:
    prefills, decodes = float(role is Role.PREFILL), float(role is Role.DECODE)
    return FpmBatch(
        worker_id=[f"{role}-{n % 2}" for n in range(40)],
        wall_time_s=[0.02 + 0.005 * (n % 7) for n in range(40)],
        num_prefill=prefills,
        prefill_tokens=[500.0 * (1 + n % 7) * prefills for n in range(40)],
        num_decode=[(1.0 + n % 7) * decodes for n in range(40)],
        decode_kv_tokens=[500.0 * (1 + n % 7) * decodes for n in range(40)],
        queued_prefill_tokens=100.0 * prefills,
        queued_num_prefill=prefills,
    )


@pytest.fixture
def shown_json(capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Runs ``planner COMMAND --json …``, and gives what it prints: one line, and nothing on stderr."""
    from planner_adapters.cli import main

    def run(command: str, *arguments: object) -> Any:
        assert main([command, "--json", *map(str, arguments)]) == 0
        out, err = capsys.readouterr()
        assert err == ""
        (line,) = out.splitlines()
        return json.loads(line)

    return run


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs ``planner COMMAND …``, and gives the one line that a bad input gets, with exit code 2 and no output."""
    from planner_adapters.cli import main

    def run(command: str, *arguments: object) -> str:
        try:
            code = main([command, *map(str, arguments)])
        except SystemExit as exit_:  # argparse
            code = int(exit_.code or 0)
        out, err = capsys.readouterr()
        assert (code, out) == (2, "")
        (line,) = err.splitlines()
        assert line.startswith(f"planner {command}: ")
        return line

    return run


@pytest.fixture  # for one test each: while playwright runs, this thread has an event loop, and asyncio.run refuses
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip(
        "playwright.sync_api", reason="playwright drives the browser, and is not installed"
    )
    program = Path(os.environ.get("CHROMIUM", "/usr/bin/chromium"))
    if not program.exists():
        # A browser is 300 MB and no Python package; the pages are tested as text without one.
        pytest.skip(f"there is no browser at {program}; $CHROMIUM says where one is")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=str(program), args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def page_of(browser: Any) -> Callable[..., Any]:
    """Opens a page of some width, in a colour scheme: the page, what its console says, and what it asks for."""

    @contextmanager
    def opened(width: int, scheme: str = "light") -> Iterator[tuple[Any, list[str], list[str]]]:
        with browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme) as context:
            page, said, asked = context.new_page(), list[str](), list[str]()
            page.on("console", lambda message: said.append(message.text))
            page.on("pageerror", lambda error: said.append(str(error)))
            page.on("request", lambda request: asked.append(request.url))
            yield page, said, asked

    return opened


@pytest.fixture(scope="session")
def serious_violations() -> Callable[[Any], list[tuple[str, str]]]:
    """What axe-core finds wrong with a page's accessibility: rule, and the first element that breaks it.

    $AXE_CORE is the path of another axe.min.js than that of axe-playwright-python.
    """
    axe = pytest.importorskip("axe_playwright_python", reason="it brings axe-core, and is not installed")
    path = Path(os.environ.get("AXE_CORE", Path(axe.__file__).with_name("axe.min.js")))
    source = path.read_text(encoding="utf-8")

    def judge(page: Any) -> list[tuple[str, str]]:
        page.evaluate(source)
        found = page.evaluate("axe.run({resultTypes: ['violations']})")["violations"]
        return [(v["id"], v["nodes"][0]["html"]) for v in found if v["impact"] in ("serious", "critical")]

    return judge


@pytest.fixture
def shots(tmp_path: Path) -> Path:
    """Where screenshots go: $SCREENSHOTS, or a folder that goes away."""
    folder = Path(os.environ.get("SCREENSHOTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture
def hostile() -> tuple[str, ...]:
    return HOSTILE


def _beside(name: str) -> Any:
    """A module of this folder, which is no package."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_noise = _beside("noise")

# Real servers, and doubles of them that fail as they are told: for several shells, told in servers.py.
_servers = _beside("servers")
kube_config, kube = _servers.kube_config, _servers.kube
faults, until = _servers.faults, _servers.until
prometheus_with, prometheus_scraping = _servers.prometheus_with, _servers.prometheus_scraping
double, promtool, bound_s = _servers.double, _servers.promtool, _servers.bound_s
