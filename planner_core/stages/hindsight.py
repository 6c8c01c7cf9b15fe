"""How much room for growth and bursts is worth its price? Fleets that never were, judged in hindsight.

Room is an insurance, and what it has to cover differs: here a load that rises by a third in a start finds nobody to
serve it, there the fleet has replicas enough, since it is a whole number of them and was in no hurry to shrink. So for
each level of room a fleet is imagined that follows the planner's own rules, starts included. It gets what really came,
its batches fill and empty as slowly as real ones, and it is counted how many requests would have missed the SLA. Kept
is the least room in which few enough would have, and the fleet is then no smaller than the one imagined. Nothing is
risked to find out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import attrs

from planner_core.data.state import Hindsight, ImaginedFleet
from planner_core.maths.lasting import with_need

PARTS = 4
"""Looks in the time of a start."""
LONGEST_GAP_S = 60.0
"""After a longer gap than this, or than two starts, fleets are imagined anew."""
WATCHED = 5.0
"""Starts that have to be seen before less than the most room is kept."""
MEMORY = 60.0
"""Starts after which what was seen has faded to a third."""
SPENT = 0.8
"""Of the requests that may miss the SLA, so large a part may be foreseen to. Rather too many are in fleets that miss
few; what is left is for what nobody foresees."""


@attrs.frozen(kw_only=True, eq=False)
class World:
    """What imagined fleets live in, as it is now."""

    levels: int
    """How many there are, from the least room to the most."""
    replicas: int
    """Those of the real fleet."""
    startup_s: float
    window_s: float
    """For so long a need must have lasted before a fleet shrinks to it."""
    arrivals_rps: float
    """Smoothed."""
    need: Callable[[int, int], int]
    """(Replicas that there are, level) → replicas that are asked for."""
    fare: Callable[
        [Sequence[int], Sequence[float | None], float, float], tuple[Sequence[float], Sequence[float | None]]
    ]
    """(Ready replicas, requests in flight, requests that then came per second, for so many seconds) → (share of these
    that would miss the SLA, requests in flight then), of each fleet."""


def level(
    past: Hindsight, most: int, startup_s: float, share: float, missed_elsewhere: Sequence[float] = ()
) -> int:
    """Which of the levels, up to ``most``, to keep room for, where ``share`` of the requests are to keep the SLA, and
    such shares of them miss it in other roles. Each role may spend its part, or what the others leave of the whole.
    While the promise isn't kept with the most room, no room is saved.
    """
    if past.from_s is None or past.at_s - past.from_s < WATCHED * startup_s:
        return most
    spent = SPENT * (1 - share)
    bearable = min(spent / (1 + len(missed_elsewhere)), spent - sum(missed_elsewhere)) * past.num_requests
    return next((number for number, fleet in enumerate(past.fleets) if fleet.missed <= bearable), most)


def least(past: Hindsight, chosen: int) -> int:
    """The replicas that the imagined fleet of this level has: a smaller one hasn't been judged. 0 for the most room,
    which needs no judgement.
    """
    return past.fleets[chosen].ordered[-1][1] if chosen < len(past.fleets) - 1 else 0


def missed(past: Hindsight) -> float:
    """Share of the requests that would have missed the SLA with the most room."""
    return past.fleets[-1].missed / past.num_requests if past.num_requests else 0.0


def learn(past: Hindsight, world: World, now_s: float, came: tuple[float, float]) -> Hindsight:
    """The fleets after what came since the last look; ``came``: (requests, seconds) of the window that ends now. A gap,
    or a clock that was set back, begins anew.

    What comes in the time of the first start isn't counted: no room could have helped there. A request lives among
    those that come after it, too, so it is counted by the worse of the look that it comes in and the next.
    """
    since_s, startup_s = now_s - past.at_s, world.startup_s
    gap = not 0 <= since_s <= max(2 * startup_s, LONGEST_GAP_S)
    if past.from_s is None or gap or len(past.fleets) != world.levels:
        fleets = (ImaginedFleet(ordered=((now_s, world.replicas),)),) * world.levels
        return Hindsight(from_s=now_s, at_s=now_s, fleets=fleets)
    came = past.came[0] + came[0], past.came[1] + came[1]
    if since_s < startup_s / PARTS * (1 - 1e-9) or not since_s:
        return attrs.evolve(past, came=came)
    began = now_s - past.from_s <= startup_s * (1 + 1 / PARTS)
    rate_rps = came[0] / came[1] if came[1] else world.arrivals_rps
    counted = 0.0 if began else rate_rps * since_s
    kept = math.exp(-since_s / (MEMORY * startup_s)) if startup_s else 0.0
    ready = [_ready(fleet, now_s, startup_s) for fleet in past.fleets]
    shares, in_flight = world.fare(ready, [fleet.in_flight for fleet in past.fleets], rate_rps, since_s)
    fleets = tuple(
        attrs.evolve(
            _moved(fleet, world, number, now_s, now_s - past.from_s),
            missed=kept * (fleet.missed + past.came_before * max(share - fleet.share, 0.0)) + counted * share,
            in_flight=batch,
            share=share,
        )
        for number, (fleet, share, batch) in enumerate(zip(past.fleets, shares, in_flight, strict=True))
    )
    num_requests = past.num_requests * kept + counted
    return Hindsight(
        from_s=past.from_s, at_s=now_s, came_before=counted, num_requests=num_requests, fleets=fleets
    )


def _ready(fleet: ImaginedFleet, now_s: float, startup_s: float) -> int:
    """The replicas that have been ordered for a whole start."""
    old = [replicas for at_s, replicas in fleet.ordered if at_s <= now_s - startup_s]
    return old[-1] if old else fleet.ordered[0][1]


def _moved(fleet: ImaginedFleet, world: World, number: int, now_s: float, watched_s: float) -> ImaginedFleet:
    """The fleet after growth at once, or shrinkage to what has sufficed for a while; while some of it starts, none."""
    replicas = fleet.ordered[-1][1]
    need = world.need(replicas, number)
    needs = with_need(fleet.needs, now_s, need, world.window_s)
    if need > replicas:
        replicas = need
    elif watched_s >= world.window_s and _ready(fleet, now_s, world.startup_s) == replicas:
        replicas = needs[0][1]
    fewer = [order for order in fleet.ordered if order[1] < replicas]
    since_s = next((at_s for at_s, ordered in fleet.ordered if ordered >= replicas), now_s)
    ordered = (*fewer, (since_s, replicas))
    old = sum(at_s <= now_s - world.startup_s for at_s, _ in ordered)
    return attrs.evolve(fleet, ordered=ordered[max(old - 1, 0) :], needs=needs)
