"""Robust non-negative regression of the duration of passes on columns of their work, held near what was expected."""

from __future__ import annotations

import math
from typing import Any

import attrs
import numpy as np

from planner_core.data.fpm import Floats, FpmBatch
from planner_core.perf.protocol import BatchLoad, pairs

ROWS = 6
"""A kept pass: duration in s, prompt tokens, pairs, requests, KV tokens, and its number since the first."""
HUBER = 1.5
"""Residuals beyond this many spreads count linearly: a pause of a minute or a compilation bends nothing."""
ENOUGH = 3
"""So many passes with prompts among others, or without, tell the spread of their kind."""
SPREAD_FLOOR = 0.02
"""Relative spread that is always granted; below it, every tiny residual would look like an outlier."""
HALF_LIFE = 32
"""Passes after which a pass counts half, so that an engine that has changed is followed …"""
LEAST_WEIGHT = 0.01
"""… down to this: passes at loads that haven't come again are all that is known of them."""
AGREEMENT = 2.0
"""New passes whose median is within this many standard errors of the estimate say nothing new, and wait."""
FAR_OFF = 0.25
"""New passes with prompts don't wait if their median is further from the estimate than this, however few they are."""
FOLD_AFTER = 512
"""Passes that are folded into a fit at the latest …"""
FOLD_AFTER_BATCHES = 16
"""… or so many batches, where a batch of a large fleet is as many."""
ALIKE = 0.005
"""Fits whose errors differ by this much say the same."""
DOUBT = 3.0
"""An F ratio that chance alone exceeds in about one case of a hundred."""


@attrs.frozen
class Fit:
    """Coefficients of the columns, and what they leave open."""

    coefficients: Floats
    spread: float
    """Standard deviation of the duration relative to the estimate, from the median residual."""


def passes(batch: FpmBatch, number: int) -> Floats:
    """The passes that teach, numbered from ``number`` on; shape (``ROWS``, passes)."""
    num = int(np.count_nonzero(batch.learnable))
    rows = np.empty((ROWS, num))
    if num == 0:
        return rows
    columns = (
        batch.wall_time_s,
        batch.prefill_tokens,
        pairs(batch),
        batch.num_decode,
        batch.decode_kv_tokens,
    )
    every = num == len(batch)
    for row, column in zip(rows[:-1], columns, strict=True):
        row[:] = column if every else column[batch.learnable]
    rows[-1] = np.arange(number, number + num)
    return rows


def load_of(samples: Floats) -> BatchLoad:
    """The work of passes."""
    return BatchLoad(
        prefill_tokens=samples[1],
        prefill_pairs=samples[2],
        num_decode=samples[3],
        decode_kv_tokens=samples[4],
    )


def axes(samples: Floats) -> Floats:
    """The inputs that buckets are laid over: (prompt tokens), (requests, KV) or (prompt tokens, KV)."""
    prefills, decodes = samples[1].any(), samples[3].any()
    return samples[1:5:3] if prefills and decodes else samples[1:2] if prefills else samples[3:5]


def fit(samples: Floats, columns: Floats, expected: Floats, hold: Floats, start: Floats, rounds: int) -> Fit:
    """The coefficients >= 0 that explain the durations of ``samples`` by ``columns``, shape (coefficients, passes).

    By iteratively reweighted non-negative least squares (Lawson and Hanson, 1974). Errors are relative (each pass is
    divided by its duration), so a slow outlier has a residual of at most 1, and short passes matter as much as long
    ones. Huber weights (Huber, 1964) take the rest of the outliers' pull, in ``rounds`` that begin at ``start``. Old
    passes count less. ``hold`` is how many passes each expectation is worth: a coefficient that is twice the
    ``expected`` one, or that explains a whole pass where 0 is expected, costs as much as so many passes that are
    missed altogether.
    """
    from scipy.optimize import nnls

    rows = columns / samples[0]
    size = rows.mean(axis=1)
    used = size > 0
    size, rows = size[used], rows[used] / size[used, None]  # means of 1: the solver's pivots see one size
    count = counts(samples)
    young, num, num_used = np.sqrt(count), len(count), len(rows)
    wanted = expected[used] * size
    stiffness = np.sqrt(hold[used]) / np.where(wanted > 0, wanted, 1.0)
    system = np.zeros((num + num_used, num_used))
    target = np.empty(num + num_used)
    system[num:].flat[:: num_used + 1] = stiffness
    target[num:] = stiffness * wanted
    solution = start[used] * size
    for _ in range(rounds):
        residual = np.abs(solution @ rows - 1.0)
        bound = trusted(samples, residual, count)
        weight = young * np.minimum(1.0, np.sqrt(bound / np.maximum(residual, 1e-12)))
        np.multiply(rows.T, weight[:, None], out=system[:num])
        target[:num] = weight
        solution = nnls(system, target)[0]
    coefficients = expected.copy()
    coefficients[used] = solution / size
    return Fit(coefficients, spread_of(np.abs(solution @ rows - 1.0), count))


def counts(samples: Floats) -> Floats:
    """How much each pass counts, by its age; shape (passes,)."""
    count: Floats = np.maximum(LEAST_WEIGHT, np.exp2((samples[-1] - samples[-1, -1]) * (1 / HALF_LIFE)))
    return count


def kinds(samples: Floats) -> tuple[Any, ...]:
    """Which passes have prompts, and which don't: kinds that are judged apart, once there are enough of both.

    One in fifty may be all that is seen of prompts. Beside the spread of the others it would be an outlier whenever the
    model is wrong about prompts alone, and never mend it.
    """
    prompts = samples[1] > 0
    num = np.count_nonzero(prompts)
    return (slice(None),) if min(num, len(prompts) - num) < ENOUGH else (prompts, ~prompts)


def trusted(samples: Floats, absolute_residual: Floats, count: Floats) -> Floats:
    """The residual up to which each pass counts fully: so many spreads of its kind."""
    bound = np.empty_like(absolute_residual)
    for kind in kinds(samples):
        bound[kind] = HUBER * spread_of(absolute_residual[kind], count[kind])
    return bound


def still_holds(before: Floats, after: Floats, samples: Floats, num_coefficients: int) -> bool:
    """Whether a fit with the errors ``before`` explains each kind of passes as well as one with ``after``, nearly.

    Errors are relative, of shape (passes,). The F test of nested models, in which errors count up to ``HUBER`` spreads
    and old passes count less.
    """
    count, before, after = counts(samples), np.abs(before), np.abs(after)
    for kind in kinds(samples):
        weight, errors = count[kind], (before[kind], after[kind])
        most = HUBER * max(spread_of(error, weight) for error in errors)
        old, new = (weight @ np.square(np.minimum(error, most)) / weight.sum() for error in errors)
        if old > new * (1 + DOUBT * num_coefficients / weight.sum()) + ALIKE**2:
            return False
    return True


def can_wait(num_waiting: int, new: Floats, fitted: Floats, took: Floats, spread: float) -> bool:
    """Whether new passes say nothing new: their median duration is what was ``fitted``, within its standard error, and
    that of passes with prompts isn't far off.
    """
    if num_waiting >= max(FOLD_AFTER, FOLD_AFTER_BATCHES * new.shape[1]):
        return False
    ratio = fitted / took
    with_prompts = ratio[new[1] > 0]
    if len(with_prompts) and abs(_middle(with_prompts) - 1.0) > FAR_OFF:
        return False
    return abs(_middle(ratio) - 1.0) <= AGREEMENT * spread / math.sqrt(len(ratio))


def _middle(values: Floats) -> float:
    return float(np.sort(values)[len(values) // 2])


def spread_of(absolute_residual: Floats, count: Floats) -> float:
    """Standard deviation from the weighted median absolute residual (1.4826 × it, for a normal distribution)."""
    order = absolute_residual.argsort()
    counted = count[order].cumsum()
    median = absolute_residual[order[counted.searchsorted(counted[-1] / 2)]]
    return max(SPREAD_FLOOR, 1.4826 * float(median))
