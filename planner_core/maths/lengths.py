"""The mix of request lengths as a few classes, so that a quantile over requests is a weighted sum over classes."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import attrs
import numpy as np

from planner_core.data.fpm import Floats

EDGES = np.array([0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.995, 1.0])
"""Probabilities that part a continuous distribution into classes: fine in the tail, where an SLA lives."""
_SHARE = np.diff(EDGES)
FARTHEST = 3.2
"""Standard deviations at which the outermost classes are taken to end."""
BODY_CV2 = 1.0
"""Squared coefficient of variation of all outputs but the few that are far longer."""
TAIL_SHARE = 0.02
"""Those few, as a share of the requests."""
LEAST_BODY = 0.5
"""The others' mean is at least this part of the mean."""
NEXT_TO_CONSTANT = 1e-4
"""Squared coefficient of variation below which all lengths count as equal."""


@functools.cache
def _normal_edges() -> Floats:
    """``EDGES`` as quantiles of the standard normal distribution."""
    from statistics import NormalDist  # here, as importing it takes longer than any module of ours

    inner = [NormalDist().inv_cdf(float(p)) for p in EDGES[1:-1]]
    return np.array([-np.inf, *inner, np.inf])


@attrs.frozen(kw_only=True, eq=False)
class Lengths:
    """Classes of lengths, shortest first; arrays of shape (classes,)."""

    share: Floats
    """Of the requests; sums to 1."""
    low: Floats
    tokens: Floats
    """Mean within the class."""
    high: Floats

    @classmethod
    def of(
        cls, mean: float, cv2: float | None = None, mix: Sequence[tuple[float, float, float]] | None = None
    ) -> Lengths:
        """Log-normal with this mean and squared coefficient of variation (1 where that isn't known), or, where more is
        known, a ``mix`` of such kinds as (share, mean, cv²).

        Log-normal, because request lengths are near it: skewed, positive, with products of many causes. The mean of a
        class between the quantiles a and b of a log-normal distribution is mean·(Φ(z_b − σ) − Φ(z_a − σ))/(b − a), with
        σ² = ln(1 + cv²) (Aitchison and Brown, The Lognormal Distribution, 1957, section 2.4).
        """
        if mix:
            return _mixed([share for share, _, _ in mix], [cls.of(kind, spread) for _, kind, spread in mix])
        from scipy.special import ndtr

        cv2 = 1.0 if cv2 is None else cv2
        if cv2 < NEXT_TO_CONSTANT:
            only = np.array([mean])
            return cls(share=np.ones(1), low=only, tokens=only, high=only)
        sigma = math.sqrt(math.log1p(cv2))
        z = _normal_edges()
        edges = mean * np.exp(sigma * np.clip(z, -FARTHEST, FARTHEST) - sigma * sigma / 2)
        below = ndtr(z - sigma)
        tokens = mean * np.diff(below) / _SHARE
        return cls(share=_SHARE, low=edges[:-1], tokens=tokens, high=np.maximum(edges[1:], tokens))

    @classmethod
    def with_tail(cls, mean: float, cv2: float) -> Lengths:
        """Log-normal up to a ``cv2`` of ``BODY_CV2``; what they vary beyond that comes from a few that are far longer.

        In recorded services whose outputs vary by 4.5 to 4.8, nearly all of them vary by less than 1: a log-normal
        distribution has a tenth of its requests shorter than hardly any is.
        """
        if cv2 <= BODY_CV2:
            return cls.of(mean, cv2)
        # (1 - p)·body²·(1 + BODY_CV2) + p·tail² = mean²·(1 + cv2), with (1 - p)·body + p·tail = mean, solved for body.
        p, q = TAIL_SHARE, 1 - TAIL_SHARE
        square, linear = q * (1 + BODY_CV2) + q * q / p, q / p
        rest = 1 / p - 1 - cv2
        body = (linear - math.sqrt(max(linear * linear - square * rest, 0.0))) / square
        body = max(body, LEAST_BODY)
        return cls.of(0.0, None, ((q, body * mean, BODY_CV2), (p, (1 - q * body) / p * mean, 0.0)))

    def times(self, factor: float) -> Lengths:
        """Every length ``factor`` times."""
        return attrs.evolve(self, low=self.low * factor, tokens=self.tokens * factor, high=self.high * factor)


def _mixed(shares: Sequence[float], kinds: Sequence[Lengths]) -> Lengths:
    """All classes of all kinds, shortest first."""
    weights = [kind.share * (share / sum(shares)) for share, kind in zip(shares, kinds, strict=True)]
    tokens = np.concatenate([kind.tokens for kind in kinds])
    order = tokens.argsort(kind="stable")
    return Lengths(
        share=np.concatenate(weights)[order],
        low=np.concatenate([kind.low for kind in kinds])[order],
        tokens=tokens[order],
        high=np.concatenate([kind.high for kind in kinds])[order],
    )
