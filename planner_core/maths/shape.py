"""What requests are like, and how long a prompt takes to compute: what every formula of an SLA starts from.

A prompt of l tokens costs l²/2 attention pairs, so a mix of prompts with mean m and squared coefficient of variation
cv² costs m·(1 + cv²)/2 pairs per token.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import attrs
import numpy as np

from planner_core.config import EngineSpec
from planner_core.data.fpm import Floats
from planner_core.maths.lengths import Lengths
from planner_core.perf import BatchLoad

Iteration: TypeAlias = Callable[[BatchLoad], Any]
"""Mean duration in seconds of passes with this work: a float for floats, else an array."""

DEFAULT_BATCHED_TOKENS = 8192
"""Chunk size where the engine's isn't known."""
DEFAULT_NUM_SEQS = 256
"""Largest batch where the engine's isn't known; what vLLM starts with on most GPUs."""
MOST_HIT_RATE = 0.999
"""Cached share of a prompt beyond which the rest is not divided by."""

Mix: TypeAlias = tuple[tuple[float, float, float], ...]
"""(share of the requests, mean tokens, squared coefficient of variation) of each kind of request."""


@attrs.frozen(kw_only=True)
class RequestShape:
    """What the requests are like."""

    isl: float
    """Mean input tokens."""
    osl: float | None = None
    """Mean output tokens; ``None``: not known."""
    isl_cv2: float | None = None
    """Squared coefficient of variation of the input tokens; ``None``: not known."""
    osl_cv2: float | None = None
    """Squared coefficient of variation of the output tokens; ``None``: not known."""
    kv_hit_rate: float = 0.0
    """Share of input tokens that the prefix cache serves."""
    accept_length: float = 1.0
    """Tokens per decode iteration."""
    dealt: float = 0.0
    """Share of the requests that a router deals to engines in turn, whatever these have in hand (round robin); the
    others go to the least loaded engine."""
    isl_mix: Mix | None = None
    """Kinds of requests by input tokens, where more is known than ``isl`` and ``isl_cv2``; to agree with them."""
    osl_mix: Mix | None = None
    """The same by output tokens."""

    @property
    def fresh_isl(self) -> float:
        """Input tokens that have to be computed."""
        return self.isl * (1 - self.kv_hit_rate)

    @property
    def iterations(self) -> float:
        """Decode iterations of a mean request; 1 where the output length isn't known."""
        return max((self.osl or 1.0) / self.accept_length, 1.0)

    @property
    def context(self) -> float:
        """KV tokens of a request that decodes, seen at a random moment.

        Long outputs are seen more often: the mean age of what is seen is E[o²]/(2·E[o]) = osl·(1 + cv²)/2 (the
        inspection paradox; Feller, An Introduction to Probability Theory II, 1971, section VI.7). An unknown cv² counts
        as none.
        """
        return self.isl + (self.osl or 0.0) * (1 + (self.osl_cv2 or 0.0)) / 2

    @property
    def context_std(self) -> float:
        """Standard deviation of that: of the prompt, and of what has been generated so far.

        The age of what is seen has the mean square E[o³]/(3·E[o]); if o is gamma distributed, its variance is therefore
        osl²·(1 + cv²)·(1 + 5·cv²)/12.
        """
        osl_cv2 = self.osl_cv2 or 0.0
        age_variance = (self.osl or 0.0) ** 2 * (1 + osl_cv2) * (1 + 5 * osl_cv2) / 12
        return math.sqrt((self.isl_cv2 or 0.0) * self.isl**2 + age_variance)

    @property
    def pairs_per_token(self) -> float:
        """Attention pairs per fresh prompt token; cached tokens, the same share of each prompt, are attended to, not
        computed.
        """
        return (self.fresh_isl / 2 + self.isl * self.kv_hit_rate) * (1 + (self.isl_cv2 or 0.0))

    @property
    def service_cv2(self) -> float:
        """Squared coefficient of variation of the service time, for queueing: 1 where it isn't known."""
        return 1.0 if self.isl_cv2 is None else self.isl_cv2

    @property
    def fresh_lengths(self) -> Lengths:
        """Classes of prompts by the tokens that have to be computed."""
        return Lengths.of(self.isl, self.isl_cv2, self.isl_mix).times(max(1 - self.kv_hit_rate, 1e-6))

    @property
    def iteration_lengths(self) -> Lengths:
        """Classes of requests by their decode iterations."""
        osl, osl_cv2 = self.osl or 1.0, self.osl_cv2
        if self.osl_mix is not None or osl_cv2 is None:
            lengths = Lengths.of(osl, osl_cv2, self.osl_mix)
        else:
            lengths = Lengths.with_tail(osl, osl_cv2)
        return lengths.times(1 / self.accept_length)


def chunk_tokens(spec: EngineSpec) -> float:
    """Prompt tokens that one pass computes at most."""
    return float(spec.max_num_batched_tokens or DEFAULT_BATCHED_TOKENS)


def prefill_s(
    iteration: Iteration,
    tokens: Floats | float,
    shape: RequestShape,
    chunk: float,
    num_decode: Floats | float = 0.0,
    decode_kv_tokens: Floats | float = 0.0,
) -> Any:
    """Time to compute ``tokens`` fresh prompt tokens of many requests in chunks, beside running decodes.

    Floats or arrays. Constant in the number of chunks: all but the last take equally long.
    """
    return _chunks_s(
        iteration, tokens, tokens // chunk, chunk, shape.pairs_per_token, num_decode, decode_kv_tokens
    )


def prompt_s(
    iteration: Iteration,
    tokens: Floats,
    shape: RequestShape,
    chunk: float,
    num_decode: float = 0.0,
    decode_kv_tokens: float = 0.0,
) -> Any:
    """Time to compute one prompt of ``tokens`` fresh tokens, in chunks, beside running decodes; of ``tokens``'s shape.

    Its pairs are its own: tokens²/2, and its cached tokens with each fresh one.
    """
    hit = min(shape.kv_hit_rate, MOST_HIT_RATE)
    pairs_per_token = tokens * (0.5 + hit / (1 - hit))
    full = np.maximum(np.ceil(tokens / chunk) - 1, 0.0)
    return _chunks_s(iteration, tokens, full, chunk, pairs_per_token, num_decode, decode_kv_tokens)


def _chunks_s(
    iteration: Iteration,
    tokens: Floats | float,
    full: Floats | float,
    chunk: float,
    pairs_per_token: Floats | float,
    num_decode: Floats | float,
    decode_kv_tokens: Floats | float,
) -> Any:
    def passes(size: Floats | float) -> Any:
        return iteration(
            BatchLoad(
                prefill_tokens=size,
                prefill_pairs=size * pairs_per_token,
                num_decode=num_decode,
                decode_kv_tokens=decode_kv_tokens,
            )
        )

    rest = tokens - full * chunk
    if not np.any(full):
        return (rest > 0) * passes(rest)
    return full * passes(chunk) + (rest > 0) * passes(rest)
