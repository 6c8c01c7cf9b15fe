"""The dashboard: all that is exported is shown, and every expression finds it on a real Prometheus."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from planner_adapters.cli import main
from planner_adapters.grafana import ROWS, config_map, dashboard_json, queries
from planner_adapters.prometheus.exported import names

T0, STEP_S, STEPS = 1_700_000_000, 15, 120
END_S = T0 + STEP_S * STEPS
NAME = re.compile(r"dynamo_planner_\w+")
UNITS = {"none", "percentunit", "reqps", "ms", "s", "h"}
"""Of those that Grafana 11.6 knows by these names; it shows others as a suffix."""
PANELS = {"row", "stat", "state-timeline", "timeseries"}
"""Kinds that it brings; `graph` and `singlestat`, as older dashboards have them, are gone from it."""
VARIABLES = {"$job": ".+", "$instance": ".+", "$__rate_interval": "1m", "$__range": "30m"}
"""Grafana's, and what it puts in their place."""


@pytest.fixture(scope="module")
def dashboard() -> dict[str, Any]:
    return dict(json.loads(dashboard_json()))


def panels(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def sent(expr: str) -> str:
    for variable, value in VARIABLES.items():
        expr = expr.replace(variable, value)
    return expr


def ask(url: str, expr: str, at_s: float) -> list[dict[str, Any]]:
    query = urllib.parse.urlencode({"query": expr, "time": at_s})
    with urllib.request.urlopen(f"{url}/api/v1/query?{query}", timeout=60) as answer:
        return list(json.load(answer)["data"]["result"])


def test_every_expression_finds_data_that_the_planner_exported(
    prometheus_with: Callable[[str], str], recording: Any, dashboard: dict[str, Any]
) -> None:
    url = prometheus_with(recording.text)
    exprs = [target["expr"] for panel in panels(dashboard) for target in panel["targets"]]
    assert len(exprs) == len(list(queries()))
    assert [expr for expr in exprs if not ask(url, sent(expr), recording.end_s)] == []


def test_figures_are_what_their_panels_say(prometheus_with: Callable[[str], str]) -> None:
    labels = '{job="planner",instance="a"}'
    text = ""
    for n in range(STEPS + 1):
        at_s, late = T0 + n * STEP_S, 600 if n > STEPS // 2 else 400
        text += f"dynamo_planner_gpu_hours{labels} {16 * n * STEP_S / 3600} {at_s}\n"
        text += f"dynamo_planner_observed_ttft_ms{labels} {late} {at_s}\n"
        text += f"dynamo_planner_sla_target_ttft_ms{labels} 500 {at_s}\n"
    by_family = sorted(text.splitlines(keepends=True), key=lambda line: line.partition("{")[0])
    url = prometheus_with("".join(by_family))
    found = {
        (panel.title, expr): float(result["value"][1])
        for panel, expr in queries()
        for result in ask(url, sent(expr), END_S)
    }
    shown = {title: value for (title, _), value in found.items()}
    assert shown["GPUs in use"] == pytest.approx(16)
    assert shown["GPU-hours"] == pytest.approx(8, rel=0.01)
    assert shown["Time within the SLA"] == pytest.approx(0.5, abs=0.01)


def test_every_series_is_shown_and_none_that_is_not_exported() -> None:
    shown = {name for _, expr in queries() for name in NAME.findall(expr)}
    twins = {f"dynamo_planner_engine_{role}_requests_per_second" for role in ("prefill", "decode")}
    assert shown == set(names()) - twins  # these are shown under their other name, with `capacity`


def test_panels_have_queries_with_ids_and_lie_side_by_side(dashboard: dict[str, Any]) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken
        assert at["x"] + at["w"] <= 24
        taken |= cells
    assert all(row.panels for row in ROWS)
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)
    for panel in panels(dashboard):
        letters = [target["refId"] for target in panel["targets"]]
        assert letters == list("ABCDEF"[: len(letters)])
        assert panel["description"]


def test_kinds_and_units_are_some_that_grafana_knows(dashboard: dict[str, Any]) -> None:
    assert {panel["type"] for panel in dashboard["panels"]} == PANELS
    assert {panel["fieldConfig"]["defaults"]["unit"] for panel in panels(dashboard)} == UNITS
    assert dashboard["schemaVersion"] == 41  # Grafana 11.6's; it migrates what is older when it is opened


def test_it_asks_the_source_that_its_reader_chooses(dashboard: dict[str, Any]) -> None:
    targets = [target for panel in panels(dashboard) for target in panel["targets"]]
    sources = {json.dumps(one["datasource"]) for one in (*panels(dashboard), *targets)}
    assert sources == {'{"type": "prometheus", "uid": "${datasource}"}'}
    assert [one["name"] for one in dashboard["templating"]["list"]] == ["datasource", "job", "instance"]


def test_the_command_prints_the_dashboard(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["grafana"]) == 0
    assert capsys.readouterr().out == dashboard_json()


def test_the_config_map_in_deploy_is_what_the_command_prints(
    project_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["grafana", "--config-map"]) == 0
    printed = capsys.readouterr().out
    assert (project_root / "deploy" / "grafana-dashboard.yaml").read_text(encoding="utf-8") == printed
    found = yaml.safe_load(printed)
    assert found["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert found["data"] == {"planner.json": dashboard_json()}
    assert len(config_map()) < 1_000_000  # etcd's limit


def test_other_commands_do_without_the_extra() -> None:
    program = (
        "import sys; sys.modules['grafana_foundation_sdk'] = None\nfrom planner_adapters.cli import main\n"
    )
    asked = "import sys; sys.exit(main(['config', 'schema']))"
    done = subprocess.run([sys.executable, "-c", program + asked], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    asked = "import sys; sys.exit(main(['grafana']))"
    done = subprocess.run([sys.executable, "-c", program + asked], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "planner grafana: a dashboard needs grafana-foundation-sdk: pip install 'planner-core[grafana]'\n"
    )
