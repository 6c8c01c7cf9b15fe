"""What an engine tells of its passes: ForwardPassMetrics, one record per pass, columns for a role."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from planner_core.data.fpm import EMPTY_BATCH, FpmBatch


class PassRecord(NamedTuple):
    """One pass and the queue behind it when it ended; the columns of ``FpmBatch``, which explains them."""

    wall_time_s: float
    num_prefill: int = 0
    prefill_tokens: int = 0
    prefill_kv_tokens: int = 0
    var_prefill_length: float = 0.0
    num_decode: int = 0
    decode_kv_tokens: int = 0
    var_decode_kv_tokens: float = 0.0
    queued_num_prefill: int = 0
    queued_prefill_tokens: int = 0
    queued_var_prefill_length: float = 0.0
    queued_num_decode: int = 0
    queued_decode_kv_tokens: int = 0
    queued_var_decode_kv_tokens: float = 0.0


class Tally:
    """Number, sum and variance of lengths that come and go."""

    __slots__ = ("number", "squares", "tokens")

    def __init__(self) -> None:
        self.number = self.tokens = self.squares = 0

    def count(self, tokens: int, step: int) -> None:
        """Adds (``step`` 1) or removes (-1) one length."""
        self.number += step
        self.tokens += step * tokens
        self.squares += step * tokens * tokens

    def figures(self) -> tuple[int, int, float]:
        """(number, sum, variance)."""
        n = self.number
        return n, self.tokens, (self.squares * n - self.tokens * self.tokens) / (n * n) if n else 0.0


def fpm_batch(rows: Sequence[tuple[str, PassRecord]]) -> FpmBatch:
    """The columns of (worker id, record) rows."""
    if not rows:
        return EMPTY_BATCH
    worker_ids, records = zip(*rows, strict=True)
    columns: dict[str, Any] = dict(zip(PassRecord._fields, zip(*records, strict=True), strict=True))
    return FpmBatch(worker_id=worker_ids, **columns)
