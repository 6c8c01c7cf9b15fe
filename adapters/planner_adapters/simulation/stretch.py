"""A stretch of equal decode passes in closed form: many passes for the price of one event."""

from __future__ import annotations

from math import sqrt


class Stretch:
    """``passes`` decode passes from ``start_s`` on, of which each takes ``growth_s`` longer than the one
    before.

    Every time is computed from the start, so that cutting a stretch, or looking into it, moves no later pass.
    """

    __slots__ = ("first_s", "growth_s", "passes", "start_s")

    def __init__(self, start_s: float, first_s: float, growth_s: float, passes: int) -> None:
        self.start_s = start_s
        self.first_s = first_s
        self.growth_s = growth_s
        self.passes = passes

    def end_s(self, passes: int) -> float:
        """When the first ``passes`` passes are over."""
        return self.start_s + passes * self.first_s + self.growth_s * (passes * (passes - 1) / 2)

    def pass_s(self, number: int) -> float:
        """Duration of pass ``number`` (the first is 1)."""
        return self.first_s + self.growth_s * (number - 1)

    def passes_by(self, time_s: float) -> int:
        """How many passes are over at ``time_s``."""
        done = min(self.passes, max(0, int(self._estimate(time_s - self.start_s))))
        while done < self.passes and self.end_s(done + 1) <= time_s:
            done += 1
        while done and self.end_s(done) > time_s:
            done -= 1
        return done

    def cut(self, time_s: float) -> None:
        """End with the pass that runs at ``time_s``, or with one that ends just then; never before the
        first.
        """
        done = self.passes_by(time_s)
        if done and self.end_s(done) == time_s:
            self.passes = done
        else:
            self.passes = min(self.passes, done + 1)

    def _estimate(self, elapsed_s: float) -> float:
        """Solves elapsed = first n + growth n (n - 1) / 2 for n, up to rounding."""
        half = self.growth_s / 2
        if half * 1e9 < self.first_s * 1e-3:
            return elapsed_s / self.first_s
        linear = self.first_s - half
        return (sqrt(max(0.0, linear * linear + 4 * half * elapsed_s)) - linear) / (2 * half)
