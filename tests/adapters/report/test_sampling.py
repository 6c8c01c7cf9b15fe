from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from planner_adapters.report.sampling import Mark, Sampler

CAPACITY = 16
values = st.floats(-1e6, 1e6) | st.just(float("nan"))
steps = st.sampled_from([0.3, 1.0, 5.0, 5.0, 5.0, 60.0])
series = st.lists(st.tuples(steps, values), min_size=1, max_size=300)
GAP_S = np.array([12.0])


def sampled(
    points: list[tuple[float, float]], keep_s: float = np.inf
) -> tuple[Sampler, np.ndarray, np.ndarray]:
    sampler = Sampler(num_curves=1, num_sums=1, capacity=CAPACITY, keep_s=keep_s)
    at_s = np.cumsum([step for step, _ in points])
    given = np.array([value for _, value in points])
    for at, value in zip(at_s, given, strict=True):
        marks = {0: Mark(rank=0.0 if np.isnan(value) else value, at_s=at, what=value)}
        sampler.add(at, np.array([value]), GAP_S, np.ones(1), marks)
    return sampler, at_s, given


@given(series)
def test_no_peak_is_lost_and_no_point_is_made_up(points: list[tuple[float, float]]) -> None:
    sampler, at_s, given = sampled(points)
    drawn_s, drawn = sampler.curve(0)
    known, shown = ~np.isnan(given), ~np.isnan(drawn)
    assert set(zip(drawn_s[shown], drawn[shown], strict=True)) <= set(
        zip(at_s[known], given[known], strict=True)
    )
    assert np.all(np.diff(drawn_s) > 0)
    if known.any():
        assert drawn[shown].max() == given[known].max()
        assert drawn[shown].min() == given[known].min()
        assert drawn_s[0] == at_s[known][0]
        assert drawn_s[-1] == at_s[known][-1]


@given(series)
def test_every_bucket_shows_its_own_extremes(points: list[tuple[float, float]]) -> None:
    sampler, at_s, given = sampled(points)
    drawn_s, drawn = sampler.curve(0)
    shown = ~np.isnan(drawn)
    for bucket in np.unique(at_s // sampler.width_s):
        inside = given[(at_s // sampler.width_s == bucket) & ~np.isnan(given)]
        if len(inside):
            # a point may be left out between two equal ones
            edges_s = np.array([bucket, bucket + 1]) * sampler.width_s
            there = np.append(
                np.interp(edges_s, drawn_s[shown], drawn[shown]),
                drawn[shown & (drawn_s // sampler.width_s == bucket)],
            )
            assert inside.max() <= there.max()
            assert inside.min() >= there.min()


@given(series)
def test_what_was_unknown_for_long_breaks_the_line(points: list[tuple[float, float]]) -> None:
    sampler, at_s, given = sampled(points)
    drawn_s, drawn = sampler.curve(0)
    known_s = at_s[~np.isnan(given)]
    for before, after in itertools.pairwise(known_s):
        if after - before > max(GAP_S[0], 2 * sampler.width_s):
            assert np.isnan(drawn[(drawn_s > before) & (drawn_s < after)]).any()
    for at, value in zip(drawn_s, drawn, strict=True):
        if np.isnan(value):
            around = np.searchsorted(known_s, at)
            assert known_s[around] - known_s[around - 1] > GAP_S[0]


@given(series)
def test_memory_is_bounded_and_sums_are_exact(points: list[tuple[float, float]]) -> None:
    sampler, at_s, _ = sampled(points)
    assert len(sampler.curve(0)[0]) <= 6 * CAPACITY
    assert len(sampler.marks(0)) <= CAPACITY
    assert sampler.sums()[0] == len(at_s)


@given(series)
def test_the_mark_of_highest_rank_stays(points: list[tuple[float, float]]) -> None:
    sampler, _, given = sampled(points)
    assert max(mark.rank for mark in sampler.marks(0)) == np.nan_to_num(given).max()


@given(series)
def test_what_is_older_than_asked_for_is_gone(points: list[tuple[float, float]]) -> None:
    sampler, at_s, given = sampled(points, keep_s=100.0)
    drawn_s, drawn = sampler.curve(0)
    since_s = at_s[-1] - 100.0
    shown = ~np.isnan(drawn)
    assert np.all(drawn_s[shown] >= since_s - sampler.width_s)
    recent = given[(at_s >= since_s) & ~np.isnan(given)]
    assert not len(recent) or drawn[shown].max() >= recent.max()


@given(series)
def test_a_frozen_copy_stays_as_it_was(points: list[tuple[float, float]]) -> None:
    sampler, at_s, _ = sampled(points)
    frozen, before = sampler.frozen(), sampler.curve(0)
    for step in range(1, 40):
        sampler.add(at_s[-1] + step, np.array([1e7]), GAP_S, np.ones(1), {})
    for was, now in zip(before, frozen.curve(0), strict=True):
        np.testing.assert_array_equal(was, now)
    assert frozen.sums()[0] == len(at_s)
