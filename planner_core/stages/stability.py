"""No flapping: a role grows at once, and shrinks only to what has sufficed for a while."""

from __future__ import annotations

from planner_core.data.state import NeedMemory

MAX_NEEDS = 32
"""Needs that are kept; when full, neighbours merge into the higher need at the later time."""
LONGEST_GAP_S = 60.0
"""Needs that are known again after a longer gap than this (or the window) start a new watch."""


def remember(memory: NeedMemory, now_s: float, need: int, *, idle: bool, window_s: float) -> NeedMemory:
    """The memory with one more need. Of the window's needs, those that no later need reaches are kept."""
    since_s = None if memory.at_s is None else now_s - memory.at_s
    unbroken = since_s is not None and 0 <= since_s <= max(window_s, LONGEST_GAP_S)
    kept = [(at_s, n) for at_s, n in memory.highest if n > need and now_s - window_s <= at_s <= now_s]
    kept.append((now_s, need))
    if len(kept) > MAX_NEEDS:
        (_, higher), (later_s, _) = kept[0], kept[1]
        kept[:2] = [(later_s, higher)]
    return NeedMemory(
        highest=tuple(kept),
        from_s=memory.from_s if unbroken else now_s,
        at_s=now_s,
        idle_since_s=_since(memory.idle_since_s, now_s) if idle else None,
    )


def _since(since_s: float | None, now_s: float) -> float:
    """When something began that goes on; a clock that was set back begins it anew."""
    return now_s if since_s is None else min(since_s, now_s)


def settle(memory: NeedMemory, current: int, need: int, now_s: float, window_s: float) -> int:
    """What the role gets of its need: growth at once; shrinkage down to the highest need of the window.

    Before needs have been watched for a whole window, nothing shrinks.
    """
    if need >= current:
        return need
    if memory.from_s is None or now_s - memory.from_s < window_s:
        return current
    return min(current, max(n for _, n in memory.highest))
