from __future__ import annotations

import asyncio
import itertools
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import attrs
import pytest

from planner_adapters.journal import Journal, JournalError, last_decision, read_journal
from planner_adapters.runner import (
    Health,
    Live,
    Records,
    Saved,
    Service,
    StateError,
    read_state,
    remembered,
    run,
    serve,
    write_state,
)
from planner_adapters.runner.testing import PlayedClock, PlayedFleet
from planner_core import Decision, PlannerConfig, Role, TickInput, initial_state
from planner_core.codec import dumps

Made = list[tuple[TickInput, Decision]]
HERE = Path(__file__).parent


def rising(now_s: float) -> float:
    return 100_000.0 + 2_000 * (now_s % 300)


def played(config: PlannerConfig, folder: Path, num_ticks: int, fleet: PlayedFleet) -> Made:
    """A life of so many ticks, with its records; it goes on where the one before ended."""
    made: Made = []
    service = Service(journal=folder / "journal", state=folder / "state", num_ticks=num_ticks)
    before = remembered(state=service.state, journal=service.journal)
    live = Live(fleet, fleet, fleet, clock=fleet.clock)
    watch = [lambda i, d: made.append((i, d))]
    asyncio.run(serve(live, config, service, before=before, on_tick=watch))
    return made


@pytest.mark.parametrize("target", ["throughput", "sla"])
def test_a_restart_goes_on_as_if_nothing_had_happened(tmp_path: Path, target: str) -> None:
    keys = {"mode": "agg", "optimization_target": target, "enable_load_scaling": True, "max_gpu_budget": 16}
    config = PlannerConfig.from_mapping(
        keys | {"throughput_adjustment_interval": 60, "engines": {"agg": {"max_kv_tokens": 100_000}}}
    )
    lives = []
    for folder, cuts in (("one", [40]), ("many", [1, 13, 20, 6])):
        (tmp_path / folder).mkdir()
        fleet = PlayedFleet(PlayedClock(1000.0), rising)
        for cut in cuts:
            played(config, tmp_path / folder, cut, fleet)
        lives.append(list(read_journal(tmp_path / folder / "journal")))
    assert [dumps(d) for _, d in lives[0]] == [dumps(d) for _, d in lives[1]]
    assert len(lives[0]) == 40


def test_a_planner_killed_at_fifty_random_points_loses_and_doubles_no_decision(tmp_path: Path) -> None:
    script = [sys.executable, str(HERE / "kill_at_points.py"), str(tmp_path), "50", "1"]
    done = subprocess.run(script, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    runs = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(runs) == 50
    for killed, after, size, decided_size in runs:
        assert (killed, after) == (-signal.SIGKILL, 0), done.stderr
        assert size == decided_size  # two ticks later, all is as it should be

    made = list(read_journal(tmp_path / "journal"))
    for (_, before), (inputs, _) in itertools.pairwise(made):
        assert inputs.state == before.state  # none is lost, none was made twice
    times = [inputs.now_s for inputs, _ in made]
    assert times == sorted(set(times))

    decided = {(d.next_tick.at_s, d.replicas[Role.AGG]) for _, d in made}
    orders = [tuple(map(float, line.split())) for line in (tmp_path / "orders").read_text().splitlines()]
    assert len(set(orders)) == len(orders)
    assert decided.issuperset(orders)  # nothing was carried out that isn't written down
    lost_orders = len(made) - len(orders)
    assert (
        0 < lost_orders <= 50
    )  # some kills did fall between decision and order, and the next tick made up for it


def test_the_journal_is_ahead_where_the_planner_was_killed_between_the_files(
    config: PlannerConfig, tmp_path: Path
) -> None:
    fleet = PlayedFleet(PlayedClock(), rising)
    played(config, tmp_path, 3, fleet)
    old = (tmp_path / "state").read_bytes()
    ((_, decision),) = played(config, tmp_path, 1, fleet)
    (tmp_path / "state").write_bytes(old)
    saved = remembered(state=tmp_path / "state", journal=tmp_path / "journal")
    assert saved == Saved(config=config, state=decision.state)


# A full disk


def test_a_full_disk_stops_nothing_and_what_is_lost_is_counted_and_said(
    config: PlannerConfig, busy: PlayedFleet
) -> None:
    if not Path("/dev/full").exists():
        # A device of Linux that is always full; filling a real disk would harm whoever runs the tests.
        pytest.skip("needs /dev/full")
    records, health = Records(journal="/dev/full"), Health()
    asyncio.run(
        run(Live(busy, None, busy, clock=busy.clock), config, num_ticks=5, records=records, health=health)
    )
    records.close()
    assert len(busy.orders) == 5
    assert records.lost_ticks == 5
    assert health.problems["records"] == "journal: No space left on device (5 ticks lost)"


def test_a_journal_that_hits_its_limit_keeps_whole_lines_and_goes_on_when_there_is_room(
    config: PlannerConfig, tmp_path: Path
) -> None:
    fleet = PlayedFleet(PlayedClock(), rising)
    records = Records(journal=tmp_path / "journal", state=tmp_path / "state")
    made: Made = []
    watch = [lambda i, d: made.append((i, d))]

    async def play(num_ticks: int) -> None:
        state = made[-1][1].state if made else None
        live = Live(fleet, fleet, fleet, clock=fleet.clock)
        await run(live, config, num_ticks=num_ticks, state=state, records=records, on_tick=watch)

    asyncio.run(play(4))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = (tmp_path / "journal").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 300, hard))  # room for part of a line
    try:
        asyncio.run(play(3))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / "journal").stat().st_size == size
    asyncio.run(play(2))
    records.close()
    assert (records.lost_ticks, records.problem) == (3, None)
    assert list(read_journal(tmp_path / "journal")) == made[:4] + made[7:]
    lines = [json.loads(line) for line in (tmp_path / "journal").read_text().splitlines()]
    assert [line.get("lost") for line in lines] == [None] * 4 + [3, None]


def test_a_state_that_cannot_be_written_leaves_the_one_before(config: PlannerConfig, tmp_path: Path) -> None:
    path = tmp_path / "state"
    saved = Saved(config=config, state=initial_state(config, 0.0))
    write_state(path, saved)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_state(path, Saved(config=config, state=initial_state(config, 1.0)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert read_state(path) == saved
    assert os.listdir(tmp_path) == ["state"]


def test_a_folder_that_is_not_there_is_told_at_the_start(config: PlannerConfig, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Records(state=tmp_path / "none" / "state").begin(config, initial_state(config, 0.0))
    with pytest.raises(FileNotFoundError):
        Records(journal=tmp_path / "none" / "journal")


# The state file


def test_what_is_written_is_read_back_and_a_link_stays_one(config: PlannerConfig, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "state")
    saved = Saved(config=config, state=initial_state(config, 7.0))
    write_state(link, saved)
    assert link.is_symlink()
    assert read_state(tmp_path / "state") == saved
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o600


def test_no_file_is_no_past(tmp_path: Path) -> None:
    assert read_state(tmp_path / "none") is None
    assert remembered(state=None, journal=None) is None


def test_a_state_file_that_cannot_be_meant_is_refused_in_one_line(
    config: PlannerConfig, tmp_path: Path
) -> None:
    path = tmp_path / "state"
    write_state(path, Saved(config=config, state=initial_state(config, 7.0)))
    good = path.read_text()
    later = json.loads(good)
    later["state"]["version"] = 99
    spoilt = {
        "half": good[: len(good) // 2],
        "empty": "",
        "foreign": '{"mode": "agg"}',
        "list": "[]",
        "later": json.dumps(later),
        "deep": "[" * 100_000,
    }
    for name, text in spoilt.items():
        path.write_text(text)
        with pytest.raises(StateError) as caught:
            read_state(path)
        assert str(caught.value).startswith(f"{path}: is no state of this planner ("), name
        assert str(caught.value).endswith("move it away to begin without a past")
        assert "\n" not in str(caught.value)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(StateError, match="is no state"):
        read_state(path)
    with pytest.raises(StateError, match="can't be read"):
        read_state(tmp_path)


def test_the_memory_of_another_deployment_is_refused(config: PlannerConfig, busy: PlayedFleet) -> None:
    other = PlannerConfig.from_mapping({"mode": "disagg"})
    before = Saved(config=other, state=initial_state(other, 0.0))
    with pytest.raises(StateError, match="mode disagg, the configuration's is agg"):
        asyncio.run(serve(Live(busy, clock=busy.clock), config, Service(), before=before))
    assert busy.closed == 1


def test_a_predictor_that_cannot_be_written_is_told_at_the_start(
    config: PlannerConfig, tmp_path: Path
) -> None:
    @attrs.frozen
    class Mine:
        def init(self) -> int:
            return 0

        def observe(self, state: int, value: float) -> int:
            return state

        def forecast(self, state: int, steps: int = 1) -> None:
            return None

    assert config.throughput is not None
    mine = attrs.evolve(config, throughput=attrs.evolve(config.throughput, predictor=Mine()))
    with pytest.raises(ValueError, match=r"codec\.register\(Mine\)"):
        Records(state=tmp_path / "state").begin(mine, initial_state(mine, 0.0))


# The end of a journal


def test_the_last_decision_is_found_from_the_end(config: PlannerConfig, tmp_path: Path) -> None:
    path = tmp_path / "journal"
    assert last_decision(path) is None
    Journal(path).close()
    assert last_decision(path) is None
    made = played(config, tmp_path, 30, PlayedFleet(PlayedClock(), rising))
    assert path.stat().st_size > 1 << 16  # more than is read at once
    assert last_decision(path) == made[-1][1]
    whole = path.read_bytes()
    path.write_bytes(whole[:-200])
    assert last_decision(path) == made[-2][1]
    path.write_text("a shopping list\n")
    with pytest.raises(JournalError, match="holds no tick; is it a journal"):
        last_decision(path)


def test_lines_of_any_length_are_found(tmp_path: Path, config: PlannerConfig) -> None:
    made: Any = played(config, tmp_path, 1, PlayedFleet(PlayedClock(), rising))
    line = json.loads((tmp_path / "journal").read_text())
    line["note"] = "x" * 200_000
    (tmp_path / "journal").write_text(json.dumps(line) + "\n" + json.dumps(line))
    assert last_decision(tmp_path / "journal") == made[0][1]
