"""What the engines of a role have in hand, from the passes that they report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import attrs
import numpy as np

from planner_core.data.fpm import ROW_OF, Floats, FpmBatch
from planner_core.data.roles import Role

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


def reports_of(role: Role, batch: FpmBatch, kv_hit_rate: float, metric_samples: int) -> Reports:
    """The work in hand. The latest pass of an engine counts, so that an idle engine is seen as idle."""
    one_each = len(batch) == len(batch.latest)
    now = batch.table if one_each else batch.table[:, batch.latest]
    each = _work(now, kv_hit_rate)
    every = _work(np.add.reduce(now, axis=1).tolist(), kv_hit_rate)
    num_busy = float(np.count_nonzero(each.prefill_tokens))
    if role is Role.AGG and not one_each and every.num_decode + every.prefill_tokens > 0:
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
