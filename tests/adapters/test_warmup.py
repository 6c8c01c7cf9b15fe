from __future__ import annotations

import json
from pathlib import Path

import pytest

from planner_adapters.cli import main
from planner_adapters.simulation.workload import Workload
from planner_adapters.warmup import traffic_windows, warmup_traffic
from planner_core import PlannerConfig, TrafficObservation


def test_a_trace_becomes_what_a_shell_would_have_measured() -> None:
    trace = Workload(
        name="trace",
        arrival_s=[0, 10, 170, 400, 530, 545],
        input_tokens=[100, 200, 300, 50, 70, 9],
        output_tokens=[1, 2, 3, 4, 6, 9],
    )
    assert traffic_windows(trace, 180.0) == (
        TrafficObservation(duration_s=180.0, num_requests=3, isl=200.0, osl=2.0),
        TrafficObservation(duration_s=180.0, num_requests=0),
        TrafficObservation(duration_s=180.0, num_requests=2, isl=60.0, osl=5.0),
    )


def config(**changes: object) -> PlannerConfig:
    return PlannerConfig.from_mapping({"optimization_target": "sla", **changes})


def test_a_planner_without_a_trace_begins_cold() -> None:
    assert warmup_traffic(config()) == ()


def test_the_trace_that_the_configuration_names_is_read(tmp_path: Path) -> None:
    path = tmp_path / "yesterday.jsonl"
    rows = [{"timestamp": 1000 * s, "input_length": 100, "output_length": 10} for s in range(400)]
    path.write_text("\n".join(map(json.dumps, rows)))
    windows = warmup_traffic(config(load_predictor_warmup_trace=str(path)))
    assert [w.num_requests for w in windows] == [180, 180]
    assert windows[0].isl == 100


def test_a_warmup_trace_that_is_not_there_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = tmp_path / "nowhere.jsonl"
    code = main(["replay", "--target", "sla", "--set", f"load_predictor_warmup_trace={missing}"])
    assert code == 2
    assert "nowhere.jsonl" in capsys.readouterr().err
