"""What one simulated engine can do: its timing, its memory, its scheduler's limits."""

from __future__ import annotations

from typing import Any

import attrs

from planner_adapters.simulation.timing import EngineTiming
from planner_core.data.checks import config_number
from planner_core.data.errors import ConfigError
from planner_core.perf import Profiled

_at_least_one = config_number(whole=True, least=1)


@attrs.frozen(kw_only=True)
class EngineModel:
    """Timing and capacities of an engine; the defaults of the limits are those of vLLM v1 on large GPUs."""

    timing: EngineTiming
    max_kv_tokens: int = attrs.field(validator=_at_least_one)
    num_gpus: int = attrs.field(default=1, validator=_at_least_one)
    max_num_seqs: int = attrs.field(default=256, validator=_at_least_one)
    max_num_batched_tokens: int = attrs.field(default=8192, validator=_at_least_one)
    context_length: int = attrs.field(default=0, validator=config_number(whole=True, least=0))
    """Longest prompt and output together; 0 stands for ``max_kv_tokens``."""
    kv_block_tokens: int = attrs.field(default=16, validator=_at_least_one)
    """Tokens in a block of KV cache; the capacity is whole blocks."""
    kv_transfer_tokens_per_s: float = attrs.field(default=400_000.0, validator=config_number(above=0))
    """Bandwidth from a prefill to a decode engine: 400 Gbit/s at 128 KB a token (an 8B model in BF16)."""
    kv_transfer_latency_s: float = attrs.field(default=0.002, validator=config_number(least=0))
    prefill_emits_first_token: bool = False
    """Disaggregated: whether the first token reaches the client from the prefill engine, before the KV cache moves.
    vLLM computes it once more on the decode engine, and so does Dynamo's mocker.
    """

    def __attrs_post_init__(self) -> None:
        within = (("max_num_seqs", "max_num_batched_tokens"), ("kv_block_tokens", "max_kv_tokens"))
        for small, large in within:
            least, value = getattr(self, small), getattr(self, large)
            if value < least:
                raise ConfigError(f"EngineModel.{large} = {value}: must be at least {small} = {least}")

    @classmethod
    def from_profile(cls, profile: Profiled, **capacities: Any) -> EngineModel:
        """An engine as profiled; ``capacities`` override or fill in what the profile doesn't know."""
        known = {"max_kv_tokens": profile.max_kv_tokens, "num_gpus": profile.num_gpus}
        given = {key: value for key, value in known.items() if value is not None} | capacities
        return cls(timing=EngineTiming.from_profile(profile), **given)

    @property
    def kv_blocks(self) -> int:
        """Blocks of KV cache."""
        return self.max_kv_tokens // self.kv_block_tokens

    @property
    def longest_request_tokens(self) -> int:
        """Prompt and output that one request may have in the cache: the context, if the memory holds as
        much.
        """
        room = self.kv_blocks * self.kv_block_tokens
        return min(self.context_length or room, room)

    def transfer_s(self, tokens: int) -> float:
        """Time to move the KV cache of ``tokens`` to another engine."""
        return self.kv_transfer_latency_s + tokens / self.kv_transfer_tokens_per_s
