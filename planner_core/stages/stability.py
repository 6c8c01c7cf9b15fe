"""No flapping: a role grows at once, and shrinks only to what has sufficed for a while.

A shrinkage that is undone soon after is regretted: the role doesn't go back to that size for a time, which doubles
each time it happens again. So a fleet comes to rest also where its size is misjudged.
"""

from __future__ import annotations

import attrs

from planner_core.data.state import NeedMemory
from planner_core.maths.lasting import with_need

LONGEST_GAP_S = 60.0
"""Needs that are known again after a longer gap than this (or half again the window) start a new watch."""
SOON_S = 600.0
"""Growth within this time of a shrinkage is taken to undo it."""
FIRST_REGRET_S = 2 * 3600.0
LONGEST_REGRET_S = 16 * 3600.0
CLEARLY_LESS = 0.85
"""A need below so much of a regretted size is another load, not the misjudged one."""


def remember(memory: NeedMemory, now_s: float, need: int, *, idle: bool, window_s: float) -> NeedMemory:
    """The memory with one more need."""
    since_s = None if memory.at_s is None else now_s - memory.at_s
    unbroken = since_s is not None and 0 <= since_s <= max(1.5 * window_s, LONGEST_GAP_S)
    return attrs.evolve(
        memory,
        highest=with_need(memory.highest, now_s, need, window_s),
        from_s=memory.from_s if unbroken else now_s,
        at_s=now_s,
        idle_since_s=_since(memory.idle_since_s, now_s) if idle else None,
    )


def settle(
    memory: NeedMemory, current: int, need: int, now_s: float, window_s: float
) -> tuple[int, NeedMemory]:
    """What the role gets of its need, and the memory of it.

    Growth at once; shrinkage down to the highest need of the window, and not to a size that is regretted, unless
    the need has fallen clearly below it. Before needs have been watched for a whole window, nothing shrinks.
    """
    if need > current:
        return need, _regret(memory, current, now_s)
    if need == current or memory.from_s is None or now_s - memory.from_s < window_s:
        return current, memory
    settled = memory.highest[0][1]
    regrets = memory.regret_until_s is not None and now_s < memory.regret_until_s
    if regrets and settled > CLEARLY_LESS * memory.regretted:
        settled = max(settled, memory.regretted + 1)
    if settled >= current:
        return current, memory
    return settled, attrs.evolve(memory, shrunk_at_s=now_s, shrunk_to=settled)


def _regret(memory: NeedMemory, current: int, now_s: float) -> NeedMemory:
    """The memory after a growth from ``current``: does it undo a shrinkage?"""
    if (
        memory.shrunk_at_s is None
        or current > memory.shrunk_to
        or not 0 <= now_s - memory.shrunk_at_s <= SOON_S
    ):
        return memory
    last_s = memory.regret_until_s
    again = last_s is not None and now_s - last_s <= memory.regret_s
    regret_s = min(2 * memory.regret_s, LONGEST_REGRET_S) if again else FIRST_REGRET_S
    return attrs.evolve(
        memory,
        shrunk_at_s=None,
        regretted=memory.shrunk_to,
        regret_until_s=now_s + regret_s,
        regret_s=regret_s,
    )


def _since(since_s: float | None, now_s: float) -> float:
    """When something began that goes on; a clock that was set back begins it anew."""
    return now_s if since_s is None else min(since_s, now_s)
