from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from planner_adapters.config_file import read_settings
from planner_adapters.dynamo.profiles import ProfileError, load_profile
from planner_adapters.prior import with_prior
from planner_adapters.simulation.deployment import engine_of, plan_deployment
from planner_core import ConfigError, PlannerConfig, Role
from planner_core.perf import BatchLoad, Blended, Linear, Profiled, Roofline

PREFILL = {"prefill_isl": [128, 1024, 4096, 16384], "prefill_ttft": [12.0, 25.0, 90.0, 440.0]}
DECODE = {
    "x_kv_usage": [0.001, 0.064, 0.512, 0.004, 0.128, 0.512],
    "y_context_length": [1000.0, 1000.0, 1000.0, 4000.0, 4000.0, 4000.0],
    "z_itl": [6.0, 10.0, 40.0, 6.2, 11.0, 27.0],
    "max_kv_tokens": [1_000_000],
}


@pytest.fixture(autouse=True)
def _nothing_lies_about(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a profile."""
    folder = tmp_path / "profiles"
    folder.mkdir()
    (folder / "prefill_raw_data.json").write_text(json.dumps(PREFILL))
    (folder / "decode_raw_data.json").write_text(json.dumps(DECODE))
    return folder


def config(**keys: Any) -> PlannerConfig:
    return PlannerConfig.from_mapping({"optimization_target": "sla", **keys})


@pytest.mark.parametrize("mode", ["rapid", "thorough"])
def test_a_profile_that_is_there_is_the_prior_and_tells_the_kv_capacity(folder: Path, mode: str) -> None:
    found = with_prior(config(profile_results_dir=str(folder), pre_deployment_sweeping_mode=mode))
    assert found.perf == Blended(prior=load_profile(folder))
    assert {spec.max_kv_tokens for spec in found.engines.values()} == {1_000_000}


def test_what_the_configuration_says_of_the_kv_capacity_stays(folder: Path) -> None:
    said = config(profile_results_dir=str(folder), engines={"decode": {"max_kv_tokens": 5}})
    assert with_prior(said).engines[Role.DECODE].max_kv_tokens == 5
    assert with_prior(said).engines[Role.PREFILL].max_kv_tokens == 1_000_000


def test_the_regression_keeps_its_settings(folder: Path) -> None:
    found = with_prior(
        config(profile_results_dir=str(folder), max_num_fpm_samples=32, fpm_sample_bucket_size=9)
    )
    assert isinstance(found.perf, Blended)
    assert (found.perf.max_samples, found.perf.num_buckets) == (32, 9)


def test_mode_none_leaves_everything_to_live_passes(folder: Path) -> None:
    said = config(profile_results_dir=str(folder), pre_deployment_sweeping_mode="none", gpu_type="h100")
    assert with_prior(said, load_profile(folder)) == said
    assert said.perf == Linear()


def test_thorough_needs_a_measured_profile_where_the_sla_decides() -> None:
    for keys in ({}, {"gpu_type": "h100", "model_parameters_billions": 8}):
        with pytest.raises(
            ConfigError, match=r"'thorough' needs a profile in profile_results_dir: .*no such"
        ):
            with_prior(config(pre_deployment_sweeping_mode="thorough", **keys))
    thresholds = PlannerConfig.from_mapping({"pre_deployment_sweeping_mode": "thorough"})
    assert with_prior(thresholds) == thresholds


def test_rapid_without_profile_or_data_sheet_is_what_it_was() -> None:
    assert with_prior(config()) == config()


def test_rapid_models_what_gpu_and_size_tell() -> None:
    found = with_prior(
        config(
            gpu_type="h200",
            model_parameters_billions=70.6,
            model_weight_bits=8,
            decode_engine_num_gpu=4,
            prefill_engine_num_gpu=2,
        )
    )
    for role, num_gpus in ((Role.PREFILL, 2), (Role.DECODE, 4)):
        prior = Roofline.of(gpu="h200", num_gpus=num_gpus, num_parameters=70.6e9, bytes_per_parameter=1)
        model = found.perf_model(role)
        assert isinstance(model, Blended)
        assert model.prior == prior
        assert model.iteration_s(model.init(), BatchLoad(num_decode=1.0)).mean_s > 0


@pytest.mark.parametrize(
    ("name", "billions", "active", "weight_bytes"),
    [
        ("meta-llama/Llama-3.1-8B-Instruct", 8, 8, 2),
        ("nvidia/Llama-3.1-70B-Instruct-FP8", 70, 70, 1),
        ("Qwen/Qwen3-30B-A3B", 30, 3, 2),
        ("TheBloke/Llama-2-13B-AWQ", 13, 13, 0.5),
        ("qwen2.5-0.5b", 0.5, 0.5, 2),
    ],
)
def test_the_name_of_a_model_tells_its_size(
    name: str, billions: float, active: float, weight_bytes: float
) -> None:
    model = with_prior(config(gpu_type="b200", model_name=name)).perf_model(Role.DECODE)
    assert isinstance(model, Blended)
    assert isinstance(model.prior, Roofline)
    assert model.prior.num_parameters == billions * 1e9
    assert model.prior.active_parameters == active * 1e9
    assert model.prior.weight_bytes == billions * 1e9 * weight_bytes


@pytest.mark.parametrize("mode", ["agg", "disagg"])
def test_a_replay_of_a_profile_tells_the_planner_of_it_unless_it_is_not_to_know(
    folder: Path, mode: str
) -> None:
    engine = engine_of(profile=folder)
    for sweeping, expected in (("rapid", Blended(prior=load_profile(folder))), ("none", Linear())):
        keys = {"optimization_target": "sla", "mode": mode, "pre_deployment_sweeping_mode": sweeping}
        assert plan_deployment(read_settings(flags=keys, environ={}), engine).config.perf == expected
    builtin = plan_deployment(read_settings(flags={"mode": mode}, environ={}), engine_of())
    assert builtin.config.perf == Linear()


def test_a_gpu_that_nobody_knows_is_an_error() -> None:
    with pytest.raises(ConfigError, match="gpu = 'h1000'"):
        with_prior(config(gpu_type="h1000", model_parameters_billions=8))


def test_half_a_profile_is_an_error_in_every_mode(folder: Path) -> None:
    (folder / "decode_raw_data.json").unlink()
    for mode in ("rapid", "thorough"):
        with pytest.raises(ProfileError, match="there is no decode half"):
            with_prior(config(profile_results_dir=str(folder), pre_deployment_sweeping_mode=mode))


def test_one_json_file_may_hold_both_halves(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "both.json").write_text(json.dumps(PREFILL | DECODE))
    assert load_profile(tmp_path / "both.json") == load_profile(folder)
    assert isinstance(load_profile(folder), Profiled)


def test_points_of_an_empty_batch_are_left_out(folder: Path) -> None:
    more = {key: [0.0 if key == "x_kv_usage" else 4000.0, *DECODE[key]] for key in list(DECODE)[:3]}
    before = load_profile(folder)
    (folder / "decode_raw_data.json").write_text(json.dumps(DECODE | more))
    assert load_profile(folder) == before
