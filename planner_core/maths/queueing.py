"""Waiting times of one engine: how busy may it be so that requests still start in time?

An engine's queue is taken as M/G/1. Its mean wait is W = k·S·ρ/(1 − ρ) with k = (1 + cv²)/2 (Pollaczek 1930,
Khinchine 1932), S the mean service time, cv its coefficient of variation and ρ the utilisation; the wait's tail is
P(W > t) ≈ ρ·exp(−t·(1 − ρ)/(k·S)), exact for exponential service and the heavy-traffic limit of every other
(Kingman 1961).
"""

from __future__ import annotations

import math

import numpy as np

from planner_core.data.fpm import Floats

BUSY_SHARE = 0.7
"""Share of prompt engines at work that is planned for where arrivals aren't known."""
ROUNDING = 1e-9
STEPS = 40
"""Halvings of the utilisation's interval: 1e-12 is left."""


def whole(replicas: float) -> int:
    """Replicas that cover a real number of them; one that is above a whole number only by rounding counts as it."""
    return math.ceil(replicas - ROUNDING)


def wait_s(service_s: Floats, utilisation: Floats, *, cv2: float, quantile: float | None) -> Floats:
    """Wait before service begins: mean, or a quantile of it; infinite from utilisation 1 on. Vectorised."""
    spread_s = service_s * ((1 + cv2) / 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        if quantile is None:
            wait = spread_s * utilisation / (1 - utilisation)
        else:
            wait = spread_s * np.log(np.maximum(utilisation / (1 - quantile), 1.0)) / (1 - utilisation)
    return np.where(utilisation < 1, wait, np.inf)


def utilisation_for_wait(service_s: float, target_s: float, *, cv2: float, quantile: float | None) -> float:
    """Largest utilisation at which the wait (mean, or its quantile) is at most ``target_s``; in [0, 1)."""
    spread_s = service_s * (1 + cv2) / 2
    if target_s <= 0:
        return 0.0 if quantile is None else 1 - quantile  # so rarely busy that few wait at all
    if spread_s <= 0:
        return 1.0
    room = target_s / spread_s
    if quantile is None:
        return room / (1 + room)
    low, high = 1 - quantile, 1.0
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (
            (middle, high) if math.log(middle / (1 - quantile)) <= room * (1 - middle) else (low, middle)
        )
    return low
