"""What one engine carries within an SLA, and what binds it.

Written once, for every performance model. How many engines a *fleet* needs is another question, as engines help each
other: :func:`planner_core.maths.fleet.engines_for`.
"""

from __future__ import annotations

import math

import attrs
import numpy as np

from planner_core.config import EngineSpec
from planner_core.data.fpm import Floats
from planner_core.data.roles import Role
from planner_core.maths.batch_fleet import BatchFleet
from planner_core.maths.fleet import AT_ONCE, BEST_SLACK, FULLEST, Fleet, Promise
from planner_core.maths.shape import (
    DEFAULT_NUM_SEQS,
    Iteration,
    RequestShape,
    chunk_tokens,
    prefill_s,
)
from planner_core.perf import BatchLoad

__all__ = [
    "BEST_SLACK",
    "Capacity",
    "Curve",
    "Iteration",
    "RequestShape",
    "capacity",
    "chunk_tokens",
    "curve",
    "prefill_s",
]

FINE = 1 / 400
"""Of a capacity: how exactly it is found."""
LEAST_LOAD = 1e-4
"""Of the saturated rate: less is no capacity worth the search."""


@attrs.frozen(kw_only=True)
class Capacity:
    """What one engine carries within the SLA."""

    batch: float
    """Concurrent decoding requests; infinite for a prefill engine."""
    rps: float | None
    """Requests per second; ``None`` where the output length isn't known and counts."""
    itl_ms: float | None
    """Mean ITL at that load; ``None`` for a prefill engine."""
    binding: str
    """What bounds it: ``ttft``, ``itl``, ``kv``, ``max_num_seqs`` or ``max_num_batched_tokens``."""
    unreachable: str | None = None
    """``ttft`` or ``itl`` if not even a lone request meets that target; the capacity is then sized by load."""
    best_ms: float | None = None
    """The latency of a lone request, for the unreachable target."""


@attrs.frozen(kw_only=True, eq=False)
class Batches:
    """Latency over the batch alone, where the output length and so the rate isn't known."""

    batch: Floats
    itl_ms: Floats
    ttft_ms: Floats | None
    """Behind the running pass; of an aggregated engine."""
    limit: str


@attrs.frozen(kw_only=True, eq=False)
class Curve:
    """One engine at every load, from which a capacity within any targets is read off."""

    load: Fleet | Batches
    lone_s: float
    """Time to compute a mean prompt alone; 0 for a decode engine."""
    saturated_rps: float | None
    """Requests per second without any target; ``None`` where the output length isn't known."""
    shape: RequestShape
    quantile: float | None


def curve(
    role: Role, iteration: Iteration, spec: EngineSpec, shape: RequestShape, quantile: float | None
) -> Curve:
    """How TTFT and ITL of one engine grow with its load, up to what its memory and batch limits hold."""
    knows_rate = role is Role.PREFILL or shape.osl is not None
    load = Fleet.of(role, iteration, spec, shape) if knows_rate else _batches(role, iteration, spec, shape)
    lone_s = 0.0
    if role.prefills:
        lone_s = float(prefill_s(iteration, max(shape.fresh_isl, 1.0), shape, chunk_tokens(spec)))
    return Curve(
        load=load,
        lone_s=lone_s,
        saturated_rps=load.saturated_rps if isinstance(load, Fleet) else None,
        shape=shape,
        quantile=quantile,
    )


def capacity(curve: Curve, ttft_ms: float, itl_ms: float) -> Capacity:
    """The largest load within both targets, and what binds it."""
    if isinstance(curve.load, Batches):
        return _largest_batch(curve.load, ttft_ms, itl_ms)
    promise = Promise(ttft_ms=ttft_ms, itl_ms=itl_ms, quantile=curve.quantile)
    return _largest_rate(curve.load, promise)


def _largest_rate(fleet: Fleet, promise: Promise) -> Capacity:
    """By a search that tries many rates at once, in the interval that is left of the one before."""
    most = FULLEST * fleet.saturated_rps * (1 - 1e-9)
    kept, broken = 0.0, most
    binding = fleet.model.limit if isinstance(fleet.model, BatchFleet) else "ttft"
    steps = np.arange(1.0, AT_ONCE + 1) / AT_ONCE
    while broken - kept > FINE * broken and broken > LEAST_LOAD * most:
        rates = kept + (broken - kept) * steps
        breaks = fleet.breaks(promise, fleet.offers(rates, np.ones_like(rates)))
        over = np.logical_or.reduce(list(breaks.values()))
        if not over.any():  # only in the first round
            kept = most
            break
        first = int(over.argmax())
        binding = next(name for name, which in breaks.items() if which[first])
        kept, broken = float(rates[first - 1]) if first else kept, float(rates[first])
    rps = max(kept, LEAST_LOAD * most)
    unreachable, best_ms = fleet.unreachable(promise)
    batch, mean_itl_ms = math.inf, None
    if isinstance(fleet.model, BatchFleet):
        at = np.array([rps])
        batch = max(1.0, float(fleet.model.steady(at).batch[0]))
        mean_itl_ms = float(fleet.model.latencies(at, np.ones(1))[1].mean_s[0]) * 1e3
    return Capacity(
        batch=batch,
        rps=rps,
        itl_ms=mean_itl_ms,
        binding=binding,
        unreachable=unreachable,
        best_ms=best_ms,
    )


def _batches(role: Role, iteration: Iteration, spec: EngineSpec, shape: RequestShape) -> Batches:
    """Every batch size at once; a prompt waits for half the pass that runs."""
    seqs = spec.max_num_seqs or DEFAULT_NUM_SEQS
    kv_batch = math.inf if spec.max_kv_tokens is None else spec.max_kv_tokens / max(shape.context, 1.0)
    batch = np.arange(1.0, max(1, int(min(seqs, kv_batch))) + 1.0)
    kv_tokens = batch * shape.context
    pass_s = iteration(BatchLoad(num_decode=batch, decode_kv_tokens=kv_tokens))
    ttft_ms = None
    if role is Role.AGG:
        tokens = max(shape.fresh_isl, 1.0)
        own_s = prefill_s(iteration, tokens, shape, chunk_tokens(spec), batch, kv_tokens)
        ttft_ms = (pass_s / 2 + own_s) * 1e3
    return Batches(
        batch=batch,
        itl_ms=pass_s * (1e3 / shape.accept_length),
        ttft_ms=ttft_ms,
        limit="max_num_seqs" if kv_batch > seqs else "kv",
    )


def _largest_batch(batches: Batches, ttft_ms: float, itl_ms: float) -> Capacity:
    binding, count = batches.limit, len(batches.batch)
    unreachable = best_ms = None
    for name, latency_ms, target_ms in (("itl", batches.itl_ms, itl_ms), ("ttft", batches.ttft_ms, ttft_ms)):
        if latency_ms is None:
            continue
        lone_ms = float(latency_ms[0])
        if lone_ms > target_ms and unreachable is None:
            unreachable, best_ms = name, lone_ms
        over = latency_ms > max(target_ms, BEST_SLACK * lone_ms)
        first = int(over.argmax())
        if over[first] and first < count:
            binding, count = name, first
    count = max(count, 1)
    return Capacity(
        batch=float(batches.batch[count - 1]),
        rps=None,
        itl_ms=float(batches.itl_ms[count - 1]),
        binding=binding,
        unreachable=unreachable,
        best_ms=best_ms,
    )
