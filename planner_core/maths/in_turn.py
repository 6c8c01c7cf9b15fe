"""Engines to which a router deals requests in turn (round robin), whatever they have in hand.

Each of N engines gets every N-th request: as regularly as can be, but nobody helps out who is idle.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from planner_core.data.fpm import Floats

REGULAR = 0.5
"""Variance of an engine's load, as a share of what Poisson arrivals would give it: where the arrivals are regular, that
of the services is left (half of (c_a² + c_s²)/2; Kingman, The single server queue in heavy traffic, 1961)."""


def pool_of(engines: Floats, dealt: float) -> Floats:
    """As how many engines a fleet shares its luck: all where none is ``dealt`` in turn, two of many where all are."""
    pool: Floats = 1 / (1 / engines + REGULAR * dealt * (1 - 1 / engines))
    return pool


def one_by_one(engines: Floats, per_pass: Any) -> tuple[Floats, Floats]:
    """(Share of the passes in which no prompt comes to an engine, by how much a prompt more per pass lowers it).

    The fleet gets M ~ Poisson(N·p) prompts in a pass, p of them per engine, and the engine is dealt one with the
    probability M/N, for certain from N on: E[max(1 − M/N, 0)] = Q(N + 1, N·p) − p·Q(N, N·p), whose slope is
    −Q(N, N·p), with Q the upper regularised gamma function. For one engine that is e^(−p), for many 1 − p.
    """
    from scipy.special import gammaincc

    fleet = engines * per_pass
    fewer: Floats = gammaincc(engines, fleet)
    none: Floats = np.maximum(gammaincc(engines + 1, fleet) - per_pass * fewer, 0.0)
    return none, fewer
