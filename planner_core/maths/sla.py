"""From the duration of a pass to what users feel: TTFT, ITL, and what one engine carries within both.

Written once, for every performance model. A prompt of l tokens costs l²/2 attention pairs, so a mix of prompts with
mean m and squared coefficient of variation cv² costs m·(1 + cv²)/2 pairs per token.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import attrs
import numpy as np

from planner_core.config import EngineSpec
from planner_core.data.fpm import Floats
from planner_core.data.roles import Role
from planner_core.maths.queueing import utilisation_for_wait, wait_s
from planner_core.perf import BatchLoad

Iteration: TypeAlias = Callable[[BatchLoad], Any]
"""Mean duration in seconds of passes with this work: a float for floats, else an array."""

DEFAULT_BATCHED_TOKENS = 8192
"""Chunk size where the engine's isn't known."""
DEFAULT_NUM_SEQS = 256
"""Largest batch where the engine's isn't known; what vLLM starts with on most GPUs."""
BEST_SLACK = 1.25
"""An engine is never asked to be faster than this times a lone request: beyond that, more engines can't help."""


@attrs.frozen(kw_only=True)
class RequestShape:
    """What the requests are like."""

    isl: float
    """Mean input tokens."""
    osl: float | None = None
    """Mean output tokens; ``None``: not known."""
    isl_cv2: float | None = None
    """Squared coefficient of variation of the input tokens."""
    kv_hit_rate: float = 0.0
    """Share of input tokens that the prefix cache serves."""
    accept_length: float = 1.0
    """Tokens per decode iteration."""

    @property
    def fresh_isl(self) -> float:
        """Input tokens that have to be computed."""
        return self.isl * (1 - self.kv_hit_rate)

    @property
    def context(self) -> float:
        """KV tokens of a request in the middle of its decode."""
        return self.isl + (self.osl or 0.0) / 2

    @property
    def pairs_per_token(self) -> float:
        """Attention pairs per fresh prompt token; cached tokens are attended to, not computed."""
        return self.fresh_isl * (1 + (self.isl_cv2 or 0.0)) / 2 + self.isl * self.kv_hit_rate

    @property
    def service_cv2(self) -> float:
        """Squared coefficient of variation of the service time, for queueing: 1 where it isn't known."""
        return 1.0 if self.isl_cv2 is None else self.isl_cv2


@attrs.frozen(kw_only=True)
class Capacity:
    """What one engine carries within the SLA."""

    batch: float
    """Concurrent decoding requests; infinite for a prefill engine."""
    rps: float | None
    """Requests per second; ``None`` where the output length isn't known and counts."""
    itl_ms: float | None
    """ITL at that load; ``None`` for a prefill engine."""
    binding: str
    """What bounds it: ``ttft``, ``itl``, ``kv``, ``max_num_seqs`` or ``max_num_batched_tokens``."""
    unreachable: str | None = None
    """``ttft`` or ``itl`` if not even a lone request meets that target; the capacity is then sized by load."""
    best_ms: float | None = None
    """The latency of a lone request, for the unreachable target."""


@attrs.frozen(kw_only=True, eq=False)
class Curve:
    """Latency of one engine over its load, from which a capacity within any targets is read off."""

    batch: Floats
    """Concurrent decoding requests, 1, 2, …; for a prefill engine its utilisation is solved for instead."""
    rps: Floats | None
    """Requests per second at each batch; ``None`` where the output length isn't known."""
    itl_ms: Floats | None
    ttft_ms: Floats | None
    fits: int
    """Batches, from 1 on, whose prompts and decodes fit into a pass."""
    largest: str
    """What bounds the largest batch: ``kv`` or ``max_num_seqs``."""
    lone_s: float
    """Time to compute a lone prompt; 0 for a decode engine."""
    saturated_rps: float | None
    """Requests per second without any target."""
    shape: RequestShape
    quantile: float | None


def prefill_s(
    iteration: Iteration,
    tokens: Floats | float,
    shape: RequestShape,
    chunk: float,
    num_decode: Floats | float = 0.0,
    decode_kv_tokens: Floats | float = 0.0,
) -> Any:
    """Time to compute ``tokens`` fresh prompt tokens in chunks, beside running decodes; floats or arrays.

    Constant in the number of chunks: all but the last take equally long.
    """

    def passes(size: Floats | float) -> Any:
        return iteration(
            BatchLoad(
                prefill_tokens=size,
                prefill_pairs=size * shape.pairs_per_token,
                num_decode=num_decode,
                decode_kv_tokens=decode_kv_tokens,
            )
        )

    full = tokens // chunk
    rest = tokens - full * chunk
    return full * passes(chunk) + (rest > 0) * passes(rest)


def chunk_tokens(spec: EngineSpec) -> float:
    """Prompt tokens that one pass computes at most."""
    return float(spec.max_num_batched_tokens or DEFAULT_BATCHED_TOKENS)


def curve(
    role: Role, iteration: Iteration, spec: EngineSpec, shape: RequestShape, quantile: float | None
) -> Curve:
    """How TTFT and ITL of one engine grow with its load, up to what its memory and batch limits hold."""
    return (
        _prefill_curve(iteration, spec, shape, quantile)
        if role is Role.PREFILL
        else _batch_curve(role, iteration, spec, shape, quantile)
    )


def capacity(curve: Curve, ttft_ms: float, itl_ms: float) -> Capacity:
    """The largest load within both targets, and what binds it."""
    if curve.itl_ms is None:
        return _prefill_capacity(curve, ttft_ms)
    binding, count = curve.largest, len(curve.batch)
    unreachable = best_ms = None
    limits = (("itl", curve.itl_ms, itl_ms), ("ttft", curve.ttft_ms, ttft_ms))
    for name, latency_ms, target_ms in limits:
        if latency_ms is None:
            continue
        lone_ms = float(latency_ms[0])
        if lone_ms > target_ms and unreachable is None:
            unreachable, best_ms = name, lone_ms
        over = latency_ms > max(target_ms, BEST_SLACK * lone_ms)
        first = int(over.argmax())
        if over[first] and first < count:
            binding, count = name, first
    if curve.fits < count:
        binding, count = "max_num_batched_tokens", curve.fits
    count = max(count, 1)
    return Capacity(
        batch=float(curve.batch[count - 1]),
        rps=None if curve.rps is None else float(curve.rps[count - 1]),
        itl_ms=float(curve.itl_ms[count - 1]),
        binding=binding,
        unreachable=unreachable,
        best_ms=best_ms,
    )


def _prefill_curve(
    iteration: Iteration, spec: EngineSpec, shape: RequestShape, quantile: float | None
) -> Curve:
    chunk, fresh = chunk_tokens(spec), max(shape.fresh_isl, 1.0)
    lone_s, chunk_s = (float(prefill_s(iteration, tokens, shape, chunk)) for tokens in (fresh, chunk))
    return Curve(
        batch=np.empty(0),
        rps=None,
        itl_ms=None,
        ttft_ms=None,
        fits=0,
        largest="ttft",
        lone_s=lone_s,
        saturated_rps=max(1 / lone_s, chunk / chunk_s / fresh),  # a queue fills the passes of short prompts
        shape=shape,
        quantile=quantile,
    )


def _prefill_capacity(curve: Curve, ttft_ms: float) -> Capacity:
    lone_ms = curve.lone_s * 1e3
    allowed_s = max(ttft_ms / 1e3, BEST_SLACK * curve.lone_s)
    busy = utilisation_for_wait(
        curve.lone_s, allowed_s - curve.lone_s, cv2=curve.shape.service_cv2, quantile=curve.quantile
    )
    missed = lone_ms > ttft_ms
    return Capacity(
        batch=math.inf,
        rps=busy * (curve.saturated_rps or 0.0),
        itl_ms=None,
        binding="ttft",
        unreachable="ttft" if missed else None,
        best_ms=lone_ms if missed else None,
    )


def _batch_curve(
    role: Role, iteration: Iteration, spec: EngineSpec, shape: RequestShape, quantile: float | None
) -> Curve:
    """Every batch size at once.

    By Little's law a batch of b finishes b·accept/osl requests per iteration, and in the steady state as many prompts
    have to be computed meanwhile: the work of an iteration follows from b without a fixed point.
    """
    seqs = spec.max_num_seqs or DEFAULT_NUM_SEQS
    kv_batch = math.inf if spec.max_kv_tokens is None else spec.max_kv_tokens / max(shape.context, 1.0)
    batch = np.arange(1.0, max(1, int(min(seqs, kv_batch))) + 1.0)
    kv_tokens = batch * shape.context
    finished = batch * (shape.accept_length / shape.osl) if shape.osl else None
    tokens = finished * shape.fresh_isl if finished is not None and role is Role.AGG else None
    duration_s = iteration(
        BatchLoad(
            prefill_tokens=0.0 if tokens is None else tokens,
            prefill_pairs=0.0 if tokens is None else tokens * shape.pairs_per_token,
            num_decode=batch,
            decode_kv_tokens=kv_tokens,
        )
    )
    rps = None if finished is None else finished / duration_s
    ttft_ms, lone_s, fits = None, 0.0, len(batch)
    if role is Role.AGG:
        chunk = chunk_tokens(spec)
        own_s = prefill_s(iteration, max(shape.fresh_isl, 1.0), shape, chunk, batch, kv_tokens)
        lone_s = float(own_s[0])
        # A prompt waits for half the pass that runs, then behind other prompts, then for its own passes.
        ttft_s = duration_s / 2 + own_s
        if rps is not None and tokens is not None:
            busy = rps * np.maximum(
                own_s - iteration(BatchLoad(num_decode=batch, decode_kv_tokens=kv_tokens)), 0.0
            )
            ttft_s = ttft_s + wait_s(own_s, busy, cv2=shape.service_cv2, quantile=quantile)
            fits = int(np.count_nonzero(tokens + batch <= chunk))
        ttft_ms = ttft_s * 1e3
    return Curve(
        batch=batch,
        rps=rps,
        itl_ms=duration_s * (1e3 / shape.accept_length),
        ttft_ms=ttft_ms,
        fits=fits,
        largest="max_num_seqs" if kv_batch > seqs else "kv",
        lone_s=lone_s,
        saturated_rps=None if rps is None else float(rps.max()),
        shape=shape,
        quantile=quantile,
    )
