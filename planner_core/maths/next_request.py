"""What the next request would meet on engines with some work in hand: TTFT behind the queue, ITL in the batch."""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np

from planner_core.config import EngineSpec, SlaTargets
from planner_core.data.fpm import Floats
from planner_core.data.roles import Role
from planner_core.maths.shape import Iteration, RequestShape, chunk_tokens, prefill_s
from planner_core.maths.work import Work
from planner_core.perf import BatchLoad


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


def latency(
    role: Role, iteration: Iteration, spec: EngineSpec, shape: RequestShape, work: Work[Any]
) -> Latency:
    """TTFT and ITL of the next request on engines with this much work each."""
    ttft_ms = itl_ms = None
    if role.prefills:
        behind, chunk = work.queued_tokens + shape.fresh_isl, chunk_tokens(spec)
        beside = (work.num_decode, work.kv_tokens) if role.decodes else (0.0, 0.0)
        ttft_ms = prefill_s(iteration, behind, shape, chunk, *beside) * 1e3
    if role.decodes:
        num, kv_tokens = work.num_decode + 1, work.kv_tokens + shape.context
        pass_s = iteration(BatchLoad(num_decode=num, decode_kv_tokens=kv_tokens))
        if role.prefills:
            # Prompt tokens per pass are a mean: some passes compute a whole prompt, the others none.
            prompt = min(max(shape.fresh_isl, 1.0), chunk_tokens(spec))
            mixed = BatchLoad(
                num_decode=num,
                decode_kv_tokens=kv_tokens,
                prefill_tokens=prompt,
                prefill_pairs=prompt * shape.pairs_per_token,
            )
            pass_s = pass_s + (iteration(mixed) - pass_s) * (work.prefill_tokens / prompt)
        itl_ms = pass_s * (1e3 / shape.accept_length)
    return Latency(ttft_ms=ttft_ms, itl_ms=itl_ms)


def _all(values: Floats | None, target: float) -> bool:
    return values is not None and bool((values > target).all())
