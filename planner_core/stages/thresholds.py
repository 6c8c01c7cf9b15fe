"""The targets that need no SLA: queue depth and KV-cache use against thresholds.

Up as soon as one engine is over its threshold, down when all are under theirs. How far is a matter of the fleet's
total work, not of its hottest engine; and an empty queue alone is no reason to shrink a fleet that is busy.
"""

from __future__ import annotations

import math

import attrs
import numpy as np

from planner_core.config import EngineSpec, LoadScaling, PlannerConfig
from planner_core.data.fpm import Floats, FpmBatch
from planner_core.data.reasons import Counterfactual, LoadReason
from planner_core.data.roles import Role
from planner_core.data.wish import Wish
from planner_core.maths.queueing import BUSY_SHARE, whole
from planner_core.maths.sla import Iteration, chunk_tokens
from planner_core.perf import BatchLoad

LARGEST_SHRINKAGE = 0.25
"""Share of a working fleet that goes at once: without latencies, the survivors' load is only guessed."""


@attrs.frozen(kw_only=True)
class Rule:
    """Thresholds of one measure of use per engine."""

    quantity: str
    unit: float
    """The quantity at a use of 1."""
    up: float
    down: float
    up_at: bool
    """Whether being *at* the threshold is enough to grow."""
    down_at: bool

    def over(self, use: Floats) -> bool:
        """Whether any engine is over."""
        return bool(np.any(use >= self.up if self.up_at else use > self.up))

    def under(self, use: Floats) -> bool:
        """Whether all engines are under."""
        return bool(np.all(use <= self.down if self.down_at else use < self.down))


def rule_for(role: Role, config: PlannerConfig) -> Rule | str:
    """The role's thresholds under the config's target, or the name of the engine's number that they need."""
    spec, target, own = config.engines[role], config.target, config.thresholds
    if role is Role.PREFILL:
        if own is not None and target == "load":
            return Rule(
                quantity="queued_prefill_tokens",
                unit=1.0,
                up=own.prefill_scale_up_queue_tokens,
                down=own.prefill_scale_down_queue_tokens,
                up_at=True,
                down_at=own.prefill_scale_down_queue_tokens == 0,
            )
        if spec.context_length is None:
            return "context_length"
        up, down = (0.1, 0.0) if target == "latency" else (1.0, 0.1)
        unit = float(spec.context_length)
        return Rule(
            quantity="queued_prefill_tokens", unit=unit, up=up, down=down, up_at=True, down_at=down == 0
        )
    if spec.max_kv_tokens is None:
        return "max_kv_tokens"
    if own is not None and target == "load":
        up, down = own.decode_scale_up_kv_rate, own.decode_scale_down_kv_rate
    else:
        up, down = (0.4, 0.1) if target == "latency" else (1.0, 0.6)
    unit = float(spec.max_kv_tokens)
    return Rule(quantity="kv_tokens", unit=unit, up=up, down=down, up_at=False, down_at=down == 0)


def use_of(role: Role, batch: FpmBatch, rule: Rule) -> Floats:
    """Use of each known engine, shape (engines,)."""
    rows = batch.latest
    if role is Role.PREFILL:
        return batch.queued_prefill_tokens[rows] / rule.unit
    tokens = batch.decode_kv_tokens[rows] + batch.queued_decode_kv_tokens[rows]
    if role is Role.AGG:
        tokens = tokens + batch.queued_prefill_tokens[rows]
    return tokens / rule.unit


def wish(
    role: Role,
    config: PlannerConfig,
    batch: FpmBatch,
    *,
    total: int,
    coverage: float,
    starting: int,
    unit_step: bool,
    iteration: Iteration | None = None,
) -> Wish:
    """Replicas of one role by its thresholds; ``total`` run or start, of which ``coverage`` × the known ones serve.

    ``iteration`` is what the passes have taught of their duration, ``None`` while that is too little.
    """
    rule = rule_for(role, config)
    if isinstance(rule, str):
        note = f"set engines.{role}.{rule} for its threshold"
        return Wish(need=None, reason=LoadReason.INSUFFICIENT_DATA, notes=(note,))
    use = use_of(role, batch, rule)
    engines_per_replica = len(use) / max(batch.num_workers, 1)
    work = float(use.sum()) * coverage / engines_per_replica  # in replicas at a use of 1
    highest = float(use.max())
    mean = work / total if total else math.inf
    numbers = {f"highest_{rule.quantity}": highest * rule.unit, "use": mean}
    grow_at = Counterfactual(
        quantity=f"highest_{rule.quantity}", above=True, value=rule.up * rule.unit, change=1
    )
    shrink_at = Counterfactual(
        quantity=f"highest_{rule.quantity}", above=False, value=rule.down * rule.unit, change=-1
    )
    if rule.over(use):
        most = _largest(role, batch, config, total - starting, coverage, iteration)
        need = max(min(math.ceil(work / rule.up), most), total)
        skewed = mean < rule.down and not unit_step
        if not skewed and not starting:
            need = max(need, total + 1)
        if unit_step:
            need = total if starting else total + 1
        if need > total:
            return Wish(need=need, reason=LoadReason.SCALE_UP, numbers=numbers)
        if starting:
            return Wish(need=total, reason=LoadReason.SCALING_IN_PROGRESS, numbers=numbers)
        note = "one engine carries far more than the others: more replicas can't cure that"
        return Wish(need=total, reason=LoadReason.NO_CHANGE, numbers=numbers, notes=(note,))
    if rule.under(use) and total > 1:
        if starting:
            return Wish(need=total, reason=LoadReason.SCALING_IN_PROGRESS, numbers=numbers)
        need = _smallest(role, batch, config.engines[role], rule, work, total, coverage, iteration)
        if unit_step:
            need = max(need, total - 1)
        if need < total:
            return Wish(need=need, reason=LoadReason.SCALE_DOWN, numbers=numbers, counterfactuals=(grow_at,))
        return Wish(need=total, reason=LoadReason.SCALE_DOWN_REFUSED_CONSOLIDATION, numbers=numbers)
    return Wish(
        need=total, reason=LoadReason.NO_CHANGE, numbers=numbers, counterfactuals=(grow_at, shrink_at)
    )


def _largest(
    role: Role,
    batch: FpmBatch,
    config: PlannerConfig,
    ready: int,
    coverage: float,
    iteration: Iteration | None,
) -> int:
    """The largest fleet that makes sense now: what drains the queue of prompts in time, else a few times as many.

    A queue has no upper end, so its depth alone says that more are needed, not how many.
    """
    if not role.prefills:
        return 2 * ready
    if iteration is None:
        return 4 * ready
    rows, spec = batch.latest, config.engines[role]
    prompts, tokens = (
        float(batch.queued_num_prefill[rows].sum()),
        float(batch.queued_prefill_tokens[rows].sum()),
    )
    chunk = chunk_tokens(spec)
    length = tokens / prompts if prompts else chunk
    chunk_s = float(iteration(BatchLoad(prefill_tokens=chunk, prefill_pairs=chunk * length / 2)))
    per_replica = len(rows) / max(batch.num_workers, 1)
    drain_s = (config.load or LoadScaling()).drain_s
    drained_by = tokens * coverage / per_replica * chunk_s / (chunk * drain_s)
    return max(ready + math.ceil(drained_by), 2 * ready if role.decodes else 0)


def _smallest(
    role: Role,
    batch: FpmBatch,
    spec: EngineSpec,
    rule: Rule,
    work: float,
    total: int,
    coverage: float,
    iteration: Iteration | None,
) -> int:
    """The smallest fleet whose engines would stay well below the upper threshold and have time to spare."""
    rows = batch.latest
    use = (rule.up + rule.down) / 2
    needs = [work / use, 1.0]
    if batch.wall_time_s[rows].any() or work:
        needs.append(total - max(1, int(LARGEST_SHRINKAGE * total)))
    scale = (
        coverage * batch.num_workers / max(len(rows), 1)
    )  # from engines that report to replicas that serve
    if role.prefills:
        needs.append(float(np.count_nonzero(batch.prefill_tokens[rows])) * scale / BUSY_SHARE)
    if role.decodes:
        requests = float(batch.num_decode[rows].sum() + batch.queued_num_decode[rows].sum()) * scale
        most = math.inf if spec.max_num_seqs is None else BUSY_SHARE * spec.max_num_seqs
        needs.append(requests / most)
        if iteration is not None and requests:
            needs.append(_by_token_rate(batch, rule.unit * use, most, iteration) * scale)
    return whole(max(needs))


def _by_token_rate(batch: FpmBatch, kv_tokens: float, most_requests: float, iteration: Iteration) -> float:
    """Engines that generate the tokens which all known ones generate now, each with at most that much in its memory.

    The batch of an engine grows faster than its share of the traffic: in a larger batch each pass takes longer, so
    requests stay longer. What a smaller fleet has to keep up is the token rate.
    """
    rows = batch.latest
    num_decode, seconds = batch.num_decode[rows], batch.wall_time_s[rows]
    running = (num_decode > 0) & (seconds > 0)
    if not running.any():
        return 0.0
    tokens_per_s = float((num_decode[running] / seconds[running]).sum())
    per_request = 1 / float(num_decode[running].sum())
    context = max(1.0, float(batch.decode_kv_tokens[rows].sum()) * per_request)
    requests = max(1.0, min(most_requests, kv_tokens / context))
    prompt_tokens = requests * float(batch.prefill_tokens[rows].sum()) * per_request
    most_s = iteration(
        BatchLoad(
            prefill_tokens=prompt_tokens,
            prefill_pairs=prompt_tokens * context,
            num_decode=requests,
            decode_kv_tokens=requests * context,
        )
    )
    return tokens_per_s * float(most_s) / requests
