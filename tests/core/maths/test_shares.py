from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from planner_core.maths.shares import raise_within

Rows = list[tuple[int, int, int, int]]
"""Base, what it may rise by, weight, cost."""
rows = st.lists(
    st.tuples(st.integers(0, 30), st.integers(0, 60), st.integers(1, 90), st.sampled_from([1, 2, 3, 8])),
    min_size=1,
    max_size=8,
)
rooms = st.integers(0, 500)


def raised(rows: Rows, room: int) -> list[int]:
    base, more, weight, cost = zip(*rows, strict=True)
    top = [b + m for b, m in zip(base, more, strict=True)]
    counts: list[int] = raise_within(base, top, weight, cost, room).tolist()
    return counts


def one_by_one(rows: Rows, room: int) -> list[int]:
    """The same, as it is meant: each unit to the lowest count ÷ weight of those whose next unit fits."""
    counts = [base for base, _, _, _ in rows]
    while True:
        left = room - sum(count * row[3] for count, row in zip(counts, rows, strict=True))
        able = [n for n, (base, more, _, cost) in enumerate(rows) if counts[n] < base + more and cost <= left]
        if not able:
            return counts
        counts[min(able, key=lambda n: counts[n] / rows[n][2])] += 1


def cost_of(rows: Rows, counts: list[int]) -> int:
    return sum(count * row[3] for count, row in zip(counts, rows, strict=True))


@given(rows, rooms)
def test_a_budget_is_shared_as_if_it_were_given_unit_by_unit(rows: Rows, room: int) -> None:
    # Equals at one level may be served in another order: their levels, and what is used, are the same.
    counts, expected = raised(rows, room), one_by_one(rows, room)
    levels = [
        [(count - 1) / row[2] for count, row in zip(shares, rows, strict=True) if count > row[0]]
        for shares in (counts, expected)
    ]
    if counts != expected:
        assert max(levels[0]) == max(levels[1])
        assert sum(abs(a - b) for a, b in zip(counts, expected, strict=True)) <= 2 * len(rows)


@given(rows, rooms, st.integers(0, 40))
def test_more_room_is_never_used_less(rows: Rows, room: int, more: int) -> None:
    assert cost_of(rows, raised(rows, room + more)) >= cost_of(rows, raised(rows, room))


def test_millions_are_shared_at_once_and_exactly() -> None:
    counts = raise_within([0] * 3, [10**6] * 3, [1e6, 5e5, 1.0], [1, 1, 1], 1_000_000)
    assert counts.sum() == 1_000_000
    assert counts.tolist()[:2] == [666_666, 333_333]
