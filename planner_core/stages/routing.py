"""How a router spreads requests over the engines: to the least loaded one, or in turn, whatever these have in hand.

Nobody tells the planner, but the engines' work does. Dealt at random, the work of an engine varies between engines by
E[l²]/E[l] times its mean (a compound Poisson sum of requests of l tokens); a router that balances leaves a fraction of
that, at any load.
"""

from __future__ import annotations

import math

import numpy as np

from planner_core.data.fpm import Floats
from planner_core.data.roles import Role
from planner_core.maths.shape import RequestShape
from planner_core.maths.work import Work

MEMORY_ENGINE_S = 600.0
"""Engines, but for one, times seconds in which what is known fades to a third: few engines take long to tell."""
LEAST_WORK = 1.25
"""Requests per engine, on average, below which work that is dealt in turn looks as even as any."""
BALANCED, DEALT = 0.4, 0.65
"""Unevenness, 1 being that of chance, up to which a router is taken to balance, and from which on not to. Simulated
fleets of 4 to 30 engines: 0.05 to 0.45 behind the least loaded, 0.6 to 4 behind round robin."""
STEPS = 10
"""What is known is told in so many steps, so that a fleet isn't sized anew at every tick."""


def learn(uneven: float, role: Role, work: Work[Floats], shape: RequestShape, elapsed_s: float) -> float:
    """The unevenness after engines were seen with this ``work``; 1: as if by chance, which is the most there is."""
    num = len(work.num_decode)
    if num < 3:
        return uneven
    if role.decodes:
        tokens, mean, std = work.kv_tokens, shape.context, shape.context_std
        relative_square = (std / mean) ** 2
    else:
        tokens, mean = work.queued_tokens + work.prefill_tokens, max(shape.fresh_isl, 1.0)
        relative_square = shape.isl_cv2 or 0.0
    each = float(np.add.reduce(tokens)) / num
    if each < LEAST_WORK * mean:
        return uneven
    deviation = tokens - each
    variance = float(deviation @ deviation) / (num - 1)
    seen = min(variance / (each * float(mean) * (1 + relative_square)), 1.0)
    return uneven + (seen - uneven) * -math.expm1(-(num - 1) * elapsed_s / MEMORY_ENGINE_S)


def dealt(uneven: float) -> float:
    """Share of the requests that are dealt to engines in turn, whatever these have in hand."""
    share = min(max((uneven - BALANCED) / (DEALT - BALANCED), 0.0), 1.0)
    return round(share * STEPS) / STEPS
