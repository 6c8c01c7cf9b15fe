"""A prior that live passes correct: ready before the first pass, and right soon after it.

The duration of a pass is a regression on what the prior says of it and on its work:

    factor · prior's decode time + factor · prior's prefill time + overhead + costs per token, pair, request, KV token

The two factors begin at 1 and learn first: a profile that is off by a factor is still a profile. The costs begin at 0
and are held there more tightly; they take over where many passes agree that the prior has the wrong shape. None can
be negative: more work never takes less time.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import attrs
import numpy as np

from planner_core.data.checks import config_number, object_with
from planner_core.data.fpm import SHORTEST_S, Bools, Floats, FpmBatch
from planner_core.perf.prior import Prior
from planner_core.perf.protocol import BatchLoad, Estimate
from planner_core.perf.regression import ROWS, axes, can_wait, fit, load_of, passes, still_holds
from planner_core.perf.retention import keep

COSTS: tuple[Callable[[BatchLoad], Any], ...] = (
    lambda load: 1.0,
    lambda load: load.prefill_tokens > 0,
    lambda load: load.prefill_tokens,
    lambda load: load.prefill_pairs,
    lambda load: load.num_decode,
    lambda load: np.sqrt(load.num_decode + load.prefill_tokens),
    lambda load: load.decode_kv_tokens,
)
"""What the costs are per: pass, pass with prompts (which runs without CUDA graphs), prompt token, attention pair,
decoding request, root of the tokens (the experts of a mixture that they meet) and KV token."""
IS_COST = np.arange(2 + len(COSTS)) >= 2
FACTOR_HOLD, COST_HOLD = 0.0004, 0.01
"""What the prior is worth, as a share of the passes that count: little against many, but enough to choose between
explanations that are equally good."""
PRIOR_PASSES = 8
"""Passes that it is worth at first …"""
PRIOR_HALF_LIFE = 8
"""… halved with so many passes seen."""
FIRST_ROUNDS, ROUNDS = 4, 2
"""Of reweighting: later fits start from the last one, and need fewer."""
ODD = 4.0
"""A pass off the estimate by more than this factor is a pause, a compilation, a broken record: it teaches nothing …"""
PATIENCE = 6
"""… unless most passes are, so many batches in a row: then the engine is another than was thought. Passes with prompts
and passes without are judged apart, since a prior may be right about one kind alone."""


def _samples(values: Any) -> Floats:
    if isinstance(values, np.ndarray) and not values.flags.writeable and values.base is None:
        return values
    array = np.array(values, dtype=np.float64)
    array = array if array.ndim == 2 else array.reshape(ROWS, -1)
    array.flags.writeable = False
    return array


def _kept() -> Any:
    return attrs.field(default=np.empty((ROWS, 0)), converter=_samples, eq=attrs.cmp_using(eq=np.array_equal))


@attrs.frozen(kw_only=True)
class BlendedState:
    """What a :class:`Blended` has learned. Bounded: at most ``max_samples`` passes, whatever has been seen."""

    samples: Floats = _kept()
    """Kept passes as columns, oldest first; rows: duration in s, prompt tokens, pairs, requests, KV tokens, number."""
    pending: Floats = _kept()
    """Passes that wait to be folded into the fit, as they say nothing new."""
    coefficients: tuple[float, ...] = tuple(np.where(IS_COST, 0.0, 1.0).tolist())
    """Factors of the prior's decode and prefill time, then the costs in seconds."""
    spread: float | None = None
    """Standard deviation of the duration, relative to the estimate; ``None``: the prior's."""
    num_seen: int = 0
    """Passes that have taught it, kept or not."""
    num_odd: tuple[int, int] = (0, 0)
    """Batches in a row of which most passes were too far off to be believed: passes with prompts, and without."""


@attrs.frozen(kw_only=True)
class Blended:
    """A :class:`~planner_core.perf.Profiled`, a :class:`~planner_core.perf.Roofline` or
    :class:`~planner_core.perf.Coefficients`, corrected by at most ``max_samples`` live passes.
    """

    prior: Prior = attrs.field(validator=object_with("init", "observe", "iteration_s", "parts_s"))
    """What is believed before the first pass."""
    max_samples: int = attrs.field(default=64, validator=config_number(whole=True, least=1))
    num_buckets: int = attrs.field(default=16, validator=config_number(whole=True, least=1, square=True))

    def __attrs_post_init__(self) -> None:
        importlib.import_module("scipy.optimize")  # here, so that no tick ever waits for it

    def init(self) -> BlendedState:
        """The prior as it is."""
        return BlendedState()

    def observe(self, state: BlendedState, batch: FpmBatch) -> BlendedState:
        """The state after the passes of ``batch``; idle heartbeats and impossible rows teach nothing."""
        new = passes(batch, state.num_seen)
        if not new.shape[1]:
            return state
        took = new[0] / np.maximum(self._mean_s(state, load_of(new)), SHORTEST_S)
        believed, num_odd = _believed(new, took, state.num_odd)
        if not believed.all():
            new, took = new[:, believed], took[believed]
            new[-1] = np.arange(state.num_seen, state.num_seen + len(took))
        num_seen = state.num_seen + len(took)
        pending = np.concatenate((state.pending, new), axis=1)
        if not len(took) or self._can_wait(state, num_seen, new, took):
            return BlendedState(
                samples=state.samples,
                pending=pending[:, :: max(1, -(-pending.shape[1] // self.max_samples))],
                coefficients=state.coefficients,
                spread=state.spread,
                num_seen=num_seen,
                num_odd=num_odd,
            )
        pool = np.concatenate((state.samples, pending), axis=1)
        for with_prompts, count in zip((True, False), num_odd, strict=True):
            if count == PATIENCE:  # what was kept of this kind is of the engine that it was thought to be
                pool = pool[:, ((pool[1] > 0) != with_prompts) | (pool[-1] >= state.num_seen)]
        return self._fitted(state, pool, num_seen, num_odd)

    def iteration_s(self, state: BlendedState, load: BatchLoad) -> Estimate:
        """Mean and spread of the duration."""
        mean_s = self._mean_s(state, load)
        spread = self.prior.spread if state.spread is None else state.spread
        return Estimate(mean_s=mean_s, std_s=spread * mean_s)

    def knowledge(self, state: BlendedState) -> tuple[float, ...]:
        """States with equal knowledge give equal means."""
        return state.coefficients

    def _mean_s(self, state: BlendedState, load: BatchLoad) -> Any:
        decodes, prompts, *costs = state.coefficients
        decode_s, prefill_s = self.prior.parts_s(load)
        mean_s: Any = decodes * decode_s + prompts * prefill_s
        for cost, column in zip(costs, COSTS, strict=True):
            if cost:
                mean_s = mean_s + cost * column(load)
        return mean_s

    def _can_wait(self, state: BlendedState, num_seen: int, new: Floats, took: Floats) -> bool:
        """Whether the new passes' median duration is the expected one, so that the fit can wait for more of them."""
        folded = int(state.samples[-1, -1]) + 1 if state.samples.shape[1] else 0
        if folded < self.max_samples or state.spread is None:
            return False
        return can_wait(num_seen - folded, new, np.ones_like(took), took, state.spread)

    def _fitted(
        self, state: BlendedState, pool: Floats, num_seen: int, num_odd: tuple[int, int]
    ) -> BlendedState:
        samples = pool[:, keep(axes(pool), self.max_samples, self.num_buckets)]
        load = load_of(samples)
        columns = np.empty((len(IS_COST), samples.shape[1]))
        for row, values in zip(
            columns, (*self.prior.parts_s(load), *(column(load) for column in COSTS)), strict=True
        ):
            row[:] = values
        if columns[3].all():
            columns[3] = 0.0  # prompts in every pass: their overhead is the pass's
        fade = PRIOR_PASSES * 2.0 ** (-num_seen / PRIOR_HALF_LIFE)
        share = np.where(IS_COST, COST_HOLD, FACTOR_HOLD)
        hold = np.maximum(share * samples.shape[1], np.where(IS_COST, len(COSTS), 1) * fade)
        found = fit(
            samples,
            columns,
            np.where(IS_COST, 0.0, 1.0),
            hold,
            start=np.array(state.coefficients),
            rounds=FIRST_ROUNDS if num_seen <= self.max_samples else ROUNDS,
        )
        coefficients = found.coefficients
        if num_seen > self.max_samples:
            before, after = (fit @ columns / samples[0] - 1 for fit in (state.coefficients, coefficients))
            if still_holds(before, after, samples, len(IS_COST)):
                coefficients = np.array(state.coefficients)
        certain = num_seen >= PRIOR_PASSES
        return BlendedState(
            samples=samples,
            coefficients=tuple(coefficients.tolist()),
            spread=found.spread if certain else max(found.spread, self.prior.spread),
            num_seen=num_seen,
            num_odd=num_odd,
        )


def _believed(new: Floats, took: Floats, num_odd: tuple[int, int]) -> tuple[Bools, tuple[int, int]]:
    """Which passes teach, by how many times the expected duration they took, and the counts of odd batches."""
    odd = (took > ODD) | (took < 1 / ODD)
    believed = ~odd
    if believed.all() and not any(num_odd):
        return believed, num_odd
    prompts, counts = new[1] > 0, list(num_odd)
    for place, kind in enumerate((prompts, ~prompts)):
        if kind.any():
            counts[place] = (
                counts[place] + 1 if 2 * np.count_nonzero(odd & kind) > np.count_nonzero(kind) else 0
            )
            if counts[place] >= PATIENCE:
                believed |= kind
    return believed, (counts[0], counts[1])
