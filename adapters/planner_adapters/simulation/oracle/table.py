"""One role's windows as a table of misses by number of replicas, and the cheapest way through it."""

from __future__ import annotations

import attrs
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from planner_adapters.simulation.baselines import fit
from planner_adapters.simulation.oracle.windows import Survey
from planner_adapters.simulation.pool import PoolSpec
from planner_adapters.simulation.results import Floats, Ints
from planner_core import PlannerConfig, Role

DRAIN_S = 10.0
"""About how long a replica takes to finish what it has."""
LONGEST_CUT = 20
"""Windows in a row that are tried with one replica less."""


@attrs.define(kw_only=True, eq=False)
class MissTable:
    """One role's misses by window and number of replicas, and what replicas cost."""

    numbers: Ints
    """Replicas that a window may have."""
    misses: Floats
    """(windows, numbers)."""
    cost_s: Floats
    """GPU-seconds of a window, by number of replicas."""
    moves_s: Floats
    """GPU-seconds of going from one number (row) to another (column)."""
    initial: int
    fixed_windows: int
    """Windows that begin before a replica could have started: there can be no more than at the start."""

    @classmethod
    def of(cls, survey: Survey, role: Role, spec: PoolSpec, config: PlannerConfig) -> MissTable:
        """From the survey, within the role's minimum and maximum."""
        limits = config.engines[role]
        curves = survey.curves[role]
        most = max(max(curve.replicas[-1] for curve in curves), spec.replicas, limits.min_replicas)
        most = fit(config, {role: most})[role]
        numbers = np.arange(min(limits.min_replicas, spec.replicas), most + 1)
        change = numbers[None, :] - numbers[:, None]
        gpus = spec.engine.num_gpus
        return cls(
            numbers=numbers,
            misses=np.array([curve.at(numbers) for curve in curves]),
            cost_s=gpus * survey.window_s * numbers.astype(np.float64),
            moves_s=gpus * np.where(change > 0, spec.startup_s * change, DRAIN_S * -change),
            initial=min(spec.replicas, most),
            fixed_windows=int(np.ceil(spec.startup_s / survey.window_s - 1e-9)),
        )

    def plan(self, price_s: float) -> Ints:
        """The cheapest replicas of each window where a missed request costs ``price_s``; dynamic programming."""
        here = np.where(self.numbers == self.initial, 0.0, np.inf)
        came_from = np.empty(self.misses.shape, dtype=np.int64)
        for window, misses in enumerate(self.misses):
            through = here[:, None] + self.moves_s
            if window < self.fixed_windows:
                through[:, self.numbers > self.initial] = np.inf
            came_from[window] = through.argmin(axis=0)
            here = through.min(axis=0) + self.cost_s + price_s * misses
        place = int(here.argmin())
        chosen = np.empty(len(self.misses), dtype=np.int64)
        for window in range(len(chosen) - 1, -1, -1):
            chosen[window] = self.numbers[place]
            place = came_from[window, place]
        return chosen

    def expected(self, replicas: Ints) -> float:
        """Misses of a plan, as far as is known."""
        return float(self.misses[np.arange(len(replicas)), replicas - self.numbers[0]].sum())

    def cut(self, replicas: Ints, spare: float) -> Ints:
        """The plan with one replica less over rows of windows, those that save most first, as long as no more than
        ``spare`` requests miss by it. (One price for all misses leaves some of them unused.)
        """
        replicas = replicas.copy()
        while True:
            first, end, saved_s, missed = self._cuts(replicas)
            saved_s[missed > spare] = 0.0
            best = int(saved_s.argmax())
            if not saved_s[best] > 0:
                return replicas
            replicas[first[best] : end[best]] -= 1
            spare -= float(missed[best])

    def _cuts(self, replicas: Ints) -> tuple[Ints, Ints, Floats, Floats]:
        """Every row of windows, up to a length: first, end, GPU-seconds that one replica less saves, more misses."""
        place = replicas - self.numbers[0]
        windows = np.arange(len(place))
        lower = np.maximum(place - 1, 0)
        missed = self.misses[windows, lower] - self.misses[windows, place]
        missed[place == 0] = np.inf
        step_s = self.cost_s[place] - self.cost_s[lower]
        before = np.concatenate([[self.initial - self.numbers[0]], place])
        after = np.append(place, place[-1])
        found = []
        for length in range(1, min(LONGEST_CUT, len(place)) + 1):
            first = windows[: len(place) - length + 1]
            last = first + length - 1
            saved_s, more = (sliding_window_view(column, length).sum(axis=1) for column in (step_s, missed))
            saved_s += self.moves_s[before[first], place[first]] - self.moves_s[before[first], lower[first]]
            saved_s += self.moves_s[place[last], after[last + 1]] - self.moves_s[lower[last], after[last + 1]]
            found.append((first, last + 1, saved_s, more))
        first, end, saved_s, more = (np.concatenate(column) for column in zip(*found, strict=True))
        return first, end, saved_s, more

    def correct(self, replicas: Ints, missed: Floats) -> None:
        """What the simulator said of a plan; more replicas miss no more than that, and fewer no less."""
        for row, number, seen in zip(self.misses, replicas - self.numbers[0], missed, strict=True):
            row[number] = seen
            np.minimum(row[number:], seen, out=row[number:])
            np.maximum(row[:number], seen, out=row[:number])
