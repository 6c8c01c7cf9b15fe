"""The whole way: real API server, real Prometheus, engines behind /metrics, and the command line."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("yaml", reason="the command line is an extra: pip install 'planner-core[cli]'")
pytest.importorskip("lightkube", reason="needs the extra kubernetes")
pytest.importorskip("aiohttp", reason="needs the extra prometheus")

from planner_adapters.journal import read_journal
from planner_core import tick

TTFT_MS, ITL_MS = 2000.0, 14.0
RATE = 14.0
"""Requests per second: one prefill engine does 10 at most, one decode engine 9.5 within the ITL."""
CONFIG = f"""
mode: disagg
backend: vllm
optimization_target: sla
ttft: {TTFT_MS}
itl: {ITL_MS}
enable_load_scaling: true
load_adjustment_interval_seconds: 1
load_stabilisation_seconds: 3
load_scaling_down_sensitivity: 100
throughput_adjustment_interval_seconds: 5
load_predictor: constant
pre_deployment_sweeping_mode: none
max_gpu_budget: 16
live_dashboard_port: 0
"""


def test_a_graph_grows_with_its_load_and_shrinks_after_it(
    graph: Any, prometheus: str, planner: Callable[..., Any], tmp_path: Path
) -> None:
    """A planner that is stopped in between goes on where it was, and its journal replays to the same decisions."""
    config, journal = tmp_path / "planner.yaml", tmp_path / "journal"
    config.write_text(f"{CONFIG}prometheus_endpoint: {prometheus}\n")
    options = ("--config", config, "--journal", journal, "--state", tmp_path / "state", "--health", "off")

    def keeps_the_sla() -> bool:
        ttft_ms, itl_ms = graph.engines.latencies_ms()
        return ttft_ms <= TTFT_MS and itl_ms <= ITL_MS and min(graph.ready.values()) > 1

    with planner(*options) as log:
        graph.engines.set_rate(RATE)
        graph.until(keeps_the_sla, lambda: (graph.ready, graph.engines.latencies_ms(), log()))
    grown = graph.replicas()
    graph.engines.set_rate(0.0)
    with planner(*options) as log:
        graph.until(
            lambda: graph.replicas() == {"prefill": 1, "decode": 1} == graph.ready,
            lambda: (graph.ready, log()),
        )
    assert min(grown.values()) > 1

    made = list(read_journal(journal))
    assert [decision for _, decision in made] == [tick(inputs) for inputs, _ in made]
    assert all(inputs.state == before.state for (_, before), (inputs, _) in pairwise(made))
