"""The KV cache of the requests that decode: contexts that all grow by one token in every pass.

Since they grow together, nothing has to be touched per request and pass: a context is kept as the constant
``base = context - iteration``, and sums over the batch follow from sums over the bases.
"""

from __future__ import annotations


class DecodeBatch:
    """Contexts of the decoding requests, with KV memory in blocks of ``block_tokens``."""

    __slots__ = ("_base_blocks", "_block_tokens", "_phases", "_squares", "_sum", "iteration", "num_requests")

    def __init__(self, block_tokens: int) -> None:
        self.iteration = 0
        self.num_requests = 0
        self._block_tokens = block_tokens
        self._sum = 0
        self._squares = 0
        self._base_blocks = 0
        self._phases = [0] * block_tokens

    def join(self, context_tokens: int) -> int:
        """Adds a request; returns its base, which :meth:`leave` asks for."""
        base = context_tokens - self.iteration
        self._count(base, 1)
        return base

    def leave(self, base: int) -> int:
        """Removes a request; returns its context."""
        self._count(base, -1)
        return base + self.iteration

    def _count(self, base: int, step: int) -> None:
        self.num_requests += step
        self._sum += step * base
        self._squares += step * base * base
        blocks, phase = divmod(base, self._block_tokens)
        self._base_blocks += step * blocks
        self._phases[phase] += step

    def kv_tokens(self, ahead: int = 0) -> int:
        """Sum of contexts, ``ahead`` passes from now."""
        return self._sum + self.num_requests * (self.iteration + ahead)

    def variance(self, ahead: int = 0) -> float:
        """Variance of the contexts: the same in every pass, as they grow together."""
        n = self.num_requests
        return (self._squares * n - self._sum * self._sum) / (n * n) if n else 0.0

    def blocks(self, ahead: int = 0) -> int:
        """Blocks that the contexts fill, ``ahead`` passes from now."""
        turns, rest = divmod(self.iteration + ahead, self._block_tokens)
        phases = self._phases
        # A context of phase p fills ceil((p + rest) / block) blocks more than its base and the turns say.
        started = self.num_requests - (phases[0] if rest == 0 else 0)
        overflowing = sum(phases[self._block_tokens - rest + 1 :]) if rest > 1 else 0
        return self._base_blocks + self.num_requests * turns + started + overflowing

    def passes_within(self, blocks: int, at_most: int) -> int:
        """How many passes, up to ``at_most``, the batch can make before it needs more than ``blocks``."""
        n = self.num_requests
        if self.kv_tokens(at_most) + n * (self._block_tokens - 1) <= blocks * self._block_tokens:
            return at_most
        if self.blocks(at_most) <= blocks:
            return at_most
        fits, fails = 0, at_most
        while fails - fits > 1:
            middle = (fits + fails) // 2
            if self.blocks(middle) <= blocks:
                fits = middle
            else:
                fails = middle
        return fits
