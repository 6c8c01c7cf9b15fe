"""How long a request may take, as a distribution: its own time, by class of request, and what it waits before.

A :class:`Delay` answers for many fleets at once: arrays of shape (fleets, classes), or anything that broadcasts to it.
"""

from __future__ import annotations

import functools
from typing import Any, Protocol

import attrs
import numpy as np

from planner_core.data.fpm import Floats

HALVINGS = 36
"""Of the interval that holds a quantile: 1e-11 of it is left."""
SMALL = 1e-9


class Wait(Protocol):
    """The distribution of a wait."""

    @property
    def mean_s(self) -> Any:
        """Its mean, of shape (fleets, 1) or (fleets, classes)."""
        ...

    def beyond(self, t_s: Floats) -> Floats:
        """P(wait > t), for t of shape (fleets, classes)."""
        ...


@attrs.frozen
class GammaWait:
    """At least ``least_s``; what is above it is gamma distributed with this mean and variance.

    Two moments of a sum of positive parts, fitted: exact for exponential waits (M/M/1), and close to the
    Pollaczek–Khinchine distribution from light to heavy traffic.
    """

    least_s: Any
    above_s: Any
    variance: Any

    @property
    def mean_s(self) -> Any:
        return self.least_s + self.above_s

    def beyond(self, t_s: Floats) -> Floats:
        from scipy.special import gammainc  # gammaincc takes fifty times as long for small shapes and times

        mean = np.maximum(self.above_s, 1e-12)
        variance = np.maximum(self.variance, SMALL * mean * mean)
        shape = mean * mean / variance
        tail: Floats = 1 - gammainc(shape, np.maximum(t_s - self.least_s, 0.0) * (mean / variance))
        return tail


@attrs.frozen
class UniformWait:
    """Uniform between ``low_s`` and ``high_s``, plus an exponential with mean ``more_s``; ``None``: without that.

    The residual of a pass of known length is uniform (PASTA); what queues before it has an exponential tail. With
    width w and U + E, E ~ Exp(m): P(U + E > t) = 1 − t/w + (m/w)·(1 − e^(−t/m)) for 0 ≤ t ≤ w, and
    (m/w)·(1 − e^(−w/m))·e^(−(t − w)/m) beyond.
    """

    low_s: Any
    high_s: Any
    more_s: Any

    @property
    def mean_s(self) -> Any:
        return (self.low_s + self.high_s) / 2 + (0.0 if self.more_s is None else self.more_s)

    def beyond(self, t_s: Floats) -> Floats:
        width = np.maximum(self.high_s - self.low_s, SMALL * self.high_s + 1e-12)
        inside = np.minimum(np.maximum(t_s - self.low_s, 0.0), width)
        if self.more_s is None:
            alone: Floats = 1 - inside / width
            return alone
        more = np.maximum(self.more_s, SMALL * width)
        ratio = more / width
        tail: Floats = (1 - inside / width + ratio * (1 - np.exp(-inside / more))) * (
            np.exp(-np.maximum(t_s - self.low_s - width, 0.0) / more)
        )
        return tail


@attrs.frozen(kw_only=True, eq=False)
class Delay:
    """A latency over the requests of one or many fleets."""

    share: Floats
    """Of each class; shape (classes,)."""
    own_s: Any
    """What a request of each class takes by itself."""
    low_s: Any
    high_s: Any
    """The spread of that within the class; seen by those that don't wait."""
    waits: tuple[tuple[Any, Wait], ...]
    """(share of the requests, shape (fleets, 1); how long they wait). The shares may sum to less than 1: the others
    don't wait."""

    @property
    def waiting(self) -> Any:
        """Share of the requests that wait, of shape (fleets, 1)."""
        share = 0.0
        for weight, _ in self.waits:
            share = share + weight
        return share

    @functools.cached_property
    def mean_s(self) -> Floats:
        """Shape (fleets,)."""
        total = np.asarray(self.own_s)
        for weight, wait in self.waits:
            total = total + weight * wait.mean_s
        return self._over_classes(total)

    def beyond(self, t_s: Floats | float) -> Floats:
        """P(latency > t), of shape (fleets,); ``t_s`` is a number or one for each fleet."""
        t = np.asarray(t_s, dtype=np.float64).reshape(-1, 1)
        width = np.maximum(self.high_s - self.low_s, SMALL * self.high_s + 1e-12)
        tail = (1 - self.waiting) * np.minimum(np.maximum((self.high_s - t) / width, 0.0), 1.0)
        after = t - self.own_s
        for weight, wait in self.waits:
            tail = tail + weight * wait.beyond(after)
        return self._over_classes(tail)

    def quantile_s(self, quantile: float) -> Floats:
        """The smallest t with P(latency > t) ≤ 1 − quantile, of shape (fleets,)."""
        mean = self.mean_s
        low = np.zeros_like(mean)
        high: Floats = np.max(self.high_s, axis=-1) + 2 * mean
        miss = 1 - quantile
        while (self.beyond(high) > miss).any():
            high = np.where(self.beyond(high) > miss, 2 * high, high)
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            over = self.beyond(middle) > miss
            low, high = np.where(over, middle, low), np.where(over, high, middle)
        return high

    def _over_classes(self, values: Any) -> Floats:
        mean: Floats = np.add.reduce(np.atleast_2d(values) * self.share, axis=1)
        return mean
