"""Which passes a regression keeps: buckets over its inputs, so that one operating point can't crowd out the others."""

from __future__ import annotations

import math

import numpy as np

from planner_core.data.fpm import Floats, Ints

TRIM = 2
"""Extreme values on each side that don't stretch the buckets: a lone giant pass must not squeeze the rest into one."""


def keep(axes: Floats, max_samples: int, num_buckets: int) -> Ints | slice:
    """Rows to keep of samples that come oldest first, still in that order; at most ``max_samples``.

    ``axes`` has shape (inputs, samples). The fullest bucket loses its oldest sample until the rest fits; done for
    all samples at once, in O(n log n). Buckets are of equal width in log(1 + x), since loads span decades.
    """
    rows = axes.shape[1]
    if rows <= max_samples:
        return slice(None)
    # small numbers are sorted by counting
    newest_first = _bucket(axes, num_buckets)[::-1].astype(np.min_scalar_type(num_buckets))
    order = newest_first.argsort(kind="stable")
    sizes = np.bincount(newest_first)
    newer_in_bucket = np.arange(rows) - np.repeat(sizes.cumsum() - sizes, sizes)
    cost = np.empty(
        rows, np.int64
    )  # what a crowded bucket's older samples cost most; ties: the older one goes
    cost[order] = newer_in_bucket * rows + order
    kept = cost.argpartition(max_samples)[:max_samples]
    kept.sort()
    in_order: Ints = rows - 1 - kept[::-1]
    return in_order


def _bucket(axes: Floats, num_buckets: int) -> Ints:
    """The number of each sample's bucket; the outermost buckets are open-ended."""
    per_axis = num_buckets if len(axes) == 1 else math.isqrt(num_buckets)
    scaled = np.log1p(axes)
    trim = min(TRIM, (axes.shape[1] - 1) // 2)
    ordered = np.partition(scaled, (trim, -1 - trim), axis=1)
    low = ordered[:, trim : trim + 1]
    width = np.maximum(ordered[:, -1 - trim, None] - low, 1e-9)
    index = ((scaled - low) * (per_axis / width)).astype(np.int64)
    np.minimum(index, per_axis - 1, out=index)
    np.maximum(index, 0, out=index)
    number: Ints = index[0] if len(index) == 1 else index[0] * per_axis + index[1]
    return number
