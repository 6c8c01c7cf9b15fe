"""How wrong have my forecasts been lately? The spread of every predictor comes from its own recent errors.

The 90 % quantile of the absolute errors, per horizon, over a short memory: no distribution is assumed, a few
outliers don't move it, and the interval mean ± 1.645 std covers nine values in ten whatever the predictor.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import attrs
import numpy as np
import numpy.typing as npt

HORIZONS = (1, 2, 4, 8)
"""Steps ahead at which errors are kept; between them the spread is interpolated, beyond it grows as a root."""
LONGEST = HORIZONS[-1]
MEMORY = 48
"""Errors that are remembered per horizon."""
COVERAGE, Z = 0.9, 1.6448536269514722
"""Share of values that mean ± Z · std is to cover."""
FEWER_Z = (0.6744898, 0.9674216, 1.1503494, 1.2815516, 1.3829941, 1.4652338, 1.5341205, 1.5932188)
"""The same for 1, 2, … 8 errors: the largest of n is expected where n/(n + 1) of a normal distribution ends."""
SURPRISE = 6.0
"""A value this many standard deviations away is learned as if it were no further, unless it comes twice."""
JUMP = 3
"""So many surprises in a row, all to the same side, are a new level."""
HIGHEST = 1e100
"""Values above are learned as this one: squares of it still fit into a float."""
FEW = 8
"""With fewer errors than this nothing is surprising yet."""


@attrs.frozen(kw_only=True)
class Spread:
    """Forecasts that wait for their truth, and the errors of those that had it; by horizon."""

    expected: tuple[tuple[float, ...], ...] = ((),) * len(HORIZONS)
    """The latest forecasts for each horizon, oldest first, at most as many as its steps."""
    errors: tuple[tuple[float, ...], ...] = ((),) * len(HORIZONS)
    """The latest absolute errors at each horizon, oldest first."""
    surprise: int = 0
    """How many values in a row, up to :data:`JUMP`, were far above their forecasts; negative: far below."""

    @property
    def jumped(self) -> bool:
        """Whether the latest values are a new level: a model should start anew from there."""
        return abs(self.surprise) == JUMP

    def learn(self, value: float, memory: int = MEMORY) -> tuple[Spread, float]:
        """The spread after one more value, and the value as a model should learn it.

        A lone spike is cut to a few standard deviations; what follows it is learned as it is. So many in a row
        are a new level, and forecasts made before it are no longer waited for.
        """
        value = min(value, HIGHEST)
        surprise, tamed = 0, value
        if len(self.errors[0]) >= FEW and self.expected[0]:
            forecast = self.expected[0][0]
            most = SURPRISE * _std(self.errors[0])
            if abs(value - forecast) > most:
                side = 1 if value > forecast else -1
                surprise = side * min(1 + max(self.surprise * side, 0), JUMP)
                tamed = max(forecast + side * most, 0.0) if surprise == side else value
        errors = tuple(
            (*kept[max(0, len(kept) + 1 - memory) :], _short(abs(value - due[0])))
            if len(due) == steps and (steps == 1 or abs(surprise) < JUMP)
            else kept
            for steps, due, kept in zip(HORIZONS, self.expected, self.errors, strict=True)
        )
        expected = self.expected if abs(surprise) < JUMP else ((),) * len(HORIZONS)
        return Spread(expected=expected, errors=errors, surprise=surprise), tamed

    def expect(self, path: Sequence[float] | npt.NDArray[np.float64]) -> Spread:
        """The spread once a forecast of the next :data:`LONGEST` steps has been made."""
        expected = tuple(
            (*due[len(due) == steps :], float(path[steps - 1]))
            for steps, due in zip(HORIZONS, self.expected, strict=True)
        )
        return Spread(expected=expected, errors=self.errors, surprise=self.surprise)

    def std(self, steps: int) -> npt.NDArray[np.float64]:
        """Standard deviation of the next ``steps`` values; 0 while no forecast has met its truth.

        A horizon with few errors yet is no surer than the nearer one.
        """
        known: list[tuple[int, float]] = []
        for horizon, errors in zip(HORIZONS, self.errors, strict=True):
            if errors:
                std = _std(errors)
                young = len(errors) <= len(FEWER_Z)
                known.append((horizon, max(std, known[-1][1]) if young and known else std))
        if not known:
            return np.zeros(steps)
        if steps == 1:
            return np.array([known[0][1]])
        horizons, stds = zip(*known, strict=True)
        ahead = np.arange(1, steps + 1)
        growth = np.sqrt(np.maximum(ahead / horizons[-1], 1.0))
        spread: npt.NDArray[np.float64] = np.interp(ahead, horizons, stds) * growth
        return spread


def _std(errors: tuple[float, ...]) -> float:
    """From the 90 % quantile, with the finite-sample correction of conformal prediction (Vovk et al. 2005).

    A few errors haven't shown it yet: their largest one is read as the lower quantile that it is expected to be.
    """
    num = len(errors)
    if num <= len(FEWER_Z):
        return max(errors) / FEWER_Z[num - 1]
    return sorted(errors)[min(math.ceil(COVERAGE * (num + 1)), num) - 1] / Z


def _short(value: float) -> float:
    """Five digits are enough of an error, and keep a written state small."""
    return float(f"{value:.5g}")
