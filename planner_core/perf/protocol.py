"""What a performance model is: it answers one question, "how long would this batch take?"."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, Protocol, TypeVar

import attrs
import numpy as np

from planner_core.data.fpm import Floats, FpmBatch

S = TypeVar("S")


@attrs.frozen(kw_only=True, eq=False)
class BatchLoad:
    """Work of one forward pass, for any number of passes at once: floats, or arrays that broadcast together."""

    prefill_tokens: Floats | float = 0.0
    """Prompt tokens that the pass computes."""
    prefill_pairs: Floats | float = 0.0
    """Attention pairs of these tokens, Σ l·(c + l/2) over prompts with l new tokens behind c computed ones."""
    num_decode: Floats | float = 0.0
    """Requests that generate a token in the pass."""
    decode_kv_tokens: Floats | float = 0.0
    """The sum of their contexts."""

    @classmethod
    def of(cls, batch: FpmBatch) -> BatchLoad:
        """The scheduled work of each pass of a batch."""
        return cls(
            prefill_tokens=batch.prefill_tokens,
            prefill_pairs=pairs(batch),
            num_decode=batch.num_decode,
            decode_kv_tokens=batch.decode_kv_tokens,
        )


@attrs.frozen(kw_only=True, eq=False)
class Estimate:
    """Duration of passes: mean and standard deviation in seconds, of the load's shape."""

    mean_s: Floats | float
    std_s: Floats | float


class Recognisable(Protocol):
    """A performance model that may say cheaply whether it has learned anything since."""

    def knowledge(self, state: Any) -> Hashable:
        """States with equal knowledge answer :meth:`PerfModel.iteration_s` alike."""
        ...


class PerfModel(Protocol[S]):
    """Learns from passes how long a pass takes; hyper-parameters in the object, knowledge in the state."""

    def init(self) -> S:
        """The state before the first pass."""
        ...

    def observe(self, state: S, batch: FpmBatch) -> S:
        """The state after the passes of a batch; those that aren't ``batch.learnable`` teach nothing."""
        ...

    def iteration_s(self, state: S, load: BatchLoad) -> Estimate | None:
        """How long passes with this work would take; ``None`` while the model isn't ready."""
        ...


def pairs(batch: FpmBatch) -> Floats:
    """Attention pairs of the prompts in each pass.

    n prompts of mean length m and variance v have Σ l²/2 = n·(v + m²)/2 among themselves, and m with each token that
    they read from the cache. An unknown variance counts as none.
    """
    tokens = batch.prefill_tokens
    mean = tokens / np.maximum(batch.num_prefill, 1.0)
    known_variance = np.fmax(batch.var_prefill_length, 0.0)
    result: Floats = (batch.num_prefill * known_variance + tokens * mean) / 2 + mean * batch.prefill_kv_tokens
    return result
