from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from planner_core.data.state import NeedMemory
from planner_core.maths.lasting import MAX_NEEDS
from planner_core.stages import stability
from planner_core.stages.stability import remember

WINDOW_S = 60.0
needs_over_time = st.lists(
    st.tuples(st.sampled_from([1.0, 5.0, 5.0, 20.0]), st.integers(0, 50)), min_size=1, max_size=60
)


def settle(memory: NeedMemory, current: int, need: int, now_s: float, window_s: float) -> int:
    return stability.settle(memory, current, need, now_s, window_s)[0]


def watch(
    series: list[tuple[float, int]], window_s: float = WINDOW_S
) -> tuple[NeedMemory, list[tuple[float, int]]]:
    """The memory after a series of (seconds since the last need, need), and the needs with their times."""
    memory, now_s, seen = NeedMemory(), 0.0, []
    for step_s, need in series:
        now_s += step_s
        memory = remember(memory, now_s, need, idle=False, window_s=window_s)
        seen.append((now_s, need))
    return memory, seen


@given(needs_over_time, st.integers(0, 60))
def test_a_role_grows_at_once(series: list[tuple[float, int]], current: int) -> None:
    memory, seen = watch(series)
    now_s, need = seen[-1]
    if need >= current:
        assert settle(memory, current, need, now_s, WINDOW_S) == need


@given(needs_over_time, st.integers(0, 60))
def test_a_role_shrinks_only_to_what_sufficed_for_the_whole_window(
    series: list[tuple[float, int]], current: int
) -> None:
    memory, seen = watch(series)
    now_s, need = seen[-1]
    highest = max(n for at_s, n in seen if at_s >= now_s - WINDOW_S)
    watched = now_s - seen[0][0] >= WINDOW_S
    settled = settle(memory, current, need, now_s, WINDOW_S)
    if need < current:
        assert settled == (min(current, highest) if watched else current)


@given(needs_over_time, st.integers(0, 60))
def test_what_is_settled_lies_between_the_need_and_what_there_is(
    series: list[tuple[float, int]], current: int
) -> None:
    memory, seen = watch(series)
    now_s, need = seen[-1]
    assert min(need, current) <= settle(memory, current, need, now_s, WINDOW_S) <= max(need, current)


@given(st.floats(0.01, 10), st.integers(2, 300))
def test_the_memory_is_bounded_and_forgets_no_peak_of_the_window(step_s: float, count: int) -> None:
    falling = [
        (step_s, count - n) for n in range(count)
    ]  # the worst case: no later need reaches an earlier one
    memory, seen = watch(falling)
    now_s = seen[-1][0]
    assert len(memory.highest) <= MAX_NEEDS
    assert max(n for _, n in memory.highest) >= max(n for at_s, n in seen if at_s >= now_s - WINDOW_S)


def test_a_window_of_nothing_shrinks_at_once() -> None:
    memory = remember(NeedMemory(), 5.0, 2, idle=False, window_s=0.0)
    assert settle(memory, 9, 2, 5.0, 0.0) == 2


def test_needs_that_were_unknown_for_long_are_watched_anew() -> None:
    memory, _ = watch([(5.0, 2)] * 20)
    assert settle(memory, 9, 2, 100.0, WINDOW_S) == 2
    later = remember(memory, 1000.0, 2, idle=False, window_s=WINDOW_S)
    assert settle(later, 9, 2, 1000.0, WINDOW_S) == 9


def test_a_clock_that_was_set_back_begins_a_new_watch_and_ends_it() -> None:
    memory, _ = watch([(5.0, 8)] * 20)
    now_s = -3600.0
    memory = remember(memory, now_s, 2, idle=False, window_s=WINDOW_S)
    assert settle(memory, 9, 2, now_s, WINDOW_S) == 9
    for _ in range(12):
        now_s += 5.0
        memory = remember(memory, now_s, 2, idle=False, window_s=WINDOW_S)
    assert settle(memory, 9, 2, now_s, WINDOW_S) == 2


def test_idleness_is_counted_from_its_first_moment_and_ends_with_the_first_work() -> None:
    memory = NeedMemory()
    for now_s in (5.0, 10.0, 15.0):
        memory = remember(memory, now_s, 1, idle=True, window_s=WINDOW_S)
    assert memory.idle_since_s == 5.0
    assert remember(memory, 20.0, 1, idle=False, window_s=WINDOW_S).idle_since_s is None


def life(needs: list[int], startup_ticks: int = 0) -> list[int]:
    """Replicas over time of a role that is told these needs, one every 5 s."""
    memory, current, counts = NeedMemory(), needs[0], []
    for number, need in enumerate(needs):
        memory = remember(memory, 5.0 * number, need, idle=False, window_s=WINDOW_S)
        current, memory = stability.settle(memory, current, need, 5.0 * number, WINDOW_S)
        counts.append(current)
    return counts


def test_a_size_that_proved_too_small_is_not_tried_again_for_two_hours_and_then_for_longer() -> None:
    tries = []
    memory, current = NeedMemory(), 4
    for number in range(18000):
        now_s, need = 5.0 * number, 3 if current == 4 else 4  # three seem enough until there are three
        memory = remember(memory, now_s, need, idle=False, window_s=0.0)
        before, (current, memory) = current, stability.settle(memory, current, need, now_s, 0.0)
        if current < before:
            tries.append(now_s)
    waits = [later - earlier for earlier, later in itertools.pairwise(tries)]
    assert waits[0] >= 7200
    assert all(later >= 1.9 * earlier for earlier, later in itertools.pairwise(waits))


def test_a_need_that_is_clearly_less_is_followed_whatever_was_regretted() -> None:
    up_and_down = [9] * 20 + [6] * 20 + [9] * 20
    counts = life(up_and_down + [6] * 20 + [5] * 20)
    assert counts[79] == 7  # not 6 again
    assert counts[-1] == 5
