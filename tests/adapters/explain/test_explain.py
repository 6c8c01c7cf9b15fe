from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest

from planner_adapters.cli import main
from planner_adapters.explain import story_of, turning_points, with_config
from planner_adapters.journal import read_journal
from planner_core import ConfigError, Decision, TickInput, WorkerCounts, tick


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten minutes in which the traffic rises and falls."""
    folder = tmp_path_factory.mktemp("explain")
    rng = np.random.default_rng(3)
    rate = np.concatenate([np.full(200, 6.0), np.full(200, 40.0), np.full(200, 8.0)])
    arrivals = np.flatnonzero(rng.random(60_000) < np.repeat(rate, 100) / 100) / 100
    rows = ["arrival_s,input_tokens,output_tokens"]
    rows += [f"{at:.2f},{rng.integers(200, 3000)},{rng.integers(20, 300)}" for at in arrivals]
    (folder / "trace.csv").write_text("\n".join(rows))
    path = folder / "journal.jsonl"
    options = ["--target", "sla", "--itl-ms", "6", "--max-gpus", "12", "--startup-s", "30", "--json"]
    options += ["--engine", "llama-3.1-8b-fp8-h200", "--journal", str(path)]
    assert main(["replay", str(folder / "trace.csv"), *options]) == 0
    return path


@pytest.fixture(scope="module")
def ticks(journal: Path) -> list[tuple[TickInput, Decision]]:
    return list(read_journal(journal))


def explained(capsys: pytest.CaptureFixture[str], *arguments: Any) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["explain", *map(str, arguments), "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def check_turning_points(inputs: TickInput) -> int:
    decided = tick(inputs).replicas
    found = turning_points(inputs)
    for turned in found:
        again = tick(turned.inputs).replicas
        assert again == turned.replicas
        assert turned.changed
        assert all(again.get(role) != decided.get(role) for role in turned.changed)
    return len(found)


def test_each_value_that_is_said_to_change_the_decision_does(ticks: list[tuple[TickInput, Decision]]) -> None:
    assert sum(check_turning_points(inputs) for inputs, _ in ticks[::9]) > len(ticks[::9])


@pytest.mark.nightly
def test_each_value_that_is_said_to_change_one_of_a_thousand_decisions_does(
    ticks: list[tuple[TickInput, Decision]],
) -> None:
    dice = np.random.default_rng(0)
    found = 0
    for place in dice.integers(0, len(ticks), 1000):
        inputs, traffic = ticks[int(place)][0], ticks[int(place)][0].traffic
        counts = {role: WorkerCounts(ready=int(dice.integers(1, 9))) for role in inputs.workers}
        if traffic is not None and traffic.num_requests is not None:
            traffic = attrs.evolve(traffic, num_requests=traffic.num_requests * dice.lognormal())
        found += check_turning_points(attrs.evolve(inputs, workers=counts, traffic=traffic))
    assert found > 1000


def test_the_last_tick_is_explained_unless_another_is_asked_for(
    capsys: pytest.CaptureFixture[str], journal: Path, ticks: list[tuple[TickInput, Decision]]
) -> None:
    assert explained(capsys, journal)["tick"] == len(ticks)
    assert explained(capsys, journal, "--tick", 3)["at_s"] == ticks[2][0].now_s
    assert explained(capsys, journal, "--tick", -2)["at_s"] == ticks[-2][0].now_s
    assert explained(capsys, journal, "--at", ticks[7][0].now_s + 1)["tick"] == 8


def test_the_story_has_what_was_seen_decided_and_rejected(
    capsys: pytest.CaptureFixture[str], journal: Path, ticks: list[tuple[TickInput, Decision]]
) -> None:
    place = next(
        n
        for n, (i, d) in enumerate(ticks)
        if d.explanations["decode"].replicas != d.explanations["decode"].current
    )  # type: ignore[index]
    found = explained(capsys, journal, "--tick", place + 1)
    about = {line["about"] for line in found["story"]}
    assert {"traffic", "prefill", "decode", "seen", "decision", "rejected", "capacity"} <= about
    candidates = {each["replicas"]: each["keeps_sla"] for each in found["candidates"]["decode"]}
    assert len(candidates) >= 2
    assert found["replicas"] == found["recorded_replicas"]


def test_sizes_that_growth_ruled_out_are_said_to_keep_the_sla_while_nothing_grows(
    ticks: list[tuple[TickInput, Decision]],
) -> None:
    lines = [line for inputs, decision in ticks for line in story_of(inputs, decision).lines]
    assert any("% more by the time a replica is ready" in says for about, says in lines if about == "numbers")
    assert any(says.endswith("while the arrivals don't grow") for about, says in lines if about == "rejected")


def test_the_text_says_the_same_as_a_reader_would_want_it(
    capsys: pytest.CaptureFixture[str], journal: Path
) -> None:
    assert main(["explain", str(journal), "--tick", "5", "--what-if", "max_gpu_budget=2"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("5. tick at 25.0 s: disagg, target sla, TTFT 500 ms, ITL 6 ms")
    assert "with max_gpu_budget=2:" in text


def test_what_if_makes_the_tick_again_under_the_other_configuration(
    capsys: pytest.CaptureFixture[str], journal: Path, ticks: list[tuple[TickInput, Decision]]
) -> None:
    busiest = max(range(len(ticks)), key=lambda n: sum(ticks[n][1].replicas.values()))
    found = explained(capsys, journal, "--tick", busiest + 1, "--what-if", "max-gpu-budget=2")
    assert sum(found["replicas"].values()) > 2
    expected = tick(with_config(ticks[busiest][0], {"max_gpu_budget": 2})).replicas
    assert found["what_if"]["replicas"] == {str(role): count for role, count in expected.items()}


def test_a_configuration_that_changes_nothing_decides_the_same(
    ticks: list[tuple[TickInput, Decision]],
) -> None:
    for inputs, decision in ticks[::20]:
        assert tick(with_config(inputs, {"ttft": inputs.config.sla.ttft_ms})).replicas == decision.replicas


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"mode": "agg"}, "mode: another one has other roles"),
        ({"load_predictor": "kalman"}, "load_predictor: what another one would have learned"),
        ({"ttft_mss": 3}, "did you mean ttft_ms"),
        ({"ttft_ms": -1}, "ttft_ms = -1"),
    ],
)
def test_what_the_journal_cannot_answer_is_refused(
    ticks: list[tuple[TickInput, Decision]], changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        with_config(ticks[0][0], changes)


@pytest.mark.parametrize("which", [("--tick", "100000"), ("--tick", "0"), ("--at", "-5")])
def test_a_tick_that_is_not_there_is_one_line(
    capsys: pytest.CaptureFixture[str], journal: Path, which: tuple[str, str]
) -> None:
    assert main(["explain", str(journal), *which]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "has no tick" in error
