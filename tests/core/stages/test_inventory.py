from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from planner_core import FpmBatch, Role, WorkerCounts
from planner_core.data.state import FleetMemory
from planner_core.stages.inventory import STARTS_REMEMBERED, Fleet, learn, take_stock
from planner_core.testing import engine_specs, fpm_batches, worker_counts


def reports(lab: Any, count: int) -> FpmBatch:
    return FpmBatch.of([lab.decode_pass(f"w{n}") for n in range(count)])


def look(
    lab: Any,
    counts: WorkerCounts | None,
    num_reporting: int = 0,
    memory: FleetMemory | None = None,
    **more: Any,
) -> Fleet:
    now_s, patience_s = more.get("now_s", 0.0), more.get("patience_s", 600.0)
    return take_stock(
        memory or FleetMemory(), lab.spec, counts, reports(lab, num_reporting), now_s, patience_s
    )


def follow(
    lab: Any, counts_at: Callable[[float], WorkerCounts | None], until_s: float, num_reporting: int = 2
) -> FleetMemory:
    """The memory after ticks every five seconds."""
    memory, batch = FleetMemory(), reports(lab, num_reporting)
    for tick in range(int(until_s / 5) + 1):
        memory = learn(memory, counts_at(5.0 * tick), batch, 5.0 * tick, 5.0)
    return memory


def test_starting_replicas_count(lab: Any) -> None:
    fleet = look(lab, WorkerCounts(ready=2, expected=5, starting_ages_s=(10, 20, 30)), 2)
    assert (fleet.ready, fleet.starting, fleet.stuck, fleet.desired, fleet.total) == (2, 3, 0, 5, 5)


def test_starts_without_an_age_show_as_the_gap_to_the_expected_count(lab: Any) -> None:
    fleet = look(lab, WorkerCounts(ready=2, expected=5), 2)
    assert (fleet.starting, fleet.total, fleet.desired) == (3, 5, 5)


def test_starting_replicas_beyond_the_expected_count_are_on_no_ones_list(lab: Any) -> None:
    fleet = look(lab, WorkerCounts(ready=2, expected=3, starting_ages_s=(10, 20, 30)), 2)
    assert (fleet.starting, fleet.desired) == (1, 3)


def test_surge_pods_of_a_rollout_are_no_capacity(lab: Any) -> None:
    fleet = look(lab, WorkerCounts(ready=5, expected=3), 5)
    assert (fleet.ready, fleet.total, fleet.desired) == (3, 3, 3)
    assert fleet.coverage == 1.0


def test_replicas_that_start_for_too_long_are_no_longer_counted_on_but_still_desired(lab: Any) -> None:
    fleet = look(lab, WorkerCounts(ready=2, expected=4, starting_ages_s=(10, 3600)), 2)
    assert (fleet.starting, fleet.stuck, fleet.total, fleet.desired) == (1, 1, 3, 4)
    assert fleet.notes() == ("1 replicas have been starting for too long and aren't counted on",)


def test_a_gap_without_ages_is_waited_for_within_bounds(lab: Any) -> None:
    counts = WorkerCounts(ready=2, expected=6)
    memory = follow(lab, lambda now_s: counts, 0.0)
    for now_s, starting in ((0.0, 4), (599.0, 4), (601.0, 0)):
        assert look(lab, counts, 2, memory, now_s=now_s).starting == starting


def test_a_start_is_called_stuck_only_beyond_three_usual_ones(lab: Any) -> None:
    slow = FleetMemory(startup_times_s=(900.0,) * 4)
    counts = WorkerCounts(ready=1, expected=2, starting_ages_s=(2000,))
    assert look(lab, counts, 1, slow).starting == 1
    assert look(lab, counts, 1).stuck == 1


def test_draining_replicas_are_no_capacity(lab: Any) -> None:
    assert look(lab, WorkerCounts(ready=3, draining=2), 3).total == 3


def test_startup_times_are_learned_from_starts_that_end(lab: Any) -> None:
    def counts(now_s: float) -> WorkerCounts:
        return WorkerCounts(ready=3) if now_s > 200 else WorkerCounts(ready=2, starting_ages_s=(now_s,))

    memory = follow(lab, counts, 300.0)
    assert len(memory.startup_times_s) == 1
    assert abs(memory.startup_times_s[0] - 200) <= 5
    assert look(lab, None, memory=memory).startup_s == memory.startup_times_s[0]


def test_a_start_that_is_called_off_teaches_nothing(lab: Any) -> None:
    def counts(now_s: float) -> WorkerCounts:
        return WorkerCounts(ready=2) if now_s > 200 else WorkerCounts(ready=2, starting_ages_s=(now_s,))

    assert follow(lab, counts, 300.0).startup_times_s == ()


def test_a_start_is_taken_to_last_as_long_as_three_in_four_of_those_seen(lab: Any) -> None:
    memory = FleetMemory(startup_times_s=(100.0, 400.0, 200.0, 300.0))
    assert look(lab, None, memory=memory).startup_s == 300.0
    assert look(lab, None).startup_s == lab.spec.startup_s


def test_a_mismatch_has_an_age_and_ends(lab: Any) -> None:
    counts = WorkerCounts(ready=3)
    memory = follow(lab, lambda now_s: counts, 50.0, num_reporting=2)
    fleet = look(lab, counts, 2, memory, now_s=50.0)
    assert fleet.missing_s == 50.0
    assert fleet.notes() == ("2 of 3 replicas report, for 50 s",)
    assert fleet.coverage == 1.5
    memory = learn(memory, counts, reports(lab, 3), 55.0, 5.0)
    assert look(lab, counts, 3, memory, now_s=55.0).missing_s is None


def test_more_reports_than_ready_replicas_are_named(lab: Any) -> None:
    assert look(lab, WorkerCounts(ready=1), 3).notes() == ("3 replicas report, 1 are counted ready",)


def test_without_counts_the_engines_that_report_are_the_fleet(lab: Any) -> None:
    assert look(lab, None, 3).total == 3
    assert look(lab, None, 0).total is None


def test_a_clock_that_was_set_back_gives_no_negative_age(lab: Any) -> None:
    counts = WorkerCounts(ready=3, expected=4)
    memory = learn(follow(lab, lambda now_s: counts, 50.0), counts, reports(lab, 2), -3600.0, 0.0)
    fleet = look(lab, counts, 2, memory, now_s=-3600.0)
    assert fleet.missing_s == 0.0
    assert fleet.starting == 1


@given(
    engine_specs(),
    st.lists(
        st.tuples(worker_counts() | st.none(), fpm_batches(Role.DECODE, 4), st.floats(0, 600)), max_size=8
    ),
)
def test_the_counts_add_up_and_the_memory_is_bounded(spec: Any, looks: list[Any]) -> None:
    memory, now_s = FleetMemory(), 0.0
    for counts, batch, step_s in looks:
        now_s += step_s
        memory = learn(memory, counts, batch, now_s, step_s)
        fleet = take_stock(memory, spec, counts, batch, now_s, 600.0)
        assert fleet.starting >= 0
        assert fleet.stuck >= 0
        assert fleet.coverage >= 1
        assert fleet.missing_s is None or fleet.missing_s >= 0
        if fleet.ready is not None:
            assert fleet.desired == fleet.ready + fleet.starting + fleet.stuck
        if counts is not None and counts.expected is not None:
            assert fleet.desired == counts.expected
        assert len(memory.startup_times_s) <= STARTS_REMEMBERED
        assert len(memory.starting_ages_s) <= STARTS_REMEMBERED
        assert all(time_s >= 0 for time_s in memory.startup_times_s)
