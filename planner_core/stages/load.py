"""Engine telemetry against the SLA: how many replicas the work in hand and the arrivals need.

A fleet is sized by its total work, so one hot engine among many is named, not multiplied. It grows to what keeps
the SLA, and shrinks to what keeps the SLA times the sensitivity; between the two it stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import attrs
import numpy as np

from planner_core.config import EngineSpec, LoadScaling, SlaTargets
from planner_core.data.fpm import ROW_OF, Floats, FpmBatch
from planner_core.data.reasons import Counterfactual, LoadReason
from planner_core.data.roles import Role
from planner_core.data.wish import Wish
from planner_core.maths.queueing import BUSY_SHARE, whole
from planner_core.maths.sla import Capacity, Curve, Iteration, capacity, chunk_tokens, prefill_s
from planner_core.perf import BatchLoad

SKEW = 3.0
"""An engine with this many times the mean work is named."""
KV_FILL = 0.9
"""Share of the KV cache that is planned for; the rest takes up requests that outgrow the mean."""

Amount = TypeVar("Amount")


class Work(NamedTuple, Generic[Amount]):
    """What engines have in hand: arrays of shape (engines,), or floats, the sums over engines."""

    queued_tokens: Amount
    """Fresh prompt tokens that wait: without what the prefix cache is expected to serve."""
    queued_prompts: Amount
    prefill_tokens: Amount
    """Prompt tokens per pass, over the engine's latest passes; 0 where it idles."""
    num_decode: Amount
    """Requests that decode or wait to."""
    kv_tokens: Amount
    """Their KV tokens."""

    def times(self, factor: Any) -> Work[Any]:
        """All of it, ``factor`` times."""
        tokens, prompts, prefill_tokens, num_decode, kv_tokens = self
        return Work(
            tokens * factor,
            prompts * factor,
            prefill_tokens * factor,
            num_decode * factor,
            kv_tokens * factor,
        )


@attrs.frozen(kw_only=True, eq=False)
class Reports:
    """The work in hand as the engines of a role last said."""

    each: Work[Floats]
    """Per known engine."""
    all: Work[float]
    """Summed over the known engines."""
    num_busy: float
    """Engines whose latest pass computed prompts."""

    @property
    def idle(self) -> bool:
        """Nothing runs or waits anywhere."""
        return not any(self.all)


@attrs.frozen(kw_only=True, eq=False)
class Situation:
    """What sizing one role rests on."""

    role: Role
    spec: EngineSpec
    sla: SlaTargets
    loop: LoadScaling
    iteration: Iteration
    curve: Curve
    within: Capacity
    """What one engine carries within the SLA."""
    work: Work[Floats]
    """Per known engine."""
    all_work: Work[float]
    """Over all engines: each silent ready replica is taken to have as much as the others."""
    busy_replicas: float
    """Replicas whose latest pass computed prompts; silent ones in proportion."""
    total: int
    """Replicas that serve or start."""
    starting: int
    engines_per_replica: float
    coverage: float
    """Ready replicas per reporting one."""
    arrivals_rps: float | None
    """Requests per second over the whole role; ``None``: not known."""
    startup_s: float


@attrs.frozen(kw_only=True, eq=False)
class Latency:
    """TTFT and ITL of the next request in ms, of each engine or of a mean one; ``None`` where the role has none."""

    ttft_ms: Any
    itl_ms: Any

    @property
    def highest_ttft_ms(self) -> float | None:
        """Over engines."""
        return None if self.ttft_ms is None else float(np.maximum.reduce(self.ttft_ms))

    @property
    def highest_itl_ms(self) -> float | None:
        """Over engines."""
        return None if self.itl_ms is None else float(np.maximum.reduce(self.itl_ms))

    def above(self, sla: SlaTargets) -> bool:
        """Whether every engine misses the same target."""
        return _all(self.ttft_ms, sla.ttft_ms) or _all(self.itl_ms, sla.itl_ms)

    def within(self, ttft_ms: float, itl_ms: float) -> Any:
        """Which engines keep both targets: a bool, or one for each."""
        pairs = ((self.ttft_ms, ttft_ms), (self.itl_ms, itl_ms))
        keeps = [ms <= target_ms for ms, target_ms in pairs if ms is not None]
        return keeps[0] & keeps[1] if len(keeps) == 2 else keeps[0]


def reports_of(role: Role, batch: FpmBatch, kv_hit_rate: float, metric_samples: int) -> Reports:
    """The work in hand. The latest pass of an engine counts, so that an idle engine is seen as idle."""
    now = batch.table[:, batch.latest]
    each = _work(now, kv_hit_rate)
    every = _work(np.add.reduce(now, axis=1).tolist(), kv_hit_rate)
    num_busy = float(np.count_nonzero(each.prefill_tokens))
    if role is Role.AGG and len(batch) > len(batch.latest) and every.num_decode + every.prefill_tokens > 0:
        at_work = now[ROW_OF["prefill_tokens"]] + now[ROW_OF["num_decode"]] > 0
        mixed = _prompt_tokens_per_pass(batch, metric_samples) * at_work
        each = each._replace(prefill_tokens=mixed)
        every = every._replace(prefill_tokens=float(np.add.reduce(mixed)))
    return Reports(each=each, all=every, num_busy=num_busy)


def _work(columns: Sequence[Any] | Floats, kv_hit_rate: float) -> Work[Any]:
    """Work from the columns of passes, or from their sums."""
    return Work(
        queued_tokens=columns[ROW_OF["queued_prefill_tokens"]] * (1 - kv_hit_rate),
        queued_prompts=columns[ROW_OF["queued_num_prefill"]],
        prefill_tokens=columns[ROW_OF["prefill_tokens"]],
        num_decode=columns[ROW_OF["num_decode"]] + columns[ROW_OF["queued_num_decode"]],
        kv_tokens=columns[ROW_OF["decode_kv_tokens"]] + columns[ROW_OF["queued_decode_kv_tokens"]],
    )


def _prompt_tokens_per_pass(batch: FpmBatch, metric_samples: int) -> Floats:
    """Mean over the latest ``metric_samples`` passes with work of each engine."""
    worked = (batch.engine >= 0) & (batch.prefill_tokens + batch.num_decode > 0)
    rows = np.flatnonzero(worked)[::-1]  # newest first
    rows = rows[batch.engine[rows].argsort(kind="stable")]
    engine = batch.engine[rows]
    latest = np.arange(len(rows)) - engine.searchsorted(engine) < metric_samples
    engine, size = engine[latest], len(batch.latest)
    tokens = np.bincount(engine, weights=batch.prefill_tokens[rows[latest]], minlength=size)
    mean: Floats = tokens / np.maximum(np.bincount(engine, minlength=size), 1)
    return mean


def shape_from_work(every: Work[float]) -> tuple[float | None, float | None]:
    """Mean length of waiting prompts and mean context of decodes: what engines alone tell of the requests."""
    isl = max(1.0, every.queued_tokens / every.queued_prompts) if every.queued_prompts else None
    context = max(1.0, every.kv_tokens / every.num_decode) if every.num_decode else None
    return isl, context


def latency(s: Situation, work: Work[Any]) -> Latency:
    """TTFT and ITL of the next request on engines with this much work each."""
    shape = s.curve.shape
    ttft_ms = itl_ms = None
    if s.role.prefills:
        behind, chunk = work.queued_tokens + shape.fresh_isl, chunk_tokens(s.spec)
        beside = (work.num_decode, work.kv_tokens) if s.role.decodes else (0.0, 0.0)
        ttft_ms = prefill_s(s.iteration, behind, shape, chunk, *beside) * 1e3
    if s.role.decodes:
        joined = BatchLoad(
            num_decode=work.num_decode + 1,
            decode_kv_tokens=work.kv_tokens + shape.context,
            prefill_tokens=work.prefill_tokens,
            prefill_pairs=work.prefill_tokens * shape.pairs_per_token,
        )
        itl_ms = s.iteration(joined) * (1e3 / shape.accept_length)
    return Latency(ttft_ms=ttft_ms, itl_ms=itl_ms)


def wish(s: Situation, now: Latency) -> Wish:
    """Replicas for the work in hand; ``now`` is the latency on each engine."""
    within = s.within
    ask = _unit_need if s.loop.step == "unit" else _sized_need
    need, reason = ask(s, now)
    notes = _skew(s)
    if within.unreachable is not None:
        reason = LoadReason.SLA_UNREACHABLE
        best = f"{within.unreachable.upper()} of {within.best_ms:.4g} ms"
        notes = (f"a lone request has a {best} on this engine: more replicas can't help", *notes)
    return Wish(
        need=need, reason=reason, numbers=_numbers(s, now), counterfactuals=_counterfactuals(s), notes=notes
    )


def _sized_need(s: Situation, now: Latency) -> tuple[int, LoadReason]:
    """As many replicas as the total work needs."""
    grow = _needed(s, s.within, now)
    if grow > s.total:
        return grow, LoadReason.SCALE_UP
    share = s.loop.down_sensitivity / 100
    if share == 0:
        return s.total, LoadReason.NO_CHANGE
    ttft_ms, itl_ms = s.sla.ttft_ms * share, s.sla.itl_ms * share
    shrink = max(_needed(s, capacity(s.curve, ttft_ms, itl_ms), now), 1)
    if shrink >= s.total:
        return s.total, LoadReason.NO_CHANGE
    if s.arrivals_rps is not None and s.within.rps is not None:
        return shrink, LoadReason.SCALE_DOWN
    kept = _smallest_that_keeps(s, shrink, s.total - 1, ttft_ms, itl_ms)
    if kept is None:
        return s.total, LoadReason.SCALE_DOWN_REFUSED_CONSOLIDATION
    return kept, LoadReason.SCALE_DOWN


def _unit_need(s: Situation, now: Latency) -> tuple[int, LoadReason]:
    """One more if every engine misses the SLA, one less if every engine and the survivors keep it with room."""
    if now.above(s.sla):
        return (s.total, LoadReason.SCALING_IN_PROGRESS) if s.starting else (s.total + 1, LoadReason.SCALE_UP)
    share = s.loop.down_sensitivity / 100
    ttft_ms, itl_ms = s.sla.ttft_ms * share, s.sla.itl_ms * share
    if share == 0 or s.total <= 1 or not now.within(ttft_ms, itl_ms).all():
        return s.total, LoadReason.NO_CHANGE
    fewer = s.total - 1
    carry = _needed(s, capacity(s.curve, ttft_ms, itl_ms), now) <= fewer
    if not carry or _smallest_that_keeps(s, fewer, fewer, ttft_ms, itl_ms) is None:
        return s.total, LoadReason.SCALE_DOWN_REFUSED_CONSOLIDATION
    return fewer, LoadReason.SCALE_DOWN


def _needed(s: Situation, within: Capacity, now: Latency) -> int:
    """Replicas that carry all work in hand and the arrivals, each up to ``within``."""
    needs = [0.0]
    if s.arrivals_rps is not None and within.rps is not None:
        needs.append(s.arrivals_rps / (within.rps * s.engines_per_replica) + _decode_excess(s, within))
    else:
        needs += _needs_by_engines(s, within, now)
    if s.role.prefills and s.curve.saturated_rps is not None:
        saturated_rps = s.curve.saturated_rps * s.engines_per_replica
        waiting = s.all_work.queued_tokens / max(s.curve.shape.fresh_isl, 1.0)
        needs[-1] += max(0.0, waiting - _harmless_backlog(s, saturated_rps)) / (
            saturated_rps * s.loop.drain_s
        )
    if s.role.decodes and s.spec.max_kv_tokens is not None:
        needs.append(s.all_work.kv_tokens / (KV_FILL * s.spec.max_kv_tokens * s.engines_per_replica))
    return whole(max(needs))


def _decode_excess(s: Situation, within: Capacity) -> float:
    """Replicas that work off, within ``drain_s``, the second half of the decodes beyond what the fleet is sized for."""
    if not s.role.decodes or not within.rps:
        return 0.0
    excess = max(0.0, s.all_work.num_decode - s.total * within.batch * s.engines_per_replica)
    return excess / 2 / (within.rps * s.engines_per_replica * s.loop.drain_s)


def _needs_by_engines(s: Situation, within: Capacity, now: Latency) -> list[float]:
    """Replicas by what the engines do, where arrivals aren't known.

    Decodes count by their token rate, not by their number: slowed by a backlog they are many, and a larger fleet
    would have fewer of them. Prompts count by the engines that are at work on some.
    """
    needs = []
    if now.itl_ms is not None and within.itl_ms is not None:
        tokens_per_ms = np.add.reduce(s.work.num_decode / now.itl_ms) * s.coverage
        needs.append(float(tokens_per_ms) * within.itl_ms / (within.batch * s.engines_per_replica))
    if s.role.prefills:
        needs.append(s.busy_replicas / BUSY_SHARE)
    return needs


def _harmless_backlog(s: Situation, saturated_rps: float) -> float:
    """Waiting requests that need no further replica: worked off before one would be ready, or within the SLA."""
    may_wait = s.total * saturated_rps * max(0.0, s.sla.ttft_ms / 1e3 - s.curve.lone_s)
    if s.arrivals_rps is None:
        return may_wait
    return may_wait + (s.total * saturated_rps - s.arrivals_rps) * s.startup_s


def _smallest_that_keeps(s: Situation, least: int, most: int, ttft_ms: float, itl_ms: float) -> int | None:
    """The smallest fleet from ``least`` to ``most`` replicas whose engines keep the targets with the work of all."""

    def keeps(replicas: Any) -> Any:
        after = latency(s, s.all_work.times(1 / (replicas * s.engines_per_replica)))
        return after.within(ttft_ms, itl_ms)

    if keeps(least):  # as it mostly does
        return least
    kept = np.flatnonzero(keeps(np.arange(least + 1, most + 1)))
    return least + 1 + int(kept[0]) if len(kept) else None


def _all(values: Floats | None, target: float) -> bool:
    return values is not None and bool((values > target).all())


def _numbers(s: Situation, now: Latency) -> dict[str, float]:
    """What the reason rests on."""
    numbers = {}
    if now.ttft_ms is not None:
        numbers["estimated_ttft_ms"] = now.highest_ttft_ms or 0.0
        numbers["queued_prefill_tokens"] = s.all_work.queued_tokens
    if now.itl_ms is not None:
        numbers["estimated_itl_ms"] = now.highest_itl_ms or 0.0
        numbers["num_decode"] = s.all_work.num_decode
        numbers["capacity_requests"] = s.within.batch * s.engines_per_replica
    if s.arrivals_rps is not None:
        numbers["arrivals_rps"] = s.arrivals_rps
    if s.within.rps is not None:
        numbers["capacity_rps"] = s.within.rps * s.engines_per_replica
    return numbers


def _counterfactuals(s: Situation) -> tuple[Counterfactual, ...]:
    """The amounts above which one replica more would be asked for, where the arrivals are known."""
    if s.loop.step == "unit" or not s.arrivals_rps or not s.within.rps or s.curve.saturated_rps is None:
        return ()
    spare = s.total - s.arrivals_rps / (s.within.rps * s.engines_per_replica) - _decode_excess(s, s.within)
    if spare < 0:
        return ()
    if not s.role.prefills:
        most_rps = s.arrivals_rps + spare * s.within.rps * s.engines_per_replica
        return (Counterfactual(quantity="arrivals_rps", above=True, value=most_rps, change=1),)
    saturated_rps = s.curve.saturated_rps * s.engines_per_replica
    waiting = spare * saturated_rps * s.loop.drain_s + _harmless_backlog(s, saturated_rps)
    tokens = max(0.0, waiting) * max(s.curve.shape.fresh_isl, 1.0)
    return (Counterfactual(quantity="queued_prefill_tokens", above=True, value=tokens, change=1),)


def _skew(s: Situation) -> tuple[str, ...]:
    """A line for an engine that carries far more than the others."""
    load = s.work.queued_tokens + s.work.kv_tokens
    num = len(load)
    mean = float(np.add.reduce(load)) / num
    highest = float(np.maximum.reduce(load))
    if num < 2 or highest <= SKEW * mean:
        return ()
    return (f"the fullest engine has {highest / mean:.1f} times the mean work: routing, not size",)
