"""The same traffic for a larger or smaller service."""

from __future__ import annotations

import math

import numpy as np

from planner_adapters.simulation.workload import Workload


def scaled(workload: Workload, factor: float, *, seed: int = 0, jitter_s: float = 20.0) -> Workload:
    """About ``factor`` times as many requests over the same time, with the same shape over minutes.

    Each copy beyond the first is shifted request by request by up to ``jitter_s``, so that copies don't arrive in
    step; the last one is thinned to the fraction. Lengths stay with their requests. ``ValueError`` unless
    ``factor`` is above 0 and leaves a request.
    """
    if not 0 < factor < math.inf:
        raise ValueError(f"factor = {factor!r}: must be above 0 and finite")
    dice = np.random.default_rng(seed)
    everyone = np.arange(len(workload.arrival_s))
    picks, arrivals = [], []
    for copy in range(math.ceil(factor)):
        picked = everyone[dice.random(len(everyone)) < factor - copy]
        shift_s = dice.uniform(0, jitter_s, len(picked)) if copy else 0.0
        picks.append(picked)
        arrivals.append(workload.arrival_s[picked] + shift_s)
    rows, arrival_s = np.concatenate(picks), np.concatenate(arrivals)
    if not len(rows):
        raise ValueError(f"factor = {factor!r} leaves no request of {len(everyone)}")
    order = arrival_s.argsort(kind="stable")
    rows = rows[order]
    hits = workload.prefix_hit_tokens
    return Workload(
        name=workload.name if factor == 1 else f"{workload.name} x{factor:g}",
        arrival_s=arrival_s[order],
        input_tokens=workload.input_tokens[rows],
        output_tokens=workload.output_tokens[rows],
        prefix_hit_tokens=None if hits is None else hits[rows],
    )
