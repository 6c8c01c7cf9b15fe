"""One look at fleets about as large as the present one: quick enough for every tick.

:func:`planner_core.maths.fleet.size` searches among all sizes. A fleet that is watched every few seconds is mostly
right as it is, for any rate of some range, which is found once for as long as engines and requests stay the same. Where
it is too large, one round over smaller sizes tells what is needed, with and without room to spare.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import attrs
import numpy as np

from planner_core.data.fpm import Bools, Floats
from planner_core.maths.fleet import FULLEST, Fleet, Offer, Promise, size

_NEAR = np.array([-4.0, -3, -2, -1, 0])
_FAR = np.array([-0.9, -0.75, -0.6, -0.45, -0.3, -0.2, -0.1])
"""Sizes that are looked at: so many engines more than there are, and such a part of them more."""
_SHARES = np.linspace(0.025, 1.0, 40)
"""Rates at which the present fleet is looked at, of its saturated one."""
FINE = 0.01
"""Rates are rounded up by at most this share, so that what was found for one serves the next tick's too."""
KEPT = 4096


@attrs.frozen(kw_only=True)
class Nearby:
    """How many engines a rate needs, and what the present ones carry."""

    needed: int
    """Engines that keep the promise, just the present ones where none is missing and none can be spared."""
    with_room: int
    """Engines that keep the tighter promise; where none can be spared, just the present ones, or ``needed``."""
    most_rps: float
    """Rate that the present engines carry within the promise, rounded down to a fortieth of the saturated one."""
    too_much_rps: float
    """Rate that they don't carry, rounded up."""


class Ask(NamedTuple):
    """What a fleet is looked at for."""

    rate_rps: float
    promise: Promise
    tighter: Promise
    """It differs from the promise in its targets; what is kept before an engine is given up."""


def look_nearby(fleet: Fleet, engines: int, asks: Sequence[Ask]) -> list[Nearby]:
    """Engines for each rate and promise, where ``engines`` (at least 1) run now."""
    rights = _just_right(fleet, engines, tuple((ask.promise, ask.tighter) for ask in asks))
    looks = []
    for right, (rate_rps, promise, tighter) in zip(rights, asks, strict=True):
        if right.spare_rps < rate_rps <= right.most_rps:
            needed, with_room = engines, engines
        else:
            needed, with_room = _search(fleet, rounded_up(rate_rps), engines, promise, tighter)
        looks.append(
            Nearby(
                needed=needed,
                with_room=with_room,
                most_rps=right.most_rps,
                too_much_rps=right.too_much_rps,
            )
        )
    return looks


@attrs.frozen
class Alone:
    """What requests meet on an idle engine."""

    unreachable: str | None
    """The target that a lone mean request misses, ``ttft`` or ``itl``; ``None`` if it meets both."""
    best_ms: float | None
    """Its latency, for that target."""
    too_long: float
    """Share of the requests whose prompts miss the TTFT even so."""


@functools.lru_cache(maxsize=KEPT)
def alone(fleet: Fleet, promise: Promise) -> Alone:
    """What no number of engines can better."""
    return Alone(*fleet.unreachable(promise), fleet.too_long(promise.ttft_ms))


def share_missed(
    fleet: Fleet, rates_rps: Sequence[float], engines: Sequence[float], promise: Promise
) -> tuple[float, ...]:
    """Share of the requests that, at each rate, would find no room in so many engines, or miss a target that they would
    keep in twice as many.
    """
    return _missed(fleet, tuple(map(rounded_up, rates_rps)), tuple(engines), promise)


@functools.lru_cache(maxsize=KEPT)
@np.errstate(all="ignore")
def _missed(
    fleet: Fleet, rates_rps: tuple[float, ...], engines: tuple[float, ...], promise: Promise
) -> tuple[float, ...]:
    sizes = np.maximum(np.array(engines), 1.0)
    offer = fleet.offers(np.maximum(rates_rps, 1e-9 * fleet.saturated_rps) / sizes, sizes)
    shares = offer.crowded + sum(here - double for here, double in offer.late(promise).values())
    return tuple(np.where(offer.full | np.isnan(shares), 1.0, np.clip(shares, 0.0, 1.0)).tolist())


@attrs.frozen
class Right:
    """The rates for which a fleet is just right."""

    spare_rps: float
    """Above it, no engine can be spared with room."""
    most_rps: float
    """Up to it, the promise is kept."""
    too_much_rps: float
    """From it on, the promise is broken."""


@functools.lru_cache(maxsize=KEPT)
def _just_right(fleet: Fleet, engines: int, promises: tuple[tuple[Promise, Promise], ...]) -> list[Right]:
    """By a look at many rates, once for all promises; what lies between two of them is not just right."""
    rates = fleet.saturated_rps * FULLEST * _SHARES * engines
    fewer = max(engines - 1, 1)
    sizes = np.repeat((float(engines), float(fewer)), len(rates))
    offer = fleet.offers(np.concatenate((rates, rates)) / sizes, sizes)
    step = float(rates[0])
    rights = []
    for promise, tighter in promises:
        too_much = _first_broken(fleet.broken(promise, offer)[: len(rates)])
        spare = _first_broken(_tight(fleet, promise, tighter, offer)[len(rates) :])
        rights.append(
            Right(
                spare_rps=0.0 if engines == 1 else step * (spare + 1),
                most_rps=step * too_much,
                too_much_rps=step * (too_much + 1),
            )
        )
    return rights


def _tight(fleet: Fleet, promise: Promise, tighter: Promise, offer: Offer) -> Any:
    """Which fleets are too small to give up an engine for: without room, or keeping the promise by an excuse."""
    return fleet.broken(tighter, offer) | fleet.broken(attrs.evolve(promise, strict=True), offer)


def _first_broken(broken: Bools) -> int:
    return int(broken.argmax()) if broken.any() else len(broken)


def rounded_up(rate_rps: float) -> float:
    """Up to ``FINE`` more; 0 stays 0."""
    return math.exp(math.ceil(math.log(rate_rps) / FINE) * FINE) if rate_rps > 0 else 0.0


@functools.lru_cache(maxsize=KEPT)
def _search(
    fleet: Fleet, rate_rps: float, engines: int, promise: Promise, tighter: Promise
) -> tuple[int, int]:
    """(Engines that keep the promise, those that keep the tighter one): one look at sizes up to the present one, and a
    search beyond it where that is too small.
    """
    sizes = np.unique(np.maximum(np.rint(np.concatenate((engines + _NEAR, engines * (1 + _FAR)))), 1.0))
    offer = fleet.offers(np.maximum(rate_rps, 1e-9 * fleet.saturated_rps) / sizes, sizes)
    needed = _fewest(sizes, fleet.broken(promise, offer))
    if needed is None:
        missing = max(size(fleet, promise, rate_rps).engines, engines + 1)
        return missing, missing
    with_room = _fewest(sizes, _tight(fleet, promise, tighter, offer)) or engines
    return needed, max(needed, with_room)


def _fewest(sizes: Floats, broken: Bools) -> int | None:
    """Fewest engines from which on a promise is kept; ``None`` if all of these are too few."""
    bad = np.flatnonzero(broken)
    after = int(bad[-1]) + 1 if len(bad) else 0
    return int(sizes[after]) if after < len(sizes) else None
