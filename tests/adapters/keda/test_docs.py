from __future__ import annotations

import re
from pathlib import Path

import pytest

yaml = pytest.importorskip("yaml", reason="needs the extra cli")


def test_the_documented_scaled_object_lets_each_decision_through_at_once(project_root: Path) -> None:
    page = (project_root / "docs/how-to/run_with_keda.md").read_text()
    blocks = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)]
    (found,) = [block for block in blocks if block.get("kind") == "ScaledObject"]
    spec = found["spec"]
    (trigger,) = spec["triggers"]
    assert (trigger["type"], trigger["metricType"]) == ("external", "AverageValue")
    assert trigger["metadata"].keys() == {"scalerAddress", "deployment", "role"}
    assert all(isinstance(value, str) for value in trigger["metadata"].values())
    behaviour = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    for direction in ("scaleUp", "scaleDown"):
        rules = behaviour[direction]
        assert (rules["stabilizationWindowSeconds"], rules["tolerance"]) == (0, 0)
    (up,), (down,) = (behaviour[direction]["policies"] for direction in ("scaleUp", "scaleDown"))
    assert up["type"] == "Pods"
    assert up["value"] >= spec["maxReplicaCount"]
    assert (down["type"], down["value"]) == ("Percent", 100)
