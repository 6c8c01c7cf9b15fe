"""One look at fleets about as large as the present one: quick enough for every tick.

:func:`planner_core.maths.fleet.size` searches among all sizes. A fleet that is watched every few seconds is mostly
nearly right, so one round over sizes near the present one tells what is needed, with and without room to spare.
"""

from __future__ import annotations

import attrs
import numpy as np

from planner_core.data.fpm import Bools, Floats
from planner_core.maths.fleet import FULLEST, Fleet, Offer, Promise, size

_NEAR = np.array([-4.0, -3, -2, -1, 0, 1, 2, 3, 4, 6, 9, 12, 16])
_FAR = np.array([-0.9, -0.75, -0.6, -0.45, -0.3, -0.2, -0.1, 0.1, 0.2, 0.35, 0.6, 1.0])
"""Sizes that are looked at: so many engines more than there are, and such a part of them more."""
_RATES = np.linspace(0.05, 1.0, 20)
"""Rates at which the present fleet is looked at, of its saturated one."""


@attrs.frozen(kw_only=True)
class Nearby:
    """How many engines a rate needs, and what the present ones carry."""

    needed: int
    """Engines that keep the promise; at most the next size looked at too many."""
    with_room: int
    """Engines that keep the tighter promise; where none can be spared anyway, just ``needed``."""
    binding: str
    """What one engine less would break; ``none`` if nothing."""
    most_rps: float
    """Rate that the present engines carry within the promise, rounded down to a twentieth of the saturated one."""
    too_much_rps: float
    """Rate that they don't carry, rounded up."""


def look_nearby(fleet: Fleet, rate_rps: float, engines: int, promise: Promise, tighter: Promise) -> Nearby:
    """Engines for ``rate_rps`` requests per second, where ``engines`` (at least 1) run now."""
    sizes = np.unique(np.maximum(np.rint(np.concatenate((engines + _NEAR, engines * (1 + _FAR)))), 1.0))
    saturated_rps = fleet.saturated_rps
    offer = fleet.offers(
        np.concatenate((np.maximum(rate_rps, 1e-9 * saturated_rps) / sizes, saturated_rps * _RATES)),
        np.concatenate((sizes, np.full(len(_RATES), float(engines)))),
    )
    needed, broken, binding = _fewest(fleet, promise, rate_rps, sizes, offer)
    # Where no engine can be spared without room, none can be with it.
    with_room = needed if needed >= engines else _fewest(fleet, tighter, rate_rps, sizes, offer)[0]
    over = broken[len(sizes) :]
    kept = int(over.argmax()) if over.any() else len(_RATES) - 1
    per_step = saturated_rps * engines * FULLEST / len(_RATES)
    return Nearby(
        needed=needed,
        with_room=max(needed, with_room),
        binding=binding,
        most_rps=kept * per_step,
        too_much_rps=(kept + 1) * per_step,
    )


def _fewest(
    fleet: Fleet, promise: Promise, rate_rps: float, sizes: Floats, offer: Offer
) -> tuple[int, Bools, str]:
    """(Fewest engines from which on the promise is kept, what breaks it, by what one engine less would)."""
    breaks = fleet.breaks(promise, offer)
    broken = np.logical_or.reduce(list(breaks.values()))
    bad = np.flatnonzero(broken[: len(sizes)])
    if not len(bad):
        return int(sizes[0]), broken, "none"
    last = int(bad[-1])
    binding = next(name for name, which in breaks.items() if which[last])
    if last + 1 == len(sizes):
        return size(fleet, promise, rate_rps).engines, broken, binding
    return int(sizes[last + 1]), broken, binding
