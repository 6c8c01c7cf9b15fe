"""What became of each request, as columns."""

from __future__ import annotations

import enum

import attrs
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


class Status(enum.IntEnum):
    """How a request ended."""

    UNFINISHED = 0
    """On its way, or not arrived yet."""
    COMPLETED = 1
    REJECTED = 2
    """Too long for the engine, whatever its load."""


@attrs.frozen(kw_only=True, eq=False)
class RequestResults:
    """One row per submitted request, in the order of submission. NaN is "not yet", or "never"."""

    arrival_s: Floats
    input_tokens: Ints
    output_tokens: Ints
    """Tokens asked for; in a completed request the tokens that came, fewer if the context length ended it."""
    first_token_s: Floats
    finish_s: Floats
    status: Ints
    """Values of :class:`Status`."""

    @property
    def ttft_ms(self) -> Floats:
        """Arrival to first token. In disaggregated serving the decode engine emits it (unless
        ``EngineModel.prefill_emits_first_token``), so that the transfer of the KV cache, the wait for a decode
        engine and one pass of it count here.
        """
        return (self.first_token_s - self.arrival_s) * 1e3

    @property
    def itl_ms(self) -> Floats:
        """Mean time between the tokens of a finished request; NaN for one token, which has nothing
        between.
        """
        gaps = np.where(self.output_tokens > 1, self.output_tokens - 1, np.nan)
        return (self.finish_s - self.first_token_s) / gaps * 1e3

    def met_ttft(self, target_ms: float) -> Bools:
        """Requests that finished, with their first token in time."""
        met: Bools = (self.status == Status.COMPLETED) & (self.ttft_ms <= target_ms)
        return met

    def met_itl(self, target_ms: float) -> Bools:
        """Requests that finished, with their tokens in time; one token has no ITL, and is."""
        met: Bools = (self.status == Status.COMPLETED) & ~(self.itl_ms > target_ms)
        return met
