"""What a plain autoscaler sees of a role: counts, queues, KV use."""

from __future__ import annotations

import attrs

from planner_adapters.environment import Measured
from planner_core import Role
from planner_core.data.fpm import EMPTY_BATCH


@attrs.frozen(kw_only=True)
class RoleSignals:
    """One role as its engines tell of it; sums are over the engines that report."""

    ready: int
    starting: int
    waiting: float
    """Requests that no engine has admitted yet."""
    in_flight: float
    """Requests waiting and running."""
    kv_use: float
    """KV caches' tokens over what the ready engines hold, 0 to 1 and, with what waits, above."""

    @property
    def replicas(self) -> int:
        """What was asked for: ready and starting."""
        return self.ready + self.starting


def role_signals(measured: Measured, role: Role, max_kv_tokens: int | None) -> RoleSignals | None:
    """The latest pass of each engine, summed; ``None`` if no engine reports, which says nothing of the load."""
    batch = measured.get("fpm", {}).get(role, EMPTY_BATCH)
    counts = measured["workers"][role]
    if not (batch.num_workers and counts.ready):
        return None
    rows = batch.latest

    def total(*columns: str) -> float:
        return float(sum(getattr(batch, column)[rows].sum() for column in columns))

    waiting = total("queued_num_prefill", "queued_num_decode")
    kv_tokens = total("prefill_tokens", "prefill_kv_tokens", "decode_kv_tokens", "queued_decode_kv_tokens")
    return RoleSignals(
        ready=counts.ready,
        starting=len(counts.starting_ages_s),
        waiting=waiting,
        in_flight=waiting + total("num_prefill", "num_decode"),
        kv_use=kv_tokens / (max_kv_tokens * len(rows)) if max_kv_tokens else 0.0,
    )
