"""Bursts that come again: what has happened twice is kept room for, as long as it may happen a third time.

Nobody can know a first burst beforehand, and a start takes longer than most bursts last. But where they repeat, the
room for the next one has to be there before it comes. A burst is a rise well above the lowest rate of the last minutes
that ends again; a rise that stays is a new level, not a burst. What is remembered is the rise, since bursts come on
top of a load that has its own ups and downs.
"""

from __future__ import annotations

import itertools
import math
from typing import TypeAlias

import attrs

from planner_core.data.state import Surges

Lows: TypeAlias = tuple[tuple[float, float], ...]

LEVEL_S = 180.0
"""The lowest rate of so much time is the level that a burst rises from. The beginning of a service tells none."""
LASTS_S = 600.0
"""What has lasted so long is a new level."""
RISE, LEFT = 1.5, 0.4
"""A rate above so many times the level is a burst; it ends when only this part of its rise is left."""
LONGEST_WINDOW_S = 60.0
"""Longer windows hide what is a burst."""
NOISE = 2.5
"""Standard deviations of Poisson arrivals in one window that are no rise."""
REMEMBERED = 8
MOST_LOWS = 32
PATIENCE = 3.0
"""A burst is waited for as many times as long as the longest pause between those that are remembered …"""
LONGEST_S = 2 * 3600.0
"""… but no longer than this."""


def learn(
    surges: Surges, rps: float, recent_rps: float, duration_s: float, now_s: float, tokens: float = 1.0
) -> Surges:
    """The memory after a window of ``duration_s`` with ``rps`` arrivals per second, ``recent_rps`` when smoothed, of
    ``tokens`` each.
    """
    if duration_s > LONGEST_WINDOW_S:
        return surges
    if surges.from_s is None or now_s < surges.from_s:
        return Surges(from_s=now_s, ended=surges.ended)
    if now_s - surges.from_s < LEVEL_S:
        return surges
    peak_rps, since_s, lows, ended = surges.peak_rps, surges.since_s, surges.lows, surges.ended
    lasted = since_s is not None and now_s - since_s > LASTS_S
    if since_s is None or lasted:
        peak_rps, since_s, lows = 0.0, None, _lowest(() if lasted else lows, recent_rps, now_s)
    level_rps = lows[0][1]
    certain_rps = rps - NOISE * math.sqrt(rps / duration_s)
    if since_s is not None and recent_rps <= level_rps + LEFT * (peak_rps - level_rps):
        ended = (*ended, (now_s, peak_rps - level_rps, tokens))[-REMEMBERED:]
        peak_rps, since_s, lows = 0.0, None, ((now_s, level_rps),)
    elif certain_rps > RISE * level_rps:
        peak_rps, since_s = max(peak_rps, certain_rps), now_s if since_s is None else since_s
    return attrs.evolve(surges, lows=lows, peak_rps=peak_rps, since_s=since_s, ended=ended)


def _lowest(lows: Lows, rps: float, now_s: float) -> Lows:
    """The lowest rates of the last ``LEVEL_S``, rising, with that of now."""
    kept = [(at_s, low) for at_s, low in lows if low < rps and now_s - LEVEL_S <= at_s <= now_s]
    kept.append((now_s, rps))
    if len(kept) > MOST_LOWS:
        del kept[1]
    return tuple(kept)


def expected_rps(surges: Surges, now_s: float, tokens: float = 1.0) -> float:
    """The rate that the next burst is expected to reach, in requests of ``tokens``; 0 where none is.

    On top of the level, the second highest rise of those remembered, as far as they have come soon enough after each
    other: it was reached twice. Where requests have grown longer since, that many of the old ones are fewer of the new.
    """
    times = [at_s for at_s, _, _ in surges.ended]
    if len(times) < 2 or now_s < times[-1]:
        return 0.0
    pauses = [after - before for before, after in itertools.pairwise(times)]
    if now_s - times[-1] > min(PATIENCE * max(pauses), LONGEST_S):
        return 0.0
    rise_rps = sorted(rise * min(1.0, then / max(tokens, 1.0)) for _, rise, then in surges.ended)[-2]
    level_rps = surges.lows[0][1] if surges.lows else 0.0
    return level_rps + rise_rps
