from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from planner_core import (
    ConfigError,
    EngineSpec,
    Limits,
    LoadScaling,
    PlannerConfig,
    Role,
    SlaTargets,
    ThroughputScaling,
)
from planner_core.config import ENGINE_KEYS, KEYS, Key
from planner_core.perf import Linear
from planner_core.predictors import BY_NAME

THRESHOLDS = {
    "prefill_scale_up_queue_tokens": 8000,
    "prefill_scale_down_queue_tokens": 100,
    "decode_scale_up_kv_rate": 0.9,
    "decode_scale_down_kv_rate": 0.5,
}


def problems_of(mapping: Any) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        PlannerConfig.from_mapping(mapping)
    return caught.value.problems


def spellings(key: Key) -> list[str]:
    names = [key.name, *key.aliases]
    dashed = [name.replace("_", "-") for name in names]
    return [*names, *dashed, *(f"--{name}" for name in names), *(f"--{name}" for name in dashed)]


def another_value(key: Key) -> Any:
    """A valid value that isn't the default."""
    if key.name in THRESHOLDS:
        return THRESHOLDS[key.name]
    if key.name == "load_predictor":
        return "constant"  # the others may need a package that isn't there
    if key.check.choices:
        return next((choice for choice in key.check.choices if choice != key.default), key.default)
    if key.check.kind == "boolean":
        return not key.default
    if key.check.kind == "string":
        return "elsewhere"
    tries = (9, 2, 0.9, 0.7, 3, 16, 4)
    return next(value for value in tries if key.check.admits(value) and value != key.default)


def with_another_value(key: Key, spelling: str) -> dict[str, Any]:
    """A mapping in which the key, so spelled, has another value, and makes a difference."""
    others: dict[str, Any] = {"enable_load_scaling": True, "optimization_target": "sla", "max_gpu_budget": -1}
    others |= THRESHOLDS | {"global_planner_namespace": "all"}
    others.pop(key.name, None)
    return others | {spelling: another_value(key)}


def test_no_key_at_all_is_the_documented_default() -> None:
    config = PlannerConfig.from_mapping({})
    assert config == PlannerConfig(engines={"prefill": EngineSpec(), "decode": EngineSpec()})
    assert (config.target, config.mode, config.limits.max_gpus) == ("throughput", "disagg", 8)
    assert (config.sla.ttft_ms, config.sla.itl_ms) == (500, 50)


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.name)
def test_every_spelling_of_a_key_means_the_same(key: Key) -> None:
    meant = [PlannerConfig.from_mapping(with_another_value(key, spelling)) for spelling in spellings(key)]
    assert all(config == meant[0] for config in meant)


@pytest.mark.parametrize("key", [*KEYS, *ENGINE_KEYS], ids=lambda key: key.name)
def test_every_default_in_the_table_is_a_value_that_the_key_may_hold(key: Key) -> None:
    assert key.default is None or key.check.admits(key.default)
    assert key.meaning.endswith(".")
    assert key.check.want


def test_no_two_keys_share_a_spelling() -> None:
    names = [name for key in (*KEYS, *ENGINE_KEYS) for name in (key.name, *key.aliases)]
    assert len(names) == len(set(names))


def test_keys_may_stand_under_features_planner() -> None:
    keys = {"mode": "agg", "ttft": 200}
    assert PlannerConfig.from_mapping({"features": {"planner": keys}}) == PlannerConfig.from_mapping(keys)


def test_a_features_section_without_a_planner_is_no_empty_configuration() -> None:
    (problem,) = problems_of({"features": {"planer": {"ttft": 200}}})
    assert "must hold a section planner" in problem


def test_engines_may_be_nested_or_dotted() -> None:
    nested = PlannerConfig.from_mapping({"engines": {"decode": {"num_gpus": 4, "max_kv_tokens": 100_000}}})
    dotted = PlannerConfig.from_mapping(
        {"engines.decode.num_gpus": 4, "--engines.decode.max-kv-tokens": 100_000}
    )
    assert nested == dotted
    assert nested.engines[Role.DECODE] == EngineSpec(num_gpus=4, max_kv_tokens=100_000)


def test_flat_keys_reach_their_place() -> None:
    config = PlannerConfig.from_mapping(
        {
            "optimization_target": "sla",
            "ttft": 200,
            "itl-ms": 20,
            "sla_quantile": 0.95,
            "--adjustment-interval": 60,
            "max_throughput_scaling_replicas": 4,
            "enable_loadbased_scaling": True,
            "loadbased_adjustment_interval": 2,
            "load_scaling_down_sensitivity": 70,
            "load_step": "unit",
            "min_replicas": 2,
            "decode_min_endpoint": 3,
            "prefill_engine_num_gpu": 2,
            "max_gpu_budget": 64,
            "min_gpu_budget": 10,
            "no_operation": True,
        }
    )
    assert config.engines == {
        Role.PREFILL: EngineSpec(num_gpus=2, min_replicas=2),
        Role.DECODE: EngineSpec(min_replicas=3),
    }
    assert config.sla == SlaTargets(ttft_ms=200, itl_ms=20, quantile=0.95)
    assert config.throughput == ThroughputScaling(interval_s=60, max_step_replicas=4)
    assert config.load == LoadScaling(interval_s=2, down_sensitivity=70, step="unit")
    assert config.limits == Limits(max_gpus=64, min_gpus=10)
    assert config.shell.advisory


@pytest.mark.parametrize("no_limit", [-1, -5, None])
def test_a_negative_budget_is_no_limit(no_limit: int | None) -> None:
    config = PlannerConfig.from_mapping({"max_gpu_budget": no_limit, "min_gpu_budget": no_limit})
    assert config.limits == Limits(max_gpus=None, min_gpus=None)


def test_reports_are_turned_off_by_null() -> None:
    assert PlannerConfig.from_mapping({"report_interval_hours": None}).shell.report_interval_hours is None


def test_the_load_loop_keeps_its_settings_under_targets_that_always_run_it() -> None:
    config = PlannerConfig.from_mapping({"load_adjustment_interval": 2, "enable_load_scaling": False})
    assert config.load_loop == LoadScaling(interval_s=2)
    assert config.throughput_loop is None


def test_an_aggregated_engine_goes_by_the_keys_of_either_role() -> None:
    config = PlannerConfig.from_mapping(
        {"mode": "agg", "decode_engine_num_gpu": 4, "prefill_min_endpoint": 2}
    )
    assert config.engines == {Role.AGG: EngineSpec(num_gpus=4, min_replicas=2)}


def test_an_aggregated_engine_with_two_gpu_counts_is_refused() -> None:
    (problem,) = problems_of({"mode": "agg", "decode_engine_num_gpu": 4, "prefill_engine_num_gpu": 2})
    assert "decode_engine_num_gpu = 4 and prefill_engine_num_gpu = 2" in problem


def test_all_problems_come_at_once_and_each_names_key_value_and_mend() -> None:
    problems = problems_of(
        {
            "throughput_adjustment_interval": 0,
            "load_adjustment_interval": -5,
            "ttft": -500,
            "load_scaling_down_sensitivity": 300,
            "max_num_fpm_samples": 0,
            "load_predictor": "oracle",
            "tttft": 500,
            "fpm_sample_bucket_size": 15,
        }
    )
    assert problems == (
        "tttft = 500: there is no such key; did you mean ttft?",
        "throughput_adjustment_interval = 0: must be a finite number above 0",
        "load_adjustment_interval = -5: must be a finite number above 0",
        "ttft = -500: must be a finite number above 0",
        "load_scaling_down_sensitivity = 300: must be a finite number at least 0 and at most 100",
        "max_num_fpm_samples = 0: must be a whole number at least 1",
        f"load_predictor = 'oracle': must be one of {', '.join(BY_NAME)}",
        "fpm_sample_bucket_size = 15: must be a perfect square, such as 16, at least 1",
    )


@pytest.mark.parametrize("value", [3.7, 3.0, True, "3", [3], float("nan")])
def test_a_whole_number_is_taken_literally(value: Any) -> None:
    (problem,) = problems_of({"load_metric_samples": value})
    assert problem.startswith(f"load_metric_samples = {value!r}: must be a whole number")


@pytest.mark.parametrize("value", [True, "500", float("nan"), float("inf"), 10**400, None, {"p95": 500}])
def test_a_number_is_finite_and_no_text(value: Any) -> None:
    (problem,) = problems_of({"ttft_ms": value})
    assert problem.startswith("ttft_ms = ")
    assert problem.endswith("must be a finite number above 0")


@pytest.mark.parametrize("value", [0, 1, "yes", None])
def test_a_switch_is_true_or_false(value: Any) -> None:
    assert problems_of({"advisory": value}) == (f"advisory = {value!r}: must be true or false",)


def test_one_key_in_two_spellings_must_agree() -> None:
    assert PlannerConfig.from_mapping({"ttft": 300, "--ttft-ms": 300}).sla.ttft_ms == 300
    assert problems_of({"ttft": 300, "--ttft-ms": 400}) == (
        "ttft = 300 and --ttft-ms = 400: they mean the same, so they must agree; leave one out",
    )


def test_a_minimum_that_is_said_flat_and_under_engines_must_agree() -> None:
    (problem,) = problems_of({"decode_min_endpoint": 1, "engines": {"decode": {"min_replicas": 2}}})
    assert "decode_min_endpoint = 1 and engines.decode.min_replicas = 2" in problem


def test_a_role_that_the_mode_has_not_is_refused() -> None:
    (problem,) = problems_of({"mode": "prefill", "engines": {"decode": {"num_gpus": 2}}})
    assert problem == (
        "engines.decode.num_gpus = 2: mode = 'prefill' has no decode engines, only prefill; "
        "change one of the two"
    )


def test_sla_without_a_loop_is_refused() -> None:
    assert problems_of({"optimization_target": "sla", "enable_throughput_scaling": False}) == (
        "optimization_target = 'sla' needs a loop: enable_load_scaling, enable_throughput_scaling or both",
    )


def test_a_fast_loop_as_slow_as_the_slow_one_is_refused_and_defaults_are_named_as_such() -> None:
    both = {"optimization_target": "sla", "enable_load_scaling": True}
    assert problems_of(both | {"load_adjustment_interval": 180}) == (
        "load_adjustment_interval = 180 must be below "
        "throughput_adjustment_interval_seconds = 180 (the default)",
    )


def test_intervals_of_a_loop_that_is_off_are_not_compared() -> None:
    PlannerConfig.from_mapping({"load_adjustment_interval": 300})


def test_minimums_beyond_the_budget_are_refused_though_the_budget_is_the_default() -> None:
    assert problems_of({"prefill_engine_num_gpu": 8, "decode_engine_num_gpu": 4}) == (
        "the minimums need 12 GPUs (1 prefill × 8 + 1 decode × 4), max_gpu_budget = 8 (the default): "
        "raise the budget or lower the minimums",
    )


def test_minimums_above_maximums_are_refused_in_the_words_of_the_file() -> None:
    assert problems_of(
        {"min_replicas": 5, "engines": {"decode": {"max_replicas": 2}}, "max_gpu_budget": -1}
    ) == ("min_replicas = 5 is above engines.decode.max_replicas = 2: lower one",)
    assert problems_of({"min_gpu_budget": 9}) == (
        "min_gpu_budget = 9 is above max_gpu_budget = 8 (the default): lower one",
    )


def test_target_load_names_all_thresholds_that_are_missing() -> None:
    mapping = {"optimization_target": "load", "decode_scale_up_kv_rate": 0.9}
    assert problems_of(mapping) == (
        "optimization_target = 'load' needs prefill_scale_up_queue_tokens, prefill_scale_down_queue_tokens, "
        "decode_scale_down_kv_rate",
    )


def test_thresholds_that_would_grow_and_shrink_at_once_are_refused() -> None:
    mapping = THRESHOLDS | {"optimization_target": "load", "decode_scale_down_kv_rate": 0.9}
    (problem,) = problems_of(mapping)
    assert problem.startswith("decode_scale_down_kv_rate = 0.9 must be below decode_scale_up_kv_rate = 0.9")


def test_a_global_planner_needs_its_namespace() -> None:
    assert problems_of({"environment": "global-planner"}) == (
        "environment = 'global-planner' needs global_planner_namespace",
    )


def test_what_follows_from_another_problem_is_not_told_twice() -> None:
    mapping = {
        "optimization_target": "sla",
        "enable_load_scaling": True,
        "throughput_adjustment_interval": 2,
        "load_adjustment_interval": "fast",
    }
    assert problems_of(mapping) == ("load_adjustment_interval = 'fast': must be a finite number above 0",)


@pytest.mark.parametrize("whatever", [None, [], "mode: agg", 3])
def test_what_is_no_mapping_is_refused_in_one_line(whatever: Any) -> None:
    (problem,) = problems_of(whatever)
    assert problem == f"the configuration is {whatever!r}: must be a mapping of keys to values"


def test_keys_that_are_no_text_are_refused() -> None:
    assert problems_of({True: 5}) == ("True = 5: keys are text",)  # YAML reads `on: 5` so


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
names = st.sampled_from([key.name for key in (*KEYS, *ENGINE_KEYS)] + ["engines", "features"]) | st.text(
    max_size=9
)


def config_or_error(mapping: dict[str, Any]) -> PlannerConfig | ConfigError:
    try:
        return PlannerConfig.from_mapping(mapping)
    except ConfigError as error:
        return error


@given(st.dictionaries(names, anything, max_size=8))
def test_whatever_a_file_holds_gives_a_configuration_or_problems_of_one_line(mapping: dict[str, Any]) -> None:
    outcome = config_or_error(mapping)
    if isinstance(outcome, ConfigError):
        assert outcome.problems
        assert not any("\n" in problem for problem in outcome.problems)


@given(st.lists(st.sampled_from(KEYS), max_size=12))
def test_a_configuration_from_keys_says_itself_in_keys(chosen: list[Key]) -> None:
    mapping = THRESHOLDS | {"global_planner_namespace": "all", "max_gpu_budget": -1}
    config = config_or_error(mapping | {key.name: another_value(key) for key in chosen})
    assume(isinstance(config, PlannerConfig))
    assert isinstance(config, PlannerConfig)
    assert PlannerConfig.from_mapping(config.to_mapping()) == config


def test_what_no_key_can_say_is_named() -> None:
    config = PlannerConfig(engines={"agg": EngineSpec()}, perf={"agg": Linear()})
    with pytest.raises(ConfigError, match=r"^PlannerConfig\.perf = .*: no keys say this"):
        config.to_mapping()
