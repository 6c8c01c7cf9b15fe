"""What was needed at most, lately: the highest of a moving window, in little memory."""

from __future__ import annotations

from typing import TypeAlias

Needs: TypeAlias = tuple[tuple[float, int], ...]

MAX_NEEDS = 32
"""Needs that are kept; when full, neighbours merge into the higher need at the later time."""


def with_need(highest: Needs, now_s: float, need: int, window_s: float) -> Needs:
    """(Time, need) of the window's needs that no later one reaches, and that of now; the first is the highest."""
    kept = [(at_s, n) for at_s, n in highest if n > need and now_s - window_s <= at_s <= now_s]
    kept.append((now_s, need))
    if len(kept) > MAX_NEEDS:
        (_, higher), (later_s, _) = kept[0], kept[1]
        kept[:2] = [(later_s, higher)]
    return tuple(kept)
