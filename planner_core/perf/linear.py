"""Online regression of the duration of a pass on its work: non-negative, robust, bounded in memory.

A pass costs an overhead, plus something for each prompt token, each attention pair of the prompts, each decoding
request and each token of KV cache that is read. Two costs are no straight lines: a pass with any prompt runs without
CUDA graphs, and few tokens meet few experts of a mixture, which the root of the tokens follows well enough. All seven
are non-negative by nature, so they are fitted by non-negative least squares (Lawson and Hanson, 1974, as in scipy).
"""

from __future__ import annotations

import importlib
import math
from typing import Any

import attrs
import numpy as np

from planner_core.data.checks import config_number
from planner_core.data.fpm import Floats, FpmBatch
from planner_core.perf.protocol import BatchLoad, Estimate
from planner_core.perf.regression import (
    ROWS,
    axes,
    can_wait,
    counts,
    passes,
    spread_of,
    still_holds,
    trusted,
)
from planner_core.perf.retention import keep

FEATURES = 7
"""Costs per pass, prompt token, attention pair, decoding request, KV token, pass with prompts, root of the tokens."""
FIRST_FIT_ROUNDS = 6
"""Reweighting rounds of the first fit; later fits start from the last one, and need fewer."""
ROUNDS = 2
PRIOR_SPREAD = 0.3
"""Standard deviation of the prior's costs, as shares of a pass; it decides only what the passes leave open …"""
FEW, FEW_SPREAD, MOST_SPREAD = 7.0, 0.05, 0.1
"""… which is more if they vary more: in a first guess by ``FEW_SPREAD``, which counts as so many passes, and at most by
``MOST_SPREAD``, so that an engine that has changed isn't taken for one of which nothing is known."""
PRIOR_SHAPE = np.array([1.0, 1 / 150, 1e-7, 1 / 500, 1 / 200_000, 0.0, 0.0])
"""The prior: how costs relate, as multiples of the overhead. An 8B model on an H100 computes 150 prompt tokens, or
decodes for 500 requests, or reads 200 000 KV tokens in the time of an empty pass; others, within a factor of three."""


def _frozen_array(values: Any) -> Floats:
    if isinstance(values, np.ndarray) and values.dtype == np.float64 and not values.flags.writeable:
        return values
    array = np.array(values, dtype=np.float64)
    array.flags.writeable = False
    return array


def _array_field(default: Floats) -> Any:
    return attrs.field(default=default, converter=_frozen_array, eq=attrs.cmp_using(eq=np.array_equal))


def _samples(values: Any) -> Floats:
    array = _frozen_array(values)
    return array if array.ndim == 2 else array.reshape(ROWS, -1)


@attrs.frozen(kw_only=True)
class LinearState:
    """What a :class:`Linear` has learned. Bounded: at most ``max_samples`` passes, whatever has been seen."""

    samples: Floats = attrs.field(
        default=np.empty((ROWS, 0)), converter=_samples, eq=attrs.cmp_using(eq=np.array_equal)
    )
    """Kept passes as columns, oldest first; rows: duration in s, prompt tokens, pairs, requests, KV tokens, number."""
    pending: Floats = attrs.field(
        default=np.empty((ROWS, 0)), converter=_samples, eq=attrs.cmp_using(eq=np.array_equal)
    )
    """Passes that wait to be folded into the fit, as they say nothing new; at most ``max_samples``."""
    coefficients: Floats = _array_field(np.zeros(FEATURES))
    """Seconds per pass, prompt token, attention pair, decoding request, KV token, pass with prompts, root of tokens."""
    spread: float = 0.0
    """Standard deviation of the duration, relative to the estimate (from the median residual)."""
    num_seen: int = 0
    """Passes that have taught it, kept or not."""
    fitted: bool = False


@attrs.frozen(kw_only=True)
class Linear:
    """Regression over at most ``max_samples`` passes, kept in ``num_buckets`` buckets over the inputs."""

    max_samples: int = attrs.field(default=64, validator=config_number(whole=True, least=1))
    num_buckets: int = attrs.field(default=16, validator=config_number(whole=True, least=1, square=True))
    min_observations: int = attrs.field(default=5, validator=config_number(whole=True, least=1))

    def __attrs_post_init__(self) -> None:
        importlib.import_module("scipy.optimize")  # here, so that no tick ever waits for it

    def init(self) -> LinearState:
        """No pass seen."""
        return LinearState()

    def observe(self, state: LinearState, batch: FpmBatch) -> LinearState:
        """The state after the passes of ``batch``; idle heartbeats and impossible rows teach nothing."""
        new = passes(batch, state.num_seen)
        num_seen = state.num_seen + new.shape[1]
        if num_seen == state.num_seen:
            return state
        pending = np.concatenate((state.pending, new), axis=1)
        folded = int(state.samples[-1, -1]) + 1 if state.fitted else 0
        settled = state.fitted and num_seen > self.max_samples
        if settled and can_wait(
            num_seen - folded, new, _mean_s(state.coefficients, *new[1:-1]), new[0], state.spread
        ):
            if pending.shape[1] > self.max_samples:
                pending = pending[:, :: math.ceil(pending.shape[1] / self.max_samples)].copy()
            pending.flags.writeable = False
            return LinearState(
                samples=state.samples,
                pending=pending,
                coefficients=state.coefficients,
                spread=state.spread,
                num_seen=num_seen,
                fitted=True,
            )
        pool = np.concatenate((state.samples, pending), axis=1)
        samples = pool[:, keep(axes(pool), self.max_samples, self.num_buckets)]
        if num_seen < self.min_observations:
            return LinearState(samples=samples, num_seen=num_seen)
        start, rounds = (state.coefficients, ROUNDS) if state.fitted else (None, FIRST_FIT_ROUNDS)
        coefficients, spread = _fit(samples, start, rounds)
        if settled:
            before, after = (
                _mean_s(fit, *samples[1:-1]) / samples[0] - 1 for fit in (state.coefficients, coefficients)
            )
            if still_holds(before, after, samples, FEATURES):
                coefficients = state.coefficients
        return LinearState(
            samples=samples, coefficients=coefficients, spread=spread, num_seen=num_seen, fitted=True
        )

    def iteration_s(self, state: LinearState, load: BatchLoad) -> Estimate | None:
        """Mean and spread of the duration; ``None`` before ``min_observations`` passes."""
        if not state.fitted:
            return None
        mean_s = _mean_s(
            state.coefficients,
            load.prefill_tokens,
            load.prefill_pairs,
            load.num_decode,
            load.decode_kv_tokens,
        )
        return Estimate(mean_s=mean_s, std_s=state.spread * mean_s)

    def knowledge(self, state: LinearState) -> bytes:
        """States with equal knowledge give equal means."""
        return state.coefficients.tobytes()


def _mean_s(
    coefficients: Floats,
    prefill_tokens: Any,
    prefill_pairs: Any,
    num_decode: Any,
    decode_kv_tokens: Any,
) -> Any:
    overhead, per_token, per_pair, per_request, per_kv_token, with_prompts, per_root = coefficients.tolist()
    prefill_s = per_token * prefill_tokens + per_pair * prefill_pairs
    mean_s = overhead + prefill_s + per_request * num_decode + per_kv_token * decode_kv_tokens
    if with_prompts:
        mean_s = mean_s + with_prompts * (prefill_tokens > 0)
    if per_root:
        mean_s = mean_s + per_root * np.sqrt(prefill_tokens + num_decode)
    return mean_s


def _fit(samples: Floats, start: Floats | None, rounds: int) -> tuple[Floats, float]:
    """Coefficients and relative spread, by iteratively reweighted non-negative least squares.

    Errors are relative (each pass is divided by its duration), so a slow outlier has a residual of at most 1, and
    short passes matter as much as long ones. Huber weights (Huber, 1964) take the rest of the outliers' pull. A
    weak prior says how the costs relate; it settles what one operating point alone leaves open, and a handful of
    varied passes overrules it: it weighs as much as errors of its spread do beside those of a pass (the posterior mode
    of a normal prior; ridge regression, Hoerl and Kennard 1970), so that passes which hardly vary beside a line say
    where that line leads, however near to each other they are. Old passes count less.
    """
    from scipy.optimize import nnls

    num = samples.shape[1]
    rows = np.empty((FEATURES, num))
    rows[0] = 1.0
    rows[1:5] = samples[1:5]
    rows[5] = samples[1] > 0
    if rows[5].all():
        rows[5] = 0.0  # prompts in every pass: their overhead is the pass's
    np.sqrt(samples[1] + samples[3], out=rows[6])
    rows /= samples[0]
    count = counts(samples)
    young = np.sqrt(count)
    scale = rows.sum(axis=1) / num
    used = scale > 0
    scale, rows = scale[used], rows[used]
    num_used = len(rows)
    rows /= scale[:, None]  # means of 1: the solver's pivots, and the prior, see one size
    system = np.zeros((num + num_used, num_used))
    target = np.empty(num + num_used)
    np.multiply(rows.T, young[:, None], out=system[:num])
    target[:num] = young
    share = PRIOR_SHAPE[used] * scale
    share /= share.sum()

    def hold(prior: float) -> None:
        system[num:].flat[:: num_used + 1] = prior
        target[num:] = prior * share

    hold(FEW_SPREAD / PRIOR_SPREAD)
    solution = nnls(system, target)[0] if start is None else start[used] * scale
    seen = float(count.sum())
    for _ in range(rounds):
        residual = np.abs(solution @ rows - 1.0)
        spread = spread_of(residual, count)
        varies = math.sqrt((seen * spread**2 + FEW * FEW_SPREAD**2) / (seen + FEW))
        hold(min(varies, MOST_SPREAD) / PRIOR_SPREAD)
        bound = trusted(samples, residual, count)
        weight = young * np.minimum(1.0, np.sqrt(bound / np.maximum(residual, 1e-12)))
        np.multiply(rows.T, weight[:, None], out=system[:num])
        target[:num] = weight
        solution = nnls(system, target)[0]
    coefficients = np.zeros(FEATURES)
    coefficients[used] = solution / scale
    return coefficients, spread_of(np.abs(solution @ rows - 1.0), count)
