from __future__ import annotations

import pickle
from typing import Any

import attrs
import pytest
from hypothesis import given

from planner_core import (
    ConfigError,
    EngineSpec,
    Limits,
    LoadScaling,
    PlannerConfig,
    QueueThresholds,
    Role,
    ShellSettings,
    SlaTargets,
    ThroughputScaling,
)
from planner_core.perf import Linear
from planner_core.predictors import Constant
from planner_core.testing import configs

DISAGG = {"prefill": EngineSpec(), "decode": EngineSpec()}


@pytest.mark.parametrize(
    ("build", "field", "value"),
    [
        (EngineSpec, "num_gpus", 0),
        (EngineSpec, "min_replicas", -1),
        (EngineSpec, "max_kv_tokens", 1.5),
        (EngineSpec, "startup_s", float("inf")),
        (SlaTargets, "ttft_ms", -500),
        (SlaTargets, "itl_ms", float("nan")),
        (SlaTargets, "quantile", 1.0),
        (LoadScaling, "interval_s", 0),
        (LoadScaling, "interval_s", -5),
        (LoadScaling, "down_sensitivity", 300),
        (LoadScaling, "step", "giant"),
        (LoadScaling, "metric_samples", True),
        (ThroughputScaling, "interval_s", 0),
        (ThroughputScaling, "predictor", "oracle"),
        (ThroughputScaling, "predictor", Constant),
        (Limits, "max_gpus", -1),
        (Limits, "max_up_replicas", 0),
        (ShellSettings, "advisory", "yes"),
        (ShellSettings, "backend", "vllmm"),
        (ShellSettings, "live_dashboard_port", 70_000),
        (Linear, "max_samples", 0),
        (Linear, "num_buckets", 15),
    ],
)
def test_a_value_that_cannot_be_meant_is_refused_with_its_name(build: Any, field: str, value: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        build(**{field: value})
    assert str(caught.value).startswith(f"{build.__name__}.{field} = {value!r}: must be ")


def test_a_field_that_does_not_exist_is_refused() -> None:
    with pytest.raises(TypeError, match="ttft"):
        SlaTargets(ttft=500)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    "wrong", [{"sla": {"ttft_ms": 5}}, {"load": 5}, {"perf": "linear"}, {"perf": Linear}]
)
def test_a_section_of_another_kind_is_refused(wrong: dict[str, Any]) -> None:
    (field,) = wrong
    with pytest.raises(ConfigError, match=rf"^PlannerConfig\.{field} = "):
        PlannerConfig(engines=DISAGG, **wrong)


@pytest.mark.parametrize("roles", [[], ["prefill", "agg"], ["prefill", "decode", "agg"]])
def test_roles_that_make_no_deployment_are_refused(roles: list[str]) -> None:
    with pytest.raises(ConfigError, match="must be prefill and decode, prefill, decode, or agg"):
        PlannerConfig(engines=dict.fromkeys(roles, EngineSpec()))


def test_a_role_that_does_not_exist_is_refused_with_those_that_do() -> None:
    with pytest.raises(ConfigError, match="'prefil' is no role: must be one of prefill, decode, agg"):
        PlannerConfig(engines={"prefil": EngineSpec()})


@pytest.mark.parametrize(
    ("mode", "roles"), [("disagg", ["decode", "prefill"]), ("prefill", ["prefill"]), ("agg", ["agg"])]
)
def test_the_mode_is_the_set_of_roles(mode: str, roles: list[str]) -> None:
    assert PlannerConfig(engines=dict.fromkeys(roles, EngineSpec())).mode == mode


def test_the_order_in_which_roles_are_given_does_not_matter() -> None:
    one = PlannerConfig(engines={"decode": EngineSpec(), "prefill": EngineSpec(num_gpus=2)})
    other = PlannerConfig(engines={Role.PREFILL: EngineSpec(num_gpus=2), Role.DECODE: EngineSpec()})
    assert one == other
    assert list(one.engines) == list(other.engines)


def test_contradictions_of_several_sections_come_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        PlannerConfig(
            engines=DISAGG,
            target="sla",
            load=LoadScaling(interval_s=60),
            throughput=ThroughputScaling(interval_s=60),
            perf={Role.PREFILL: Linear()},
        )
    assert caught.value.problems == (
        "LoadScaling.interval_s = 60 must be below ThroughputScaling.interval_s = 60",
        "PlannerConfig.perf has no model for the role decode",
    )


def test_sla_without_a_loop_is_refused() -> None:
    with pytest.raises(ConfigError, match="needs a loop"):
        PlannerConfig(engines=DISAGG, target="sla", load=None, throughput=None)


def test_target_load_without_thresholds_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"needs PlannerConfig\.thresholds"):
        PlannerConfig(engines=DISAGG, target="load")


def test_thresholds_that_would_grow_and_shrink_at_once_are_refused_both() -> None:
    with pytest.raises(ConfigError) as caught:
        QueueThresholds(
            prefill_scale_up_queue_tokens=10,
            prefill_scale_down_queue_tokens=10,
            decode_scale_up_kv_rate=0.5,
            decode_scale_down_kv_rate=0.6,
        )
    assert len(caught.value.problems) == 2


@pytest.mark.parametrize("target", ["throughput", "latency"])
def test_under_other_targets_than_sla_the_load_loop_runs_and_the_throughput_loop_does_not(
    target: Any,
) -> None:
    config = PlannerConfig(engines=DISAGG, target=target, load=None)
    assert (config.load_loop, config.throughput_loop) == (LoadScaling(), None)
    effective = config.effective()
    assert (effective.load, effective.throughput) == (LoadScaling(), None)


@given(configs())
def test_the_effective_configuration_is_its_own(config: PlannerConfig) -> None:
    effective = config.effective()
    assert effective.effective() == effective
    assert (effective.load_loop, effective.throughput_loop) == (config.load_loop, config.throughput_loop)


@given(configs())
def test_a_configuration_is_a_value(config: PlannerConfig) -> None:
    assert pickle.loads(pickle.dumps(config)) == config
    assert attrs.evolve(config) == config
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        config.target = "sla"  # type: ignore[misc]
