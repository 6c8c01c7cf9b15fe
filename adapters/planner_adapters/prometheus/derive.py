"""Passes from counters: the mean pass between two scrapes of an engine, and what it has in hand now.

An engine's /metrics has no passes, only what they add up to. The arithmetic mean of all passes of an interval is a
valid sample for every model that is linear in tokens and sequences: the mean of the durations is what the model says
of the mean of the loads. So one row per interval teaches what the passes themselves would have taught on average:

- duration = busy seconds ÷ passes; where requests spent fewer seconds in the engine than the interval has, so many;
- prompt tokens, prompts and decoding requests = what the counters counted ÷ passes;
- KV tokens = tokens per running request × decoding requests.

A second row says what the engine has in hand at the later scrape; its duration isn't known, so that nobody learns from
it, and it drives the decision.
"""

from __future__ import annotations

import math

import attrs

from planner_adapters.prometheus.engine_series import MEANINGS, Quantity
from planner_adapters.prometheus.readings import Reading
from planner_core import EngineSpec, ForwardPassMetrics, Role

NAN = math.nan


@attrs.frozen(kw_only=True)
class EngineId:
    """One engine: a data-parallel rank of a worker."""

    worker_id: str
    dp_rank: int
    role: Role


class MissingQuantityError(Exception):
    """An engine doesn't say what is needed; ``quantity`` names it."""

    def __init__(self, quantity: Quantity) -> None:
        super().__init__(quantity)
        self.quantity: Quantity = quantity


def passes_between(
    engine: EngineId, before: Reading | None, now: Reading, spec: EngineSpec
) -> list[ForwardPassMetrics]:
    """The mean pass since ``before``, if there was one and it can be told, then what is in hand ``now``.

    :class:`MissingQuantityError` if the engine doesn't say what it has in hand.
    """
    span = None if before is None else _span(before, now)
    mean = None if span is None else _latest_pass(span, spec) or _mean_pass(span, engine.role, spec)
    found = [] if mean is None or not math.isfinite(mean.wall_time_s) else [mean.row(engine)]
    return [*found, _in_hand(engine, now, mean, spec, span)]


def shows_progress(reading: Reading) -> bool:
    """Whether the engine says anything that changes with every pass, so that a standstill would show."""
    return any(MEANINGS[quantity].counter or quantity.startswith("pass_") for quantity in reading.values)


@attrs.frozen
class _Span:
    before: Reading
    now: Reading
    duration_s: float

    def count(self, quantity: Quantity) -> float | None:
        """What a counter counted; ``None`` if it isn't there."""
        old, new = self.before.values.get(quantity), self.now.values.get(quantity)
        return None if old is None or new is None else new - old

    def between(self, quantity: Quantity) -> float | None:
        old, new = self.before.values.get(quantity), self.now.values.get(quantity)
        return None if old is None or new is None else (old + new) / 2


@attrs.frozen(kw_only=True)
class _Mean:
    wall_time_s: float
    num_prefill: float
    prefill_tokens: float
    prefill_kv_tokens: float
    num_decode: float
    decode_kv_tokens: float
    var_prefill_length: float = 0.0

    def row(self, engine: EngineId) -> ForwardPassMetrics:
        return ForwardPassMetrics(worker_id=engine.worker_id, dp_rank=engine.dp_rank, **attrs.asdict(self))


def _span(before: Reading, now: Reading) -> _Span | None:
    """``None`` where the engine was started anew: a counter fell."""
    if now.at_s <= before.at_s:
        return None
    fell = any(
        MEANINGS[quantity].counter and new < before.values.get(quantity, 0.0)
        for quantity, new in now.values.items()
    )
    return None if fell else _Span(before, now, now.at_s - before.at_s)


def _latest_pass(span: _Span, spec: EngineSpec) -> _Mean | None:
    """The latest pass itself, where the engine shows it; not twice."""
    shown: tuple[Quantity, ...] = ("pass_s", "pass_prompts", "pass_prompt_tokens", "pass_decodes")
    old, new = span.before.values, span.now.values
    if any(quantity not in new for quantity in shown):
        return None
    same = all(old.get(quantity) == new[quantity] for quantity in shown)
    decodes = new["pass_decodes"]
    return _Mean(
        wall_time_s=NAN if same else new["pass_s"],
        num_prefill=new["pass_prompts"],
        prefill_tokens=new["pass_prompt_tokens"],
        prefill_kv_tokens=0.0,
        num_decode=decodes,
        decode_kv_tokens=_known_kv(span.now, spec) if decodes else 0.0,
    )


def _mean_pass(span: _Span, role: Role, spec: EngineSpec) -> _Mean | None:
    """``None`` where the interval had no pass, or its passes can't be counted."""
    prompts = (span.count("prompts") or 0.0) if role.prefills else 0.0
    computed, cached = _prompt_tokens(span, role)
    steps = _decode_steps(span) if role.decodes else 0.0
    busy_s = _busy_s(span)
    passes = _num_passes(span, role, spec, busy_s, computed, prompts)
    if not passes or steps is None or computed is None or computed + steps <= 0:
        return None
    wall_s = NAN if busy_s is None else busy_s / passes
    gaps, gap_s = span.count("token_gaps"), span.count("token_gap_s")
    if (
        gaps and gap_s is not None and computed == 0
    ):  # nothing but decodes: no pass is longer than the gap it makes
        wall_s = min(wall_s, gap_s / gaps) if math.isfinite(wall_s) else gap_s / gaps
    decodes, of_pass = steps / passes, (prompts / passes, computed / passes, cached / passes)
    return _Mean(
        wall_time_s=wall_s,
        num_prefill=of_pass[0],
        prefill_tokens=of_pass[1],
        prefill_kv_tokens=of_pass[2],
        var_prefill_length=_variance(*of_pass),
        num_decode=decodes,
        decode_kv_tokens=decodes * _kv_per_request(span, spec) if decodes else 0.0,
    )


def _prompt_tokens(span: _Span, role: Role) -> tuple[float | None, float]:
    """Tokens computed, and tokens read from the prefix cache. A decode engine's prompts come computed."""
    if not role.prefills:
        return 0.0, 0.0
    total, cached = span.count("prompt_tokens"), span.count("cached_prompt_tokens") or 0.0
    computed = span.count("computed_prompt_tokens")
    if total is not None:
        cached = min(cached, total)
    if computed is None:
        computed = None if total is None else total - cached
    return computed, cached


def _variance(prompts: float, computed: float, cached: float) -> float:
    """What gives a pass with less than one prompt the attention of the prompts behind it.

    Attention grows with the square of a prompt, so that a tenth of a prompt of 1000 tokens is more than one of 100.
    Models count the prompts of a pass as at least one; the variance makes up for it (see
    ``planner_core.perf.protocol.pairs``).
    """
    if not 0 < prompts < 1:
        return 0.0
    length = computed / prompts
    variance = length * (length - computed) + 2 * cached * (length - computed) / prompts
    return variance if math.isfinite(variance) else 0.0


def _decode_steps(span: _Span) -> float | None:
    """Decode iterations, summed over requests: tokens but first ones, and with speculation several at a time."""
    generated, prompts = span.count("generated_tokens"), span.count("prompts")
    if generated is None or prompts is None:
        return None
    drafts, accepted = span.count("drafts"), span.count("accepted_tokens")
    at_a_time = 1 + accepted / drafts if drafts and accepted is not None else 1.0
    return max(generated - prompts, 0.0) / at_a_time


def _busy_s(span: _Span) -> float | None:
    """Seconds with passes: those that the engine counted, else at most those that requests spent in it."""
    counted = span.count("busy_s")
    if counted:
        return min(counted, span.duration_s)
    gap_s, first_s = span.count("token_gap_s"), span.count("first_token_s")
    if gap_s is not None and first_s is not None and gap_s + first_s > 0:
        return min(span.duration_s, gap_s + first_s)
    running = (reading.values.get("running", 0.0) for reading in (span.before, span.now))
    return span.duration_s if all(running) else None


def _num_passes(
    span: _Span, role: Role, spec: EngineSpec, busy_s: float | None, computed: float | None, prompts: float
) -> float | None:
    passes = span.count("passes")
    gaps, gap_s = span.count("token_gaps"), span.count("token_gap_s")
    if not passes and role.decodes and gaps and gap_s and busy_s is not None:
        passes = busy_s / (gap_s / gaps)  # one pass between two tokens of a request
    if not passes and role is Role.PREFILL:
        passes = prompts
    if passes and computed and spec.max_num_batched_tokens:
        # vLLM doesn't count passes that put nothing out, as those of a prompt's first chunks.
        passes = max(passes, computed / spec.max_num_batched_tokens)
    return passes


def _kv_tokens(reading: Reading, spec: EngineSpec) -> float:
    """NaN if the engine doesn't say."""
    values = reading.values
    if "kv_tokens" in values:
        return values["kv_tokens"]
    if "kv_blocks" in values and "kv_block_tokens" in values:
        return values["kv_blocks"] * values["kv_block_tokens"]
    capacity = values.get("kv_capacity_tokens", spec.max_kv_tokens)
    return values["kv_share"] * capacity if "kv_share" in values and capacity is not None else NAN


def _known_kv(reading: Reading, spec: EngineSpec) -> float:
    tokens = _kv_tokens(reading, spec)
    if math.isnan(tokens):
        raise MissingQuantityError("kv_capacity_tokens" if "kv_share" in reading.values else "kv_share")
    return tokens


def _kv_per_request(span: _Span, spec: EngineSpec) -> float:
    """KV tokens of one running request; NaN if none was running at either scrape."""
    seen = [
        (_kv_tokens(reading, spec), reading.values.get("running", 0.0)) for reading in (span.before, span.now)
    ]
    running = sum(n for _, n in seen)
    return sum(tokens for tokens, n in seen if n) / running if running else NAN


def _in_hand(
    engine: EngineId, now: Reading, mean: _Mean | None, spec: EngineSpec, span: _Span | None
) -> ForwardPassMetrics:
    running, waiting = _value(now, "running"), _value(now, "waiting")
    prompt = _prompt_length(now, span)
    waiting_prompts = waiting if engine.role.prefills else 0.0
    waiting_decodes = now.values.get("preempted", 0.0) + (0.0 if engine.role.prefills else waiting)
    if not running and not waiting and not waiting_decodes:
        return ForwardPassMetrics(worker_id=engine.worker_id, dp_rank=engine.dp_rank, wall_time_s=0.0)
    kv_tokens = _known_kv(now, spec) if engine.role.decodes else 0.0
    context = kv_tokens / running if running else prompt
    prefilling = _prefilling(engine.role, running, prompt, mean, spec)
    return ForwardPassMetrics(
        worker_id=engine.worker_id,
        dp_rank=engine.dp_rank,
        wall_time_s=NAN,
        num_prefill=mean.num_prefill if mean else min(running, 1.0) if engine.role is Role.PREFILL else 0.0,
        prefill_tokens=prefilling,
        num_decode=running if engine.role.decodes else 0.0,
        decode_kv_tokens=kv_tokens,
        queued_num_prefill=waiting_prompts,
        queued_prefill_tokens=waiting_prompts * prompt if waiting_prompts else 0.0,
        queued_num_decode=waiting_decodes,
        queued_decode_kv_tokens=waiting_decodes * context if waiting_decodes else 0.0,
    )


def _prefilling(role: Role, running: float, prompt: float, mean: _Mean | None, spec: EngineSpec) -> float:
    """Prompt tokens of the pass under way: those of the mean pass, else whole prompts up to a pass's limit."""
    if not role.prefills or not running:
        return 0.0
    if mean is not None:
        return mean.prefill_tokens
    return min(running * prompt, spec.max_num_batched_tokens or math.inf) if role is Role.PREFILL else 0.0


def _prompt_length(now: Reading, span: _Span | None) -> float:
    """Mean of the prompts of the interval, else of all that the engine has had; NaN if it has had none."""
    tokens, prompts = (span.count(q) if span else None for q in ("prompt_tokens", "prompts"))
    if not (tokens and prompts):
        tokens, prompts = now.values.get("prompt_tokens"), now.values.get("prompts")
    length = tokens / prompts if tokens and prompts else NAN
    return length if math.isfinite(length) else NAN  # a part of a prompt that is next to nothing


def _value(reading: Reading, quantity: Quantity) -> float:
    if quantity not in reading.values:
        raise MissingQuantityError(quantity)
    return reading.values[quantity]
