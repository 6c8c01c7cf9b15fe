"""What a group of replicas does. A deployment's mode is the set of roles that it has."""

from __future__ import annotations

import enum


class Role(enum.StrEnum):
    """What a group of replicas does in an LLM deployment."""

    PREFILL = "prefill"
    """Computes the KV cache of prompts; compute-bound, judged by TTFT."""
    DECODE = "decode"
    """Generates tokens from a transferred KV cache; memory-bound, judged by ITL."""
    AGG = "agg"
    """Does both in the same engine; judged by TTFT and ITL."""

    @property
    def prefills(self) -> bool:
        """Whether engines of this role compute prompts, so that TTFT is theirs to keep."""
        return self is not Role.DECODE

    @property
    def decodes(self) -> bool:
        """Whether engines of this role generate tokens, so that ITL is theirs to keep."""
        return self is not Role.PREFILL


ROLES_OF_MODE: dict[str, tuple[Role, ...]] = {
    "disagg": (Role.PREFILL, Role.DECODE),
    "prefill": (Role.PREFILL,),
    "decode": (Role.DECODE,),
    "agg": (Role.AGG,),
}
"""The roles of each mode's name."""
