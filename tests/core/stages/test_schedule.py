from __future__ import annotations

from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner_core import LoadScaling, PlannerConfig, ThroughputScaling
from planner_core.stages import schedule
from planner_core.testing import configs

steps_s = st.lists(st.sampled_from([0.1, 0.4, 1.0, 5.0, 7.3, 180.0, 4000.0, 0.0, -50.0]), max_size=30)


def two_loops(lab: Any, fast_s: float = 5.0, slow_s: float = 180.0) -> PlannerConfig:
    return attrs.evolve(
        lab.config("agg"),
        load=LoadScaling(interval_s=fast_s),
        throughput=ThroughputScaling(interval_s=slow_s),
    )


def punctual(config: PlannerConfig, until_s: float) -> list[tuple[float, bool, bool]]:
    """(time, load, throughput) of each tick of a shell that comes when it is asked to."""
    state, ticks = schedule.start(config, 0.0), []
    while (coming := schedule.next_tick(state, config)).at_s <= until_s:
        due = schedule.due(state, config, coming.at_s)
        assert (due.load, due.throughput) == (coming.load, coming.throughput)
        ticks.append((coming.at_s, due.load, due.throughput))
        state = schedule.after(state, config, coming.at_s)
    return ticks


def test_each_loop_runs_on_its_grid(lab: Any) -> None:
    ticks = punctual(two_loops(lab), 900.0)
    assert [at_s for at_s, load, _ in ticks if load] == [5.0 * n for n in range(1, 181)]
    assert [at_s for at_s, _, slow in ticks if slow] == [180.0 * n for n in range(1, 6)]


def test_loops_due_within_half_a_second_share_a_tick(lab: Any) -> None:
    ticks = punctual(two_loops(lab, fast_s=5.0, slow_s=20.4), 20.5)
    assert ticks[-1] == (20.0, True, True)
    apart = punctual(two_loops(lab, fast_s=5.0, slow_s=20.6), 20.7)
    assert apart[-2:] == [(20.0, True, False), (20.6, False, True)]


@pytest.mark.parametrize("late_s", [0.0, 0.3, 2.0, 4.4])
def test_a_late_tick_moves_no_later_one(lab: Any, late_s: float) -> None:
    config = two_loops(lab)
    state = schedule.after(schedule.start(config, 0.0), config, 5.0 + late_s)
    assert schedule.next_tick(state, config).at_s == 10.0


def test_a_tick_that_comes_a_little_early_counts(lab: Any) -> None:
    config = two_loops(lab)
    state = schedule.start(config, 0.0)
    assert schedule.due(state, config, 4.6).load
    assert schedule.next_tick(schedule.after(state, config, 4.6), config).at_s == 10.0
    assert not schedule.due(state, config, 4.4).load


def test_ticks_that_were_slept_through_are_dropped(lab: Any) -> None:
    config = two_loops(lab)
    state = schedule.after(schedule.start(config, 0.0), config, 1003.0)
    assert schedule.next_tick(state, config).at_s == 1005.0
    assert state.next_throughput_s == 1080.0


@given(configs(), steps_s, st.sampled_from([0.0, -7e5, 1.7e9]))
def test_the_next_tick_lies_ahead_and_within_the_shortest_interval_whatever_the_clock_does(
    config: PlannerConfig, steps: list[float], now_s: float
) -> None:
    state = schedule.start(config, now_s)
    for step_s in steps:
        now_s += step_s
        state = schedule.after(state, config, now_s)
        ahead_s = schedule.next_tick(state, config).at_s - now_s
        loops = [loop.interval_s for loop in (config.load_loop, config.throughput_loop) if loop is not None]
        assert 0 < ahead_s <= max(5.0, min(loops)) + 2 * schedule.MERGE_S


@given(configs(), st.sampled_from([0.0, -1.0, -3600.0]))
def test_a_clock_that_stands_still_or_goes_back_makes_nothing_due(
    config: PlannerConfig, step_s: float
) -> None:
    due = schedule.due(schedule.start(config, 100.0), config, 100.0 + step_s)
    assert not (due.advanced)
    assert not (due.load)
    assert not (due.throughput)
    assert not (due.elapsed_s)


def test_a_clock_that_was_set_back_gets_a_new_grid(lab: Any) -> None:
    config = two_loops(lab)
    state = schedule.after(schedule.start(config, 1e6), config, 50.0)
    assert schedule.next_tick(state, config).at_s == 55.0
    assert state.next_throughput_s == 230.0


def test_passes_are_learned_from_every_five_seconds_while_the_load_loop_is_off(lab: Any) -> None:
    config = attrs.evolve(lab.config("agg"), load=None, throughput=ThroughputScaling())
    ticks = punctual(config, 180.0)
    assert [at_s for at_s, *_ in ticks] == [5.0 * n for n in range(1, 37)]
    assert not any(load for _, load, _ in ticks)
    assert [at_s for at_s, _, slow in ticks if slow] == [180.0]


def test_only_the_sla_asks_for_traffic(lab: Any) -> None:
    for target in ("throughput", "latency"):
        config = lab.config("agg", target)
        assert schedule.next_tick(schedule.start(config, 0.0), config).needs == {"workers", "fpm"}
    config = lab.config("agg", "sla")
    assert schedule.next_tick(schedule.start(config, 0.0), config).needs == {"workers", "fpm", "traffic"}


def test_the_traffic_windows_cover_time_without_gap_or_overlap(lab: Any) -> None:
    slow_alone = attrs.evolve(lab.config("agg"), load=None, throughput=ThroughputScaling())
    for config in (two_loops(lab), slow_alone):
        state, covered_s = schedule.start(config, 0.0), 0.0
        while (coming := schedule.next_tick(state, config)).at_s <= 720.0:
            if "traffic" in coming.needs:
                assert coming.at_s - coming.traffic_window_s == covered_s
                covered_s = coming.at_s
            state = schedule.after(state, config, coming.at_s)
        assert covered_s == 720.0
