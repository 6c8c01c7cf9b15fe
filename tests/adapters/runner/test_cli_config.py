from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("yaml", reason="the command line is an extra: pip install 'planner-core[cli]'")
pytest.importorskip("jsonschema", reason="checks what the schema admits: pip install jsonschema")

import jsonschema

from planner_adapters.cli import main
from planner_adapters.config_file import read_settings
from planner_adapters.config_schema import config_schema
from planner_core import ConfigError, PlannerConfig
from planner_core.config import ENGINE_KEYS, KEYS

SCHEMA = jsonschema.Draft202012Validator(config_schema())


def test_a_valid_file_is_called_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "planner.yaml"
    file.write_text("mode: agg\n")
    assert main(["config", "check", str(file)]) == 0
    assert capsys.readouterr().out == f"{file}: is valid (agg, target throughput)\n"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("planner.yaml", "mode: agg\nttft: -3\nengines:\n  agg:\n    num_gpus: 0\nload_predicter: arima\n"),
        (
            "planner.json",
            '{"mode": "agg",\n"ttft": -3,\n"engines": {\n"agg": {\n"num_gpus": 0}},\n"load_predicter": "arima"}',
        ),
        (
            "planner.json",
            '{"features": {"planner": {"mode": "agg",\n"ttft": -3,\n"engines":\n{"agg":\n{"num_gpus": 0}},\n'
            '"load_predicter": "\\"x\\": {"}}}',
        ),
    ],
)
def test_every_error_is_told_at_once_with_its_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, text: str
) -> None:
    file = tmp_path / name
    file.write_text(text)
    assert main(["config", "check", str(file)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    told = {line.removeprefix(f"planner config: {file}:").split(" = ")[0] for line in err.splitlines()}
    assert told == {"2: ttft", "5: engines.agg.num_gpus", "6: load_predicter"}


def test_the_effective_configuration_is_read_back_as_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "planner.yaml"
    file.write_text("mode: agg\nttft: 300\nitl: 20\nengines: {agg: {max_kv_tokens: 100}}\n")
    assert main(["config", "effective", str(file)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("# not looked at under this target: ttft_ms, itl_ms\nmode: agg\n")
    assert "enable_throughput_scaling: false" in out
    assert "ttft" not in out.partition("\n")[2]
    again = tmp_path / "again.yaml"
    again.write_text(out)
    found = read_settings(again, environ={}).config()
    assert (found.engines, found.target, found.load, found.throughput) == (
        PlannerConfig.from_mapping({"mode": "agg", "engines": {"agg": {"max_kv_tokens": 100}}}).engines,
        "throughput",
        found.load_loop,
        None,
    )


def test_under_sla_all_keys_are_in_force(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "planner.yaml"
    file.write_text("mode: agg\noptimization_target: sla\nttft: 300\nenable_load_scaling: true\n")
    assert main(["config", "effective", "--json", str(file)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert json.loads(out)["ttft_ms"] == 300
    assert PlannerConfig.from_mapping(json.loads(out)) == read_settings(file, environ={}).config()


def test_the_schema_is_one_and_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "schema"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == config_schema()
    SCHEMA.check_schema(printed)


ANYTHING = st.one_of(
    st.none(), st.booleans(), st.integers(-10, 10**6), st.floats(-1, 1e6), st.text(max_size=5), st.just([])
)


@given(st.sampled_from([*KEYS, *ENGINE_KEYS]), st.data())
def test_the_schema_admits_a_value_where_the_parser_does(key: Any, data: st.DataObject) -> None:
    choices = st.sampled_from(key.check.choices) if key.check.choices else ANYTHING
    value = data.draw(ANYTHING | choices)
    name = data.draw(st.sampled_from([key.name, *key.aliases]))
    if not name.startswith("engines."):
        name = data.draw(st.sampled_from([name, name.replace("_", "-"), f"--{name}"]))
    admitted = not list(SCHEMA.iter_errors({name: value}))
    nested = not list(SCHEMA.iter_errors({"features": {"planner": {name: value}}}))
    assert admitted == nested
    if not key.check.admits(value):
        square = "square" in key.check.want
        assert not admitted or square or isinstance(value, float)  # 3.0 is an integer to JSON schema
    else:
        assert admitted


def test_the_schema_refuses_what_does_not_exist() -> None:
    for mapping in (
        {"ttf": 3},
        {"engines": {"agg": {"gpus": 3}}},
        {"engines": {"decoder": {"num_gpus": 1}}},
        {"features": {}},
    ):
        assert list(SCHEMA.iter_errors(mapping))
        with pytest.raises(ConfigError):
            PlannerConfig.from_mapping(mapping)


def test_a_missing_action_or_file_gets_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["config"])
    assert caught.value.code == 2
    assert main(["config", "check", str(tmp_path / "none")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 2
