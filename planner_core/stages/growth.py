"""How much load tends to grow while a replica starts: it comes on top of what arrives now.

What is ordered now is ready a start later, so a fleet that is just right for now is too small for what has come by
then. How much that usually is, is measured: time and again, the load is compared with that of a start before. A rise
that goes on is taken to go on.
"""

from __future__ import annotations

import math

from planner_core.data.state import Growth

PARTS = 4
"""The load is noted this many times in a start."""
REMEMBERED = 64
MOST = 0.5
"""What is beyond this is a burst, or the beginning of a service, and says nothing of what usually comes."""
MOST_GOING_ON = 1.0
"""A rise under way is taken to go on up to here."""
ABSURD = 1e6
CHANCE = 1.645
"""Standard deviations that are chance: with so many, one in twenty of the differences that mean nothing is beyond."""


def learn(
    growth: Growth, load: float, varies: float, now_s: float, horizon_s: float, *, bursts: bool = False
) -> Growth:
    """The memory with the smoothed ``load`` of now; one that stays the same ``varies`` by this share from time to time.

    ``horizon_s`` is the time in which a replica that is asked for becomes ready. A gap, or a clock that was set back,
    begins the comparison anew. What rises while the load ``bursts`` isn't compared: bursts are remembered as such.
    """
    past = growth.past
    if past and not 0 <= now_s - past[-1][0] <= 2 * horizon_s:
        past = ()
    if past and now_s - past[-1][0] < horizon_s / PARTS * (1 - 1e-9):
        return growth
    past = (*past, (now_s, load))[-PARTS - 1 :]
    seen = growth.seen
    if len(past) > PARTS and past[0][1] > 0 and not bursts:
        rise = min(load / past[0][1] - 1, ABSURD)
        chance = min(CHANCE * varies * math.sqrt(2), ABSURD)
        beyond_chance = math.sqrt(max(rise - chance, 0.0) * (rise + chance))
        seen = (*seen, min(beyond_chance, MOST))[-REMEMBERED:]
    return Growth(past=past, seen=seen)


def expected(growth: Growth, varies: float, share: float) -> float:
    """What comes on top of the present load, as a part of it: as much as in this ``share`` of the cases, at most;
    with a share of 0, as much as in the mildest of all.

    At least as much as the last start brought, where the load rose in both halves of it.
    """
    usual = 0.0
    if len(growth.seen) >= PARTS:
        usual = sorted(growth.seen)[max(math.ceil(share * len(growth.seen)), 1) - 1]
    if len(growth.past) < 3:
        return usual
    half = (len(growth.past) - 1) // 2
    first, middle, last = (load for _, load in growth.past[::-half][2::-1])
    steady = min(middle - first, last - middle) - CHANCE * varies * math.sqrt(2) * last
    if steady <= 0 or last <= 0:
        return usual
    return max(usual, min(steady / last * PARTS / half, MOST_GOING_ON))
