from __future__ import annotations

import math
from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from planner_core.data.fpm import Floats
from planner_core.perf.retention import TRIM, keep


def rows_kept(axes: Floats, max_samples: int, num_buckets: int) -> list[int]:
    kept = np.arange(axes.shape[1])[keep(axes, max_samples, num_buckets)]
    return [int(row) for row in kept]


def buckets(axes: Floats, num_buckets: int) -> list[tuple[int, ...]]:
    """The bucket of each sample, said plainly: equal widths in log(1 + x) between the trimmed extremes."""
    per_axis = num_buckets if len(axes) == 1 else math.isqrt(num_buckets)
    columns = []
    for axis in np.log1p(axes):
        ordered = sorted(axis)
        low, high = ordered[TRIM], ordered[-1 - TRIM]
        width = max(high - low, 1e-9)
        columns.append([min(max(int((x - low) * (per_axis / width)), 0), per_axis - 1) for x in axis])
    return list(zip(*columns, strict=True))


def drop_one(axes: Floats, num_buckets: int) -> list[int]:
    """The fullest bucket loses its oldest sample; of equally full ones, the one whose oldest is oldest."""
    of = buckets(axes, num_buckets)
    counts = Counter(of)
    fullest = max(counts.values())
    oldest = next(row for row, bucket in enumerate(of) if counts[bucket] == fullest)
    return [row for row in range(len(of)) if row != oldest]


@st.composite
def samples(draw: st.DrawFn, least: int = 1, most: int = 80) -> Floats:
    seed, num_axes = draw(st.integers(0, 2**32)), draw(st.integers(1, 2))
    dice = np.random.default_rng(seed)
    spread = draw(st.sampled_from([0.0, 0.1, 3.0]))
    axes: Floats = np.round(np.exp(dice.normal(6, spread, (num_axes, draw(st.integers(least, most))))))
    return axes


@given(samples(), st.integers(8, 80), st.sampled_from([1, 4, 16]))
def test_never_keeps_more_than_asked_for_and_always_in_their_order(
    axes: Floats, max_samples: int, num_buckets: int
) -> None:
    kept = rows_kept(axes, max_samples, num_buckets)
    assert len(kept) == min(axes.shape[1], max_samples)
    assert kept == sorted(set(kept))


@given(samples(least=20), st.sampled_from([1, 4, 16]))
def test_one_sample_too_many_costs_the_fullest_bucket_its_oldest(axes: Floats, num_buckets: int) -> None:
    assert rows_kept(axes, axes.shape[1] - 1, num_buckets) == drop_one(axes, num_buckets)


@given(samples(least=30), st.integers(10, 29), st.sampled_from([1, 4, 16]))
def test_many_samples_at_once_leave_as_full_a_bucket_as_one_by_one_would(
    axes: Floats, max_samples: int, num_buckets: int
) -> None:
    of = buckets(axes, num_buckets)
    counts = Counter(of[row] for row in rows_kept(axes, max_samples, num_buckets))
    lost = {of[row] for row in range(len(of))} and Counter(of) - counts
    assert all(counts[bucket] >= max(counts.values()) - 1 for bucket in lost)


@given(samples(least=30), st.integers(10, 29), st.sampled_from([1, 4, 16]))
def test_a_bucket_keeps_its_newest(axes: Floats, max_samples: int, num_buckets: int) -> None:
    of, kept = buckets(axes, num_buckets), set(rows_kept(axes, max_samples, num_buckets))
    for bucket in set(of):
        members = [row for row, b in enumerate(of) if b == bucket]
        held = [row for row in members if row in kept]
        assert held == members[len(members) - len(held) :]


def test_one_operating_point_does_not_crowd_out_the_others() -> None:
    varied = np.linspace(100, 8000, 30)
    axes = np.concatenate((varied, np.full(1000, 2000.0)))[None]
    kept = rows_kept(axes, 64, 16)
    assert len([row for row in kept if row < 30]) >= 28


def test_one_giant_does_not_squeeze_the_rest_into_one_bucket() -> None:
    ordinary = np.tile(np.geomspace(100, 8000, 16), 8)
    axes = np.concatenate((ordinary, [5e6]))[None]
    kept = axes[0, rows_kept(axes, 64, 16)]
    assert len(set(kept) - {5e6}) == 16
