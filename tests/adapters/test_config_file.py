from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from planner_adapters.config_file import read_settings, read_value
from planner_core import ConfigError, PlannerConfig, Role


def config_of(
    tmp_path: Path,
    text: str | None = None,
    name: str = "planner.yaml",
    flags: dict[str, object] | None = None,
    environ: dict[str, str] | None = None,
) -> PlannerConfig:
    path = None
    if text is not None:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
    return read_settings(path, flags, environ or {}).config()


def problems_of(tmp_path: Path, text: str, name: str = "planner.yaml") -> list[str]:
    """The problems, one line each, without the folder."""
    with pytest.raises(ConfigError) as caught:
        config_of(tmp_path, text, name)
    assert all("\n" not in problem for problem in caught.value.problems)
    return [problem.replace(f"{tmp_path}/", "") for problem in caught.value.problems]


# Where keys come from


def test_nothing_at_all_gives_the_defaults(tmp_path: Path) -> None:
    assert config_of(tmp_path) == PlannerConfig.from_mapping({})


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("planner.yaml", "mode: agg\nttft: 300\nengines:\n  agg:\n    num_gpus: 2\n"),
        (
            "planner.yaml",
            "features:\n  planner:\n    mode: agg\n    ttft: 300\n    engines: {agg: {num_gpus: 2}}\n",
        ),
        ("planner.json", '{"mode": "agg", "--ttft-ms": 300, "engines": {"agg": {"num_gpus": 2}}}'),
        ("planner.json", '{\n\t"mode": "agg", "ttft": 300, "engines.agg.num_gpus": 2}'),
    ],
)
def test_yaml_and_json_say_the_same(tmp_path: Path, name: str, text: str) -> None:
    expected = PlannerConfig.from_mapping(
        {"mode": "agg", "ttft_ms": 300, "engines": {"agg": {"num_gpus": 2}}}
    )
    assert config_of(tmp_path, text, name) == expected


def test_an_empty_file_gives_the_defaults(tmp_path: Path) -> None:
    assert config_of(tmp_path, "# nothing yet\n") == PlannerConfig.from_mapping({})


def test_a_flag_wins_over_the_file_in_whatever_spelling(tmp_path: Path) -> None:
    config = config_of(tmp_path, "ttft: 300\nitl: 20\n", flags={"ttft_ms": 400, "--itl-ms": 30})
    assert (config.sla.ttft_ms, config.sla.itl_ms) == (400, 30)


def test_a_flag_may_reach_into_a_section_with_dots(tmp_path: Path) -> None:
    text = "engines: {prefill: {startup_s: 10, num_gpus: 2}}"
    config = config_of(tmp_path, text, flags={"engines.prefill.startup_s": 20})
    assert (config.engines[Role.PREFILL].startup_s, config.engines[Role.PREFILL].num_gpus) == (20, 2)


def test_the_file_wins_over_the_environment(tmp_path: Path) -> None:
    environ = {
        "DYN_NAMESPACE": "from-env",
        "PROMETHEUS_ENDPOINT": "http://localhost:9090",
        "PLANNER_PROMETHEUS_PORT": "9085",
    }
    shell = config_of(tmp_path, "namespace: from-file\n", environ=environ).shell
    assert shell.namespace == "from-file"
    assert shell.prometheus_endpoint == "http://localhost:9090"
    assert shell.planner_prometheus_port == 9085


def test_an_empty_variable_is_not_set(tmp_path: Path) -> None:
    assert config_of(tmp_path, environ={"DYN_NAMESPACE": ""}).shell.namespace is None


def test_a_bad_variable_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^\$PLANNER_PROMETHEUS_PORT: planner_prometheus_port = 'high'"):
        config_of(tmp_path, environ={"PLANNER_PROMETHEUS_PORT": "high"})


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("0.5", 0.5),
        ("true", True),
        ("null", None),
        ("arima", "arima"),
        ('"3"', "3"),
        ("a=b", "a=b"),
    ],
)
def test_a_value_on_the_command_line_is_json_where_it_can_be(text: str, value: object) -> None:
    assert read_value(text) == value


# What is refused


def test_every_problem_is_told_at_once_with_its_line(tmp_path: Path) -> None:
    text = "mode: disagg\n\nttft: -3\nload_predicter: arima\nengines:\n  prefill:\n    num_gpus: none\n"
    problems = problems_of(tmp_path, text)
    assert [problem.split(": ")[0] for problem in sorted(problems)] == [
        "planner.yaml:3",
        "planner.yaml:4",
        "planner.yaml:7",
    ]
    assert any("did you mean load_predictor?" in problem for problem in problems)


def test_lines_are_told_under_features_planner_too(tmp_path: Path) -> None:
    (problem,) = problems_of(tmp_path, "features:\n  planner:\n    mode: agg\n    itl: 0\n")
    assert problem.startswith("planner.yaml:4: itl = 0")


def test_a_problem_of_a_flag_is_not_blamed_on_the_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^ttft_ms = -1"):
        config_of(tmp_path, "itl: 20\n", flags={"ttft_ms": -1})


def test_a_contradiction_between_keys_names_the_file(tmp_path: Path) -> None:
    (problem,) = problems_of(tmp_path, "max_gpu_budget: 1\n")
    assert problem.startswith("planner.yaml")
    assert "need 2 GPUs" in problem


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("planner.yaml", "mode: agg\nttft: [1, 2\n", "planner.yaml:3: is not YAML"),
        ("planner.yaml", "a: b: c\n", "planner.yaml:1: is not YAML"),
        ("planner.yaml", "ttft: 1\nitl: 2\nttft: 3\n", "planner.yaml:3: ttft is given in line 1 already"),
        ("planner.yaml", "- mode\n", "planner.yaml: holds a list"),
        ("planner.yaml", "3: agg\n", "planner.yaml:1: 3 = 'agg'"),
        ("planner.yaml", "engines:\n  prefill: 2\n", "planner.yaml:2: engines.prefill = 2"),
        (
            "planner.yaml",
            "mode: agg\nfeatures: {planner: {mode: disagg}}\n",
            "planner.yaml: mode is 'agg' and 'disagg'",
        ),
        ("planner.yaml", "mode: !!python/object/apply:os.getcwd []\n", "planner.yaml:1: is not YAML"),
        ("planner.yaml", "a: &a {features: {planner: *a}}\n", "planner.yaml:1: a = "),
        ("planner.yaml", "&a {features: {planner: *a}}\n", "planner.yaml: holds itself"),
        ("planner.json", '{"mode": "agg",}', "planner.json:1: is not JSON"),
        ("planner.json", '{"ttft": 1, "ttft": 2}', "planner.json: ttft is given twice"),
        ("planner.json", "[" * 100_000, "planner.json: is nested too deeply"),
        ("planner.yaml", "x" * 1_000_001, "planner.yaml: is larger than 1,000,000 bytes"),
    ],
)
def test_a_file_that_is_no_mapping_gets_one_line(tmp_path: Path, name: str, text: str, words: str) -> None:
    (problem,) = problems_of(tmp_path, text, name)
    assert problem.startswith(words)


def test_a_file_that_is_not_there_or_not_text_is_named(tmp_path: Path) -> None:
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    for path, words in (
        (tmp_path / "none.yaml", "can't be read"),
        (tmp_path, "can't be read"),
        (binary, "not text"),
    ):
        with pytest.raises(ConfigError, match=words):
            read_settings(path, environ={})


def test_json_needs_no_extra_and_yaml_names_the_pip_command(tmp_path: Path) -> None:
    (tmp_path / "planner.json").write_text(json.dumps({"mode": "agg"}))
    (tmp_path / "planner.yaml").write_text("mode: agg")
    code = """
import sys
sys.modules["yaml"] = None
from planner_adapters.config_file import read_settings
from planner_core import MissingExtraError
print(read_settings(sys.argv[1] + "/planner.json").config().mode)
try:
    read_settings(sys.argv[1] + "/planner.yaml")
except MissingExtraError as error:
    print(error)
"""
    command = [sys.executable, "-P", "-c", code, str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert run.stdout.startswith("agg\n")
    assert "pip install 'planner-core[cli]'" in run.stdout
