"""Quantiles from the buckets of a histogram, as Prometheus's ``histogram_quantile`` gives them."""

from __future__ import annotations

import math
from collections.abc import Mapping


def histogram_quantile(quantile: float, counts: Mapping[float, float]) -> float | None:
    """The quantile of what was observed, from cumulated counts by upper bound; ``None`` if nothing was.

    Inside a bucket values are taken to lie evenly, from zero in the first one. Above the highest finite bound nothing
    is known but that bound, which is returned: a lower bound of the true quantile. Without a bucket ``+Inf`` the
    counts are no histogram, and nothing is known.
    """
    bounds = sorted(counts)
    if not bounds or bounds[-1] != math.inf or counts[math.inf] <= 0:
        return None
    rank, below_bound, below = quantile * counts[math.inf], 0.0, 0.0
    for bound in bounds:
        count = max(counts[bound], below)  # buckets scraped in part may not rise
        if count >= rank:
            if bound == math.inf:
                return below_bound if len(bounds) > 1 else None
            if bound <= 0 or count == below:
                return bound
            return below_bound + (bound - below_bound) * (rank - below) / (count - below)
        below_bound, below = bound, count
    return None
