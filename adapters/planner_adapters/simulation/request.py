"""One request on its way through the engines."""

from __future__ import annotations

import math


class Request:
    """What is asked for, how far it is, and when it got there. Mutable: engines move it on."""

    __slots__ = (
        "arrival_s",
        "base",
        "blocks",
        "computed_tokens",
        "emitted_tokens",
        "finish_s",
        "first_token_s",
        "index",
        "input_tokens",
        "kv_ready",
        "output_tokens",
        "prefix_hit_tokens",
        "serial",
    )

    def __init__(
        self, index: int, arrival_s: float, input_tokens: int, output_tokens: int, prefix_hit_tokens: int = 0
    ) -> None:
        self.index = index
        self.arrival_s = arrival_s
        self.input_tokens = input_tokens
        self.output_tokens = output_tokens
        self.prefix_hit_tokens = min(
            prefix_hit_tokens, input_tokens - 1
        )  # one token always has to be computed
        self.emitted_tokens = 0
        self.first_token_s = math.nan
        self.finish_s = math.nan
        self.kv_ready = False
        """Its context is in the cache already: computed by a prefill engine and handed over."""
        self.computed_tokens = 0
        """While it prefills: tokens in the cache."""
        self.blocks = 0
        """While it prefills, and until its cache is handed over: blocks that it holds."""
        self.base: int | None = None
        """While it decodes: its place in the :class:`DecodeBatch`."""
        self.serial = -1
        """Its number among the engine's admissions; -1 when it isn't running."""

    @property
    def context_tokens(self) -> int:
        """Tokens that have to be in the cache before the next one comes out, the last emitted one
        included.
        """
        return self.input_tokens + self.emitted_tokens
