"""A bounded memory of values, and what can be seen in it: a period, and when it is time to look again."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numpy.fft import irfft, rfft

Values = npt.NDArray[np.float64]

SHORTEST_PERIOD = 8
"""Steps of the shortest period that is looked for; what repeats faster is for the lags."""
STRETCHES = 4
"""A period is this many to twice as many stretches long, whose means are compared."""
LEAST_CORRELATION = 0.3
"""Correlation of the changes of two successive periods below which a period is no period."""
MOST_CORRELATION = 0.95
"""Correlation that is always enough."""
SIGNIFICANCE = 2.0
"""Standard errors that the correlation must be away from chance."""
WEEK = 7
"""Periods in a larger one, if the period is a day."""
NEARLY_AS_HIGH = 0.8
"""The shortest lag with this share of the highest correlation is the period; the others are its multiples."""


def appended(values: Values, value: float, most: int) -> Values:
    """The last ``most`` values, read-only. Six digits are enough, and keep a written state small."""
    kept = np.append(values[max(0, len(values) + 1 - most) :], float(f"{value:.6g}"))
    kept.flags.writeable = False
    return kept


def quantile(values: Values, share: float) -> float:
    """The value that this share of the others is below. numpy's own imports a package at its first call."""
    place = int(share * (len(values) - 1) + 0.5)
    return float(np.partition(values, place)[place])


def median(values: Values) -> float:
    """The middle value, the upper one of two."""
    return quantile(values, 0.5)


def is_due(count: int, every: int) -> bool:
    """Whether to estimate again after ``count`` values: often at first, then ``every`` so many."""
    return count % every == 0 or (count < every and count & (count - 1) == 0)


def find_period(values: Values) -> int | None:
    """Steps after which the series repeats its ups and downs, if it has done so twice or more; else ``None``.

    Compared are changes, from the mean of a stretch to the mean of the next, a fourth to an eighth of the
    period long: slow drifts, the last value's noise and lone spikes say nothing about a period.
    """
    num = len(values)
    if num < 2 * SHORTEST_PERIOD:
        return None
    low, high = quantile(values, 0.02), quantile(values, 0.98)
    scale = high - low
    if not scale > 1e-9 * high:
        return None
    sums = np.concatenate(([0.0], np.cumsum((np.clip(values, low, high) - low) / scale)))
    correlation, enough = np.full(num // 2 + 1, -np.inf), np.ones(num // 2 + 1)
    stretch = SHORTEST_PERIOD // STRETCHES
    while STRETCHES * stretch <= num // 2:
        lags = np.arange(STRETCHES * stretch, min(2 * STRETCHES * stretch, num // 2 + 1))
        correlation[lags] = _correlation_of_changes(sums, stretch)[lags]
        chance = SIGNIFICANCE / np.sqrt((num - 2 * stretch - lags) / (2 * stretch))
        enough[lags] = np.clip(chance, LEAST_CORRELATION, MOST_CORRELATION)
        stretch *= 2
    found = np.flatnonzero(correlation >= enough)
    if not len(found):
        return None
    shortest = int(found[np.argmax(correlation[found] >= NEARLY_AS_HIGH * correlation[found].max())])
    near = np.arange(shortest - shortest // 16, min(shortest + shortest // 8, num // 2) + 1)
    times = np.arange(1, 1 + min(WEEK, num // 2 // int(near[-1])))  # a step too many is seven in a week
    sharper = _correlation_of_changes(sums, max(1, shortest // STRETCHES // 2))
    return int(near[np.argmax(sharper[near[:, None] * times].mean(axis=1))])


def _correlation_of_changes(sums: Values, stretch: int) -> Values:
    """By lag, the correlation of changes from one stretch to the next with those that came so much earlier."""
    changes = sums[2 * stretch :] - 2 * sums[stretch:-stretch] + sums[: -2 * stretch]
    size = len(changes)
    padded = 1 << (2 * size - 1).bit_length()
    products = irfft(np.abs(rfft(changes, padded)) ** 2)[:size]
    squares = np.concatenate(([0.0], np.cumsum(changes**2)))
    lags = np.arange(size)
    correlation: Values = products / np.maximum(
        np.sqrt(squares[size - lags] * (squares[size] - squares[lags])), 1e-12
    )
    return correlation
