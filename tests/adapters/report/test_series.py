from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest

from planner_adapters.cli import main
from planner_adapters.journal import JournalError, read_journal
from planner_adapters.report import series_of, skim_journal
from planner_core import Decision, Role, TickInput

Run = Callable[..., Any]


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six minutes in which the traffic rises and falls."""
    folder = tmp_path_factory.mktemp("report")
    rng = np.random.default_rng(3)
    arrivals = np.sort(np.concatenate([rng.uniform(0, 360, 1500), rng.uniform(90, 200, 3500)]))
    rows = ["arrival_s,input_tokens,output_tokens"]
    rows += [f"{at:.2f},{rng.integers(200, 3000)},{rng.integers(20, 300)}" for at in arrivals]
    (folder / "trace.csv").write_text("\n".join(rows))
    path = folder / "journal.jsonl"
    options = ["--target", "sla", "--itl-ms", "6", "--max-gpus", "12", "--startup-s", "30", "--json"]
    assert main(["replay", str(folder / "trace.csv"), *options, "--journal", str(path)]) == 0
    return path


@pytest.fixture(scope="module")
def ticks(journal: Path) -> list[tuple[TickInput, Decision]]:
    return list(read_journal(journal))


def test_a_journal_that_is_skimmed_gives_the_same_series(
    journal: Path, ticks: list[tuple[TickInput, Decision]]
) -> None:
    assert series_of(skim_journal(journal)) == series_of(ticks)


def test_gpu_hours_scale_events_and_time_in_reasons_are_those_of_the_ticks(
    ticks: list[tuple[TickInput, Decision]],
) -> None:
    totals = series_of(ticks).totals
    gpu_s = up = 0.0
    for (before, was), (after, now) in itertools.pairwise(ticks):
        held = [c.ready + len(c.starting_ages_s) + c.draining for c in before.workers.values()]
        gpu_s += sum(held) * (after.now_s - before.now_s)
        up += sum(now.replicas[role] > was.replicas[role] for role in now.replicas)
    first = ticks[0][1]
    up += sum(first.replicas[role] > why.current for role, why in first.explanations.items())
    lasted_s = ticks[-1][0].now_s - ticks[0][0].now_s
    assert up > 0
    assert totals["gpu_s"] == pytest.approx(gpu_s)
    assert totals["gpu_known_s"] == pytest.approx(lasted_s)
    assert sum(totals.get(f"{role}.up", 0) for role in Role) == up
    for role in first.explanations:
        of_load = [s for name, s in totals.items() if name.startswith(f"{role}.load.")]
        assert sum(of_load) == pytest.approx(lasted_s)


def test_of_a_short_run_every_decision_is_there_with_its_sentence(
    ticks: list[tuple[TickInput, Decision]],
) -> None:
    shown = {moment.at_s: moment.sentence for moment in series_of(ticks).timelines[Role.PREFILL, "load"]}
    assert shown == {inputs.now_s: why.explanations[Role.PREFILL].sentence() for inputs, why in ticks}


def test_live_and_replayed_ticks_look_the_same_but_for_their_times(noisy_run: Run) -> None:
    live, replayed = series_of(noisy_run(300)), series_of(noisy_run(300, start_s=0.0))
    assert live.since_epoch
    assert not replayed.since_epoch
    assert live.totals == replayed.totals
    for name, curve in live.curves.items():
        np.testing.assert_array_equal(curve.values, replayed.curves[name].values)


def test_what_is_not_known_is_no_zero(noisy_run: Run) -> None:
    blind = series_of(
        (attrs.evolve(inputs, workers={}, traffic=None, observed=None), decision)
        for inputs, decision in noisy_run(20)
    )
    absent = {"gpus", "rate_rps", "isl", "observed_ttft_ms", "prefill.ready"}
    assert absent.isdisjoint(blind.curves)
    assert {"gpu_s", "gpu_known_s", "observed"}.isdisjoint(blind.totals)
    assert [feed.name for feed in blind.feeds if feed.age_s is None] == [feed.name for feed in blind.feeds]


def test_a_tick_without_counts_breaks_the_line(noisy_run: Run) -> None:
    ticks = list(noisy_run(3))
    ticks[1] = attrs.evolve(ticks[1][0], workers={}), ticks[1][1]
    assert np.isnan(series_of(ticks).curves["gpus"].values).tolist() == [False, True, False]


def test_attainment_counts_ticks_whose_latencies_all_keep_the_promise(noisy_run: Run) -> None:
    ticks = list(noisy_run(200))
    totals = series_of(ticks).totals
    kept = [
        i.observed.ttft_ms <= i.config.sla.ttft_ms and i.observed.itl_ms <= i.config.sla.itl_ms
        for i, _ in ticks
    ]
    assert totals["observed"] == 200
    assert totals["within"] == sum(kept)


def test_ticks_that_stand_still_or_go_back_are_left_out_and_counted(noisy_run: Run) -> None:
    ticks = list(noisy_run(10))
    again = series_of([*ticks, ticks[-1], ticks[3]])
    assert again.num_skipped == 2
    assert again.totals == series_of(ticks).totals


def test_a_pause_is_no_time_in_which_gpus_are_known(noisy_run: Run) -> None:
    early, late = list(noisy_run(10)), list(noisy_run(10, start_s=1.9e9))
    assert series_of([*early, *late]).totals["gpu_known_s"] == pytest.approx(2 * 45)


def test_an_empty_run_is_a_series_too() -> None:
    assert series_of([]).totals == {}


def test_half_a_line_at_the_end_is_no_tick(journal: Path, tmp_path: Path) -> None:
    torn = tmp_path / "torn.jsonl"
    torn.write_bytes(journal.read_bytes()[:-200])
    assert len(list(skim_journal(torn))) == len(list(skim_journal(journal))) - 1


@pytest.mark.parametrize("text", ["hello\n", "[1]\n", '{"input": {}, "decision": {}}\n', '{"input": 3}\n'])
def test_what_is_no_journal_is_named_with_its_line(text: str, tmp_path: Path) -> None:
    path = tmp_path / "other.jsonl"
    path.write_text(text)
    with pytest.raises(JournalError, match=r"other\.jsonl, line 1: "):
        list(skim_journal(path))
