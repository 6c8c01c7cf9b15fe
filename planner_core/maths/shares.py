"""A budget shared by D'Hondt's divisor method (1878): each unit to whoever has the least of what was asked for."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

LEVELS = np.linspace(0.0, 1.0, 65)
"""Levels that are tried at once: each round of trials finds six bits of the one sought."""
ROUNDS = 9
"""54 bits: as fine as a float is."""
FEW = 4
"""Units that are sooner given one by one than sought a finer level for."""

Counts = NDArray[np.int64]


def raise_within(base: ArrayLike, top: ArrayLike, weight: ArrayLike, cost: ArrayLike, room: int) -> Counts:
    """Counts from ``base`` up to ``top`` whose costs are at most ``room``, next always to the lowest count ÷ weight.

    All of shape (n,); where ``base`` doesn't fit, it is returned. Equals are served in their order; one whose next unit
    costs more than is left is passed over, so that nobody waits for it and more room is never used less. The work
    doesn't grow with the counts: a level of count ÷ weight is found by trials, and only the few units that it leaves
    are given one by one.
    """
    counts: Counts = np.array(base, dtype=np.int64)
    most, costs = np.asarray(top, dtype=np.int64), np.asarray(cost, dtype=np.int64)
    parts = np.asarray(weight, dtype=np.float64)
    weighed = parts > 0
    most = np.where(weighed, most, counts)
    reached = counts
    low, high = 0.0, float(np.max(most[weighed] / parts[weighed], initial=0.0))
    for _ in range(ROUNDS):
        levels = low + (high - low) * LEVELS
        at = np.minimum(np.maximum(np.ceil(levels[:, None] * parts), counts), most)
        last = int(np.count_nonzero(at @ costs <= room)) - 1  # what it costs only grows with the level
        if last < 0:
            return counts
        low, reached = float(levels[last]), at[last]
        if last == len(LEVELS) - 1 or at[last + 1].sum() - at[last].sum() <= FEW:
            break
        high = float(levels[last + 1])
    counts = reached.astype(np.int64)
    while True:
        left = room - int(counts @ costs)
        able = np.flatnonzero((counts < most) & (costs <= left))
        if not len(able):
            return counts
        counts[able[np.argmin(counts[able] / parts[able])]] += 1
