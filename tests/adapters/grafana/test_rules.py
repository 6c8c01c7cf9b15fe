"""The alert rules in deploy/: promtool takes them, each fires when it should, and all ask for series that exist."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from planner_adapters.prometheus.exported import names
from planner_core import Constraint, LoadReason, ThroughputReason

HERE = Path(__file__).parent


@pytest.fixture
def manifests(project_root: Path) -> dict[str, Any]:
    text = (project_root / "deploy" / "prometheus-rules.yaml").read_text(encoding="utf-8")
    return {found["kind"]: found for found in yaml.safe_load_all(text)}


@pytest.fixture
def rules(manifests: dict[str, Any], tmp_path: Path) -> Path:
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump(manifests["PrometheusRule"]["spec"]), encoding="utf-8")
    return path


def alerts(manifests: dict[str, Any]) -> list[dict[str, Any]]:
    return [rule for group in manifests["PrometheusRule"]["spec"]["groups"] for rule in group["rules"]]


def test_promtool_takes_them(promtool: str, rules: Path) -> None:
    done = subprocess.run([promtool, "check", "rules", "--lint-fatal", rules], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_each_fires_when_it_should_and_not_otherwise(promtool: str, rules: Path) -> None:
    tests = shutil.copy(HERE / "rules_test.yaml", rules.parent)
    done = subprocess.run(
        [promtool, "test", "rules", tests], capture_output=True, text=True, cwd=rules.parent
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_is_seen_to_fire(manifests: dict[str, Any]) -> None:
    cases = yaml.safe_load((HERE / "rules_test.yaml").read_text(encoding="utf-8"))["tests"]
    fired = {
        check["alertname"] for case in cases for check in case["alert_rule_test"] if check.get("exp_alerts")
    }
    assert fired == {rule["alert"] for rule in alerts(manifests)}


def test_they_ask_for_series_and_reasons_that_there_are(manifests: dict[str, Any]) -> None:
    expressions = " ".join(rule["expr"] for rule in alerts(manifests))
    assert set(re.findall(r"dynamo_planner_\w+", expressions)) <= set(names())
    asked = set(re.findall(r'_scaling_decision="(\w+)"', expressions))
    assert asked <= {*map(str, LoadReason), *map(str, ThroughputReason)}
    (bounds,) = re.findall(r'binding_constraint=~"([\w|]+)"', expressions)
    assert set(bounds.split("|")) <= set(map(str, Constraint))


def test_the_monitor_finds_the_pod_and_its_port(manifests: dict[str, Any], project_root: Path) -> None:
    monitor = manifests["PodMonitor"]["spec"]
    deployment = yaml.safe_load((project_root / "deploy" / "deployment.yaml").read_text(encoding="utf-8"))
    pod = deployment["spec"]["template"]
    assert monitor["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    assert pod["metadata"]["labels"][monitor["jobLabel"]] == "planner"
    (container,) = pod["spec"]["containers"]
    (endpoint,) = monitor["podMetricsEndpoints"]
    assert endpoint["port"] in [port["name"] for port in container["ports"]]
