"""What a batch is like between steady states: it fills and empties about as slowly as requests decode."""

from __future__ import annotations

import numpy as np

from planner_core.data.fpm import Floats
from planner_core.maths.batch_fleet import BatchFleet


def batch_after(fleet: BatchFleet, batch: Floats, engine_rps: Floats, seconds: float) -> Floats:
    """The batch of an engine that had ``batch``, after so many seconds of this rate; what finds no seat waits, and is
    counted. Shapes (fleets,).

    The fluid limit of the processor-sharing queue, dn/dt = λ − n/(o·S(n)), by one implicit step: it never oscillates,
    and a long one ends in the steady state.
    """
    with_came = batch + engine_rps * seconds
    before_left = np.concatenate(([0.0], fleet.batch + fleet.rps * seconds))
    waiting = np.maximum(with_came - before_left[-1], 0.0)
    after: Floats = np.interp(with_came, before_left, np.concatenate(([0.0], fleet.batch))) + waiting
    return after


def steady_rps(fleet: BatchFleet, batch: Floats) -> Floats:
    """The rate at which an engine would always have this batch."""
    batches, rates = (np.concatenate(([0.0], column)) for column in (fleet.batch, fleet.rps))
    rps: Floats = np.interp(batch, batches, rates)
    return rps
