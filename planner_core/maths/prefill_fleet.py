"""TTFT of a fleet of prefill engines: prompts that batch, behind a router that knows the least loaded engine.

An engine that becomes free computes everything that waits, up to a chunk, in one pass. A pass with work W takes a + W:
so it is a queue with *gated batch service*. A fleet of N of them behind a router that picks the least loaded engine is
between a shared queue (M/G/N) and N queues of their own.
"""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np

from planner_core.config import EngineSpec
from planner_core.data.fpm import Floats
from planner_core.maths.delays import Delay, GammaWait, UniformWait
from planner_core.maths.in_turn import pool_of
from planner_core.maths.queueing import erlang, gated_passes
from planner_core.maths.shape import Iteration, RequestShape, chunk_tokens, prompt_s
from planner_core.perf import BatchLoad

NEAR = 4.0
"""The cost of one prompt more in a pass is measured between one prompt and this many …"""
FULL_POWER = 6
"""… and is that of a full pass where the fleet is nearly saturated: mixed by (rate ÷ saturated rate) to this power."""
ROUTED = 0.8
"""Share of M/M/N's further waits (beyond those lost in M/M/N/N) that a router without a shared queue leaves, if all
engines are busy nearly always; from simulations of 1 to 64 engines. It falls as engines are idle more often."""
SHORT_SHARE = 0.05
"""The router finds the engine whose pass is the shortest to last: in the limit of many, the residual of a pass as short
as this quantile."""
SELECTION = 0.3
"""How fast that limit comes: with engines to the power of minus this."""
EQUAL_LENGTHS = 30.0
"""Residual waits are uniform for equal prompts, gamma for mixed ones; this times cv² is the weight of the second."""


@attrs.frozen(kw_only=True, eq=False)
class PrefillFleet:
    """Prefill engines of one kind and requests of one shape, at any rate and number of engines."""

    share: Floats
    own_s: Floats
    low_s: Floats
    high_s: Floats
    """Time of a prompt that finds an idle engine, by class, and its spread in the class."""
    near_s: float
    """What one mean prompt more adds to a pass of a few."""
    full_s: float
    """A mean prompt's share of a full pass; 1 ÷ this is the saturated rate of one engine."""
    chunk_s: float
    """A full pass."""
    own_mean_s: float
    residual_s: float
    residual_variance: float
    """Mean and variance of what is left of a lone prompt's pass at a random moment in it."""
    short_s: float
    """Time of a short prompt alone."""
    equality: float
    """1 for prompts of equal length, towards 0 for mixed ones."""
    dealt: float
    """Share of the prompts that come to the engines in turn."""

    @classmethod
    def of(cls, iteration: Iteration, spec: EngineSpec, shape: RequestShape) -> PrefillFleet:
        chunk, fresh = chunk_tokens(spec), max(shape.fresh_isl, 1.0)
        lengths = shape.fresh_lengths
        own = prompt_s(iteration, np.array([lengths.low, lengths.tokens, lengths.high]), shape, chunk)
        low_s, own_s, high_s = np.maximum.accumulate(own, axis=0)
        share = lengths.share
        few = min(NEAR * fresh, chunk)
        sizes = np.array([fresh, few, chunk])
        one_s, few_s, chunk_s = iteration(
            BatchLoad(prefill_tokens=sizes, prefill_pairs=sizes * shape.pairs_per_token)
        ).tolist()
        full_s = chunk_s * fresh / chunk
        mean = float(share @ own_s)
        second, third = float(share @ own_s**2), float(share @ own_s**3)
        residual = second / (2 * mean)
        return cls(
            share=share,
            own_s=own_s,
            low_s=low_s,
            high_s=high_s,
            near_s=(few_s - one_s) / (few / fresh - 1) if few > 1.5 * fresh else full_s,
            full_s=full_s,
            chunk_s=chunk_s,
            own_mean_s=mean,
            residual_s=residual,
            residual_variance=max(third / (3 * mean) - residual**2, residual**2 / 3),
            short_s=float(np.interp(SHORT_SHARE, np.cumsum(share) - share / 2, own_s)),
            equality=_equality(second / mean**2 - 1),
            dealt=shape.dealt,
        )

    @property
    def saturated_rps(self) -> float:
        """Requests per second that one engine computes if there is always a queue."""
        return 1 / self.full_s

    @property
    def lone_ttft(self) -> Delay:
        """TTFT of a request all by itself."""
        return Delay(share=self.share, own_s=self.own_s, low_s=self.low_s, high_s=self.high_s, waits=())

    lone_itl_s = 0.0
    """A prefill engine has no ITL."""

    def ttft(self, engine_rps: Floats, engines: Floats) -> Delay:
        """TTFT at this rate per engine (below saturation), of fleets of this many engines; both of shape (fleets,)."""
        engines = pool_of(engines, self.dealt)
        load = engine_rps * self.full_s
        more_s = self.full_s + (self.near_s - self.full_s) * (1 - load**FULL_POWER)
        overhead_s = np.maximum(self.own_mean_s - more_s, 0.0)
        work = np.maximum(self.own_s - overhead_s[:, None], SMALL_S)
        work *= (more_s / (work @ self.share))[:, None]
        second = (work * work) @ self.share
        rho = np.minimum(engine_rps * more_s, MOST)

        # The pass that N → ∞ engines settle at, each with its even share of the arrivals: S = a + ρ·S.
        even_s = np.maximum(self.own_mean_s, overhead_s / (1 - rho))
        batch = np.maximum((even_s - overhead_s) / more_s, 1.0)
        stiff = np.minimum(rho + (load - rho) * np.minimum(even_s / self.chunk_s, 1.0), MOST)
        alone = gated_passes(engine_rps, overhead_s, more_s, second, rho, stiff)
        after = rho * alone.biased_s / 2
        shorter = (
            after - rho * np.minimum(alone.biased_s, self.chunk_s) / 2
        )  # a full pass takes no more prompts
        wait_s = np.maximum(alone.wait_s - shorter, 0.0)
        variance = alone.wait_variance * (wait_s / np.maximum(alone.wait_s, SMALL_S)) ** 2

        even_residual_s = (even_s + batch * (second - more_s**2) / even_s) / 2
        even_variance = even_residual_s**2 / 3
        lone_like = self.residual_variance * (even_residual_s / self.residual_s) ** 2
        even_variance = even_variance + (lone_like - even_variance) / batch
        mates_s = (batch - 1) * more_s

        chosen_s = self.residual_s - max(self.residual_s - self.short_s, 0.0) * (1 - engines**-SELECTION)
        residual_s = np.maximum(even_residual_s - self.residual_s + chosen_s, even_residual_s / 4)
        excess_s = np.maximum(wait_s - even_residual_s - mates_s, 0.0) / engines
        excess_variance = np.maximum(variance - even_variance, 0.0) / engines**2
        certain_s = mates_s * (1 - 1 / engines)
        queued = np.where(engines > 1, self._all_busy(engine_rps, engines, alone.busy), alone.busy)

        high_s = np.minimum(2 * residual_s, 2 * even_residual_s)
        uniform = UniformWait(
            _column(certain_s + 2 * residual_s - high_s), _column(certain_s + high_s), _column(excess_s)
        )
        gamma = GammaWait(
            _column(certain_s),
            _column(residual_s + mates_s - certain_s + excess_s),
            _column(even_variance * (residual_s / even_residual_s) ** 2 + excess_variance),
        )
        return Delay(
            share=self.share,
            own_s=self.own_s,
            low_s=self.low_s,
            high_s=self.high_s,
            waits=tuple(
                (_column(queued * part), wait)
                for part, wait in ((self.equality, uniform), (1 - self.equality, gamma))
                if part
            ),
        )

    def _all_busy(self, engine_rps: Floats, engines: Floats, busy_alone: Floats) -> Floats:
        """Share of the arrivals that find no idle engine.

        A router that sends each prompt to the least loaded engine at once can't move it when another becomes idle. So
        it finds an idle engine more often than M/M/N with its shared queue (Erlang C), less often than M/M/N/N where
        nothing waits (Erlang B). Where between the two is a fit.
        """
        offered = engine_rps * self.own_mean_s
        r = np.minimum(offered, MOST)
        lost, shared = erlang(engines, engines * r)
        idle = (1 - r) * engines
        pressed = ROUTED + (1 - ROUTED) * np.clip((offered - 1) / 0.2, 0.0, 1.0)
        between = pressed / (1 + 0.1 * idle + 0.05 * idle * idle)
        return np.minimum(lost + (shared - lost) * between, busy_alone)


def _equality(cv2: float) -> float:
    equality = 1 / (1 + EQUAL_LENGTHS * max(cv2, 0.0))
    return 0.0 if equality < 0.05 else 1.0 if equality > 0.99 else equality


MOST = 0.9999
SMALL_S = 1e-9


def _column(values: Any) -> Any:
    return np.asarray(values)[:, None]
