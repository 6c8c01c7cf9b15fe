from __future__ import annotations

from pathlib import Path

import pytest

from planner_adapters.journal import Journal, JournalError, read_journal
from planner_core import Decision, FpmBatch, PlannerConfig, Role, TickInput, WorkerCounts, initial_state, tick
from planner_core.codec import dumps

CONFIG = PlannerConfig.from_mapping({"mode": "agg", "optimization_target": "latency"})


def ticks(number: int, start_s: float = 0.0) -> list[tuple[TickInput, Decision]]:
    """A planner's first ticks, each with one pass of one engine."""
    state, made = initial_state(CONFIG, start_s), []
    for i in range(1, number + 1):
        batch = FpmBatch(worker_id=["a"], wall_time_s=[0.01], num_decode=[i], decode_kv_tokens=[100 * i])
        inputs = TickInput(
            config=CONFIG,
            state=state,
            now_s=start_s + 5.0 * i,
            workers={Role.AGG: WorkerCounts(ready=1)},
            fpm={Role.AGG: batch},
        )
        decision = tick(inputs)
        made.append((inputs, decision))
        state = decision.state
    return made


def write(path: Path, made: list[tuple[TickInput, Decision]]) -> None:
    with Journal(path) as journal:
        for inputs, decision in made:
            journal.append(inputs, decision)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    made = ticks(20)
    write(tmp_path / "journal", made)
    assert list(read_journal(tmp_path / "journal")) == made


def test_every_decision_of_a_journal_can_be_made_again_byte_for_byte(tmp_path: Path) -> None:
    write(tmp_path / "journal", ticks(20))
    for inputs, decision in read_journal(tmp_path / "journal"):
        assert dumps(tick(inputs)) == dumps(decision)


def test_a_journal_is_appended_to_and_never_overwritten(tmp_path: Path) -> None:
    first, second = ticks(3), ticks(4, start_s=1000.0)
    write(tmp_path / "journal", first)
    before = (tmp_path / "journal").read_bytes()
    write(tmp_path / "journal", second)
    assert (tmp_path / "journal").read_bytes().startswith(before)
    assert list(read_journal(tmp_path / "journal")) == first + second


def test_a_tick_is_one_line_and_is_there_as_soon_as_it_is_appended(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal") as journal:
        for number, (inputs, decision) in enumerate(ticks(3), 1):
            journal.append(inputs, decision)
            assert (tmp_path / "journal").read_bytes().count(b"\n") == number


def test_configuration_and_state_stand_once_in_a_run(tmp_path: Path) -> None:
    write(tmp_path / "journal", ticks(3))
    lines = (tmp_path / "journal").read_text().splitlines()
    assert ['"config":null' in line for line in lines] == [False, True, True]
    assert ['"state":null' in line for line in lines] == [False, True, True]


def test_a_state_that_is_not_the_last_one_is_written(tmp_path: Path) -> None:
    made = ticks(5)
    picked = [made[0], made[3], made[4]]
    write(tmp_path / "journal", picked)
    assert list(read_journal(tmp_path / "journal")) == picked


@pytest.mark.parametrize("cut", [1, 100, 2000])
def test_a_line_that_its_writer_was_killed_in_is_left_out(tmp_path: Path, cut: int) -> None:
    made = ticks(4)
    path = tmp_path / "journal"
    write(path, made)
    path.write_bytes(path.read_bytes()[:-cut])
    kept = len(path.read_bytes().splitlines()) - 1 if cut > 1 else 4
    assert list(read_journal(path)) == made[:kept]
    more = ticks(2, start_s=500.0)
    write(path, more)
    assert list(read_journal(path)) == made[:kept] + more


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("no journal\n", "line 1: is not JSON"),
        ("[1, 2]\n", "line 1: has no input and decision"),
        ('{"input": {}, "decision": {}}\n', "line 1: is no tick"),
    ],
)
def test_a_file_that_is_no_journal_is_refused_with_its_line(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "notes").write_text(text)
    with pytest.raises(JournalError, match=words):
        list(read_journal(tmp_path / "notes"))


def test_half_a_line_in_the_middle_is_not_overlooked(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    write(path, ticks(4))
    lines = path.read_bytes().splitlines(keepends=True)
    lines[2] = lines[2][:50] + b"\n"
    path.write_bytes(b"".join(lines))
    with pytest.raises(JournalError, match="line 3: is not JSON"):
        list(read_journal(path))


def test_a_journal_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="none: can't be read"):
        list(read_journal(tmp_path / "none"))
