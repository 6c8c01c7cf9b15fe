"""What the planner exports: every series when all is known, and none that isn't."""

from __future__ import annotations

import math
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
from prometheus_client.parser import text_string_to_metric_families

from planner_adapters.prometheus import MetricsOut
from planner_adapters.prometheus.exported import (
    BINDING,
    BINDING_MEANING,
    CHOICES,
    GAUGES,
    GPU_HOURS,
    GPU_HOURS_MEANING,
    PER_ENGINE,
    names,
)
from planner_core import Constraint, FpmBatch, PlannerConfig, Role, WorkerCounts


def values(metrics: MetricsOut) -> dict[str, float]:
    """Samples by name and labels."""
    return {
        sample.name + "".join(f" {key}={value}" for key, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(metrics.text())
        for sample in family.samples
    }


AGG = PlannerConfig.from_mapping({"mode": "agg"})


def test_every_series_is_there_when_all_is_known(full_metrics: MetricsOut) -> None:
    there = {name.partition(" ")[0] for name in values(full_metrics)}
    assert there == set(names())


def test_nothing_is_there_before_the_first_tick() -> None:
    assert values(MetricsOut()) == {}


def test_what_is_unknown_is_absent_and_never_zero(ticked: Any) -> None:
    metrics = MetricsOut()
    metrics.update(*ticked(AGG))
    there = {name.partition(" ")[0].removeprefix("dynamo_planner_") for name in values(metrics)}
    assert there <= {"predicted_num_decode_replicas", "load_scaling_decision", "throughput_scaling_decision"}
    assert not any(math.isnan(value) for value in values(metrics).values())


def test_the_reason_that_holds_is_one_and_the_others_zero(ticked: Any) -> None:
    metrics = MetricsOut()
    metrics.update(*ticked(AGG, 5.0, workers={"agg": WorkerCounts(ready=1)}))
    name = "dynamo_planner_load_scaling_decision"
    reasons = {key: value for key, value in values(metrics).items() if key.startswith(name)}
    assert sum(reasons.values()) == 1
    assert reasons[f"{name} {name}=no_fpm_data"] == 1


def bound(metrics: MetricsOut) -> dict[str, list[str]]:
    """The constraints that bind, by role; a role of which nothing is known isn't there."""
    found: dict[str, list[str]] = {}
    for family in text_string_to_metric_families(metrics.text()):
        for sample in family.samples:
            if sample.name == "dynamo_planner_binding_constraint":
                holds = [sample.labels[sample.name]] if sample.value else []
                found.setdefault(sample.labels["role"], []).extend(holds)
    return found


def test_the_constraint_that_binds_each_role_is_told(known_run: Callable[..., Any]) -> None:
    metrics, told = MetricsOut(), {}
    for inputs, decision in known_run(40, prefill_min_endpoint=5, max_gpu_budget=6):
        metrics.update(inputs, decision)
        told = {role: [str(why.constraint)] for role, why in decision.explanations.items() if why.constraint}
        assert bound(metrics) == {"prefill": [], "decode": []} | told
    assert told


def test_a_tick_without_a_wish_leaves_the_constraint_and_unknown_replicas_end_it(ticked: Any) -> None:
    metrics = MetricsOut()
    inputs, decision = ticked(AGG, 5.0, workers={"agg": WorkerCounts(ready=1)})
    (why,) = decision.explanations.values()
    for settled, replicas, constraint, expected in (
        (9, 8, Constraint.GPU_BUDGET, {"agg": ["gpu_budget"]}),
        (None, 8, None, {"agg": ["gpu_budget"]}),
        (8, 8, None, {"agg": []}),
        (None, None, None, {}),
    ):
        told = attrs.evolve(why, settled=settled, replicas=replicas, constraint=constraint)
        metrics.update(inputs, attrs.evolve(decision, explanations={Role.AGG: told}))
        assert bound(metrics) == expected


def test_engines_that_no_longer_report_are_gone(ticked: Any) -> None:
    metrics = MetricsOut()
    for workers in (["a", "b"], ["b"]):
        batch = FpmBatch(worker_id=workers, wall_time_s=[0.0] * len(workers), queued_prefill_tokens=7.0)
        metrics.update(*ticked(AGG, fpm={"agg": batch}))
    queued = [key for key in values(metrics) if "queued_prefill" in key]
    assert queued == ["dynamo_planner_engine_queued_prefill_tokens dp_rank=0 worker_id=b"]


def test_hostile_worker_names_stay_inside_their_label(ticked: Any) -> None:
    metrics, name = MetricsOut(), 'a"} 1\nevil_metric{x="\\'
    metrics.update(*ticked(AGG, fpm={"agg": FpmBatch(worker_id=[name], wall_time_s=[0.0])}))
    labels = [s.labels for f in text_string_to_metric_families(metrics.text()) for s in f.samples]
    assert {"worker_id": name, "dp_rank": "0"} in labels
    assert not any(key.startswith("evil") for key in values(metrics))


def test_gpu_hours_are_gpus_over_time_also_of_what_starts_and_drains(ticked: Any) -> None:
    config = PlannerConfig.from_mapping({"mode": "agg", "engines": {"agg": {"num_gpus": 4}}})
    metrics = MetricsOut()
    counts = WorkerCounts(ready=1, starting_ages_s=(5.0,), draining=1)
    for now_s in (0.0, 1800.0, 900.0, 900.0):  # a clock that goes back adds nothing
        metrics.update(*ticked(config, now_s, workers={"agg": counts}))
    assert values(metrics)["dynamo_planner_gpu_hours"] == 6.0


def test_only_this_machine_is_served_unless_asked(ticked: Any) -> None:
    with MetricsOut(port=0) as metrics:
        metrics.update(*ticked(AGG, workers={"agg": WorkerCounts(ready=2)}))
        with urllib.request.urlopen(f"http://127.0.0.1:{metrics.port}/metrics") as answer:
            assert b"dynamo_planner_num_decode_replicas 2.0" in answer.read()
        assert metrics.address == "127.0.0.1"
    assert metrics.port is None


def test_the_reference_page_is_what_the_code_says(project_root: Path) -> None:
    page = (project_root / "docs" / "reference" / "metrics.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| `dynamo_planner_")]
    assert rows == reference()


def reference() -> list[str]:
    """The rows of the page: paste them there when they change."""
    rows = [(gauge.name, gauge.meaning, "") for gauge in GAUGES]
    rows += [(GPU_HOURS, GPU_HOURS_MEANING, "")]
    rows += [(series.name, series.meaning, "`worker_id`, `dp_rank`") for series in PER_ENGINE]
    rows += [(choice.name, choice.meaning, f"`dynamo_planner_{choice.name}`") for choice in CHOICES]
    rows += [(BINDING, BINDING_MEANING, f"`role`, `dynamo_planner_{BINDING}`")]
    return [f"| `dynamo_planner_{name}` | {meaning} | {labels} |" for name, meaning, labels in rows]


def test_the_engines_page_is_what_the_code_says(project_root: Path) -> None:
    from planner_adapters.prometheus.engine_series import MEANINGS, SERIES

    page = (project_root / "docs" / "reference" / "engine_metrics.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith(("| `vllm", "| `sglang", "| `trtllm"))]
    assert rows == [
        f"| `{named.series}` | {named.since}{f' to {named.until}' if named.until else ''} | {MEANINGS[quantity].text} |"
        for known in SERIES.values()
        for quantity, series in known.items()
        for named in series
    ]


def test_without_a_port_nothing_listens() -> None:
    metrics = MetricsOut()
    assert metrics.port is None
    metrics.close()
