"""Two queues that engines really are: prompts that share passes, and engines that share arrivals."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from planner_core.data.fpm import Floats

BUSY_SHARE = 0.7
"""Share of prompt engines at work that is planned for where arrivals aren't known."""
ROUNDING = 1e-9


def whole(replicas: float) -> int:
    """Replicas that cover a real number of them; one that is above a whole number only by rounding counts as it."""
    return math.ceil(replicas - ROUNDING)


def erlang(servers: Floats, offered: Floats) -> tuple[Floats, Floats]:
    """P(all servers are busy) for ``offered`` (below ``servers``) erlangs: (where none waits, where all wait).

    Erlang's B and C formulas (1917), for real numbers of servers: B = a^c·e^(−a)/Γ(c + 1, a), the ratio of a Poisson
    probability to its distribution function, so that it takes the same time for 10 000 servers as for one;
    C = B/(1 − r + r·B) with r = a/c.
    """
    from scipy.special import gammaincc, gammaln

    a = np.maximum(offered, 1e-12)
    poisson = np.exp(servers * np.log(a) - a - gammaln(servers + 1))
    lost = np.minimum(poisson / np.maximum(gammaincc(servers + 1, a), 1e-300), 1.0)
    r = np.minimum(a / servers, 1.0)
    return lost, lost / np.maximum(1 - r + r * lost, 1e-300)


class Passes(NamedTuple):
    """Passes of one engine whose waiting prompts all join the next pass; arrays of shape (fleets,)."""

    mean_s: Floats
    empty: Floats
    """Share of the passes in which no prompt arrives."""
    biased_s: Floats
    """Mean of the pass that an arrival finds: E[S²]/E[S]."""
    wait_s: Floats
    """Mean wait for the end of that pass, and for the prompts in the next one besides the arrival's own."""
    wait_variance: Floats
    busy: Floats
    """Share of the arrivals that find a pass under way."""


ROUNDS = 3
"""Of the fixed point for P(no arrival in a pass); its error falls to a third or less in each."""


def gated_passes(
    rate: Floats, overhead_s: Floats, work_s: Floats, work_second: Floats, rho: Floats, stiff: Floats
) -> Passes:
    """Passes of a prefill engine: what waits at the end of one goes into the next; it idles if nothing does.

    S' = a + Σ B over the N ~ Poisson(λS) arrivals of the pass before, or a single B where N = 0 (the next arrival
    begins a pass). With φ = E[e^(−λS)] = P(N = 0), ρ = λ·E[B], taking moments of both sides in the steady state:

    - E[S] = (a + E[B]·φ)/(1 − ρ)
    - E[S²] = (a² + 2a·(E[S] − a) + E[B²]·(λE[S] + φ))/(1 − ρ²)

    φ is that of a gamma distribution above a with these two moments. Passes start at λ(1 − busy)/φ, so
    busy/(1 − busy) = λE[S]/φ. An arrival in a pass of length S (length-biased) waits for its end, U·S, and computes
    beside all that arrived in it: E[wait | S] = S/2 + ρS, Var[wait | S] = S²/12 + λE[B²]·S. (Gated service: Takagi,
    Queueing Analysis 1, 1991, section 2.4; batch service as here: Bailey 1954.) Its remaining work is that of M/G/1:
    for a = 0, E[S²]/E[S]·(1 + ρ)/2 = E[B²]/(2E[B]·(1 − ρ)), Pollaczek and Khinchine's.

    ``stiff``: ρ as the variance sees it, at least ``rho``; larger where passes are so full that batches can't grow.
    """
    damped = (1 - rho * rho) / (1 - stiff * stiff)
    never = np.exp(-rate * overhead_s)
    empty = never * np.exp(-rate * work_s)
    mean = second = variance = overhead_s
    for _ in range(ROUNDS):
        mean = (overhead_s + work_s * empty) / (1 - rho)
        second = (
            overhead_s**2 + 2 * overhead_s * (mean - overhead_s) + work_second * (rate * mean + empty)
        ) / (1 - rho**2)
        variance = np.maximum(second - mean**2, 1e-9 * mean**2) * damped
        empty = (empty + never * _no_arrival(rate, mean - overhead_s, variance)) / 2
    started = rate * mean / empty
    wait, wait_variance = _gated_wait(rate, mean, variance, rho, work_second)
    return Passes(mean, empty, mean + variance / mean, wait, wait_variance, started / (1 + started))


def _no_arrival(rate: Floats, mean_s: Floats, variance: Floats) -> Floats:
    """E[e^(−λS)] of a gamma distribution: (1 + λθ)^(−k) with θ = Var/E and k = E/θ."""
    theta = variance / np.maximum(mean_s, 1e-12)
    none: Floats = np.exp(-mean_s / np.maximum(theta, 1e-12) * np.log1p(rate * theta))
    return none


def _gated_wait(
    rate: Floats, mean_s: Floats, variance: Floats, rho: Floats, work_second: Floats
) -> tuple[Floats, Floats]:
    """Mean and variance of the rest of a length-biased pass, and of the work that arrives in all of it.

    The length-biased moments are those of a gamma distribution: E[S]·(1 + cv²) and E[S]²·(1 + cv²)(1 + 2cv²).
    """
    spread = variance / mean_s**2
    biased, biased_second = mean_s * (1 + spread), mean_s**2 * (1 + spread) * (1 + 2 * spread)
    wait = (0.5 + rho) * biased
    second = biased_second * ((0.5 + rho) ** 2 + 1 / 12) + rate * work_second * biased
    return wait, np.maximum(second - wait * wait, 1e-12)


def endless_passes(
    rate: Floats, base_s: Floats, first_s: Floats, work_second: Floats, rho: Floats
) -> tuple[Passes, Passes]:
    """Passes of an aggregated engine, which go on without prompts: (all of them, those that hold a prompt).

    S' = d + h·1[N > 0] + Σ B: a pass of decodes takes d, its first prompt h more (the weights of the larger matrices),
    each prompt B. Then, as for :func:`gated_passes`, E[S] = (d + h(1 − φ))/(1 − ρ) and
    E[S²] = (d² + 2d(h(1 − φ) + ρE[S]) + h²(1 − φ) + 2hρE[S] + λE[B²]E[S])/(1 − ρ²). A share φ of the passes holds no
    prompt and takes d; what is left of the moments is that of the others. These take d + h + B at least, and
    gamma distributed more: with L = E[e^(−λS)] of them, φ = φ·e^(−λd) + (1 − φ)·L.
    """
    never = np.exp(-rate * base_s)
    work_s = rho / rate
    work_variance = np.maximum(work_second - work_s**2, 1e-6 * work_s**2)
    least_s = base_s + first_s + work_s
    least = np.exp(-rate * (base_s + first_s)) * _no_arrival(rate, work_s, work_variance)
    empty = never
    mean = second = with_s = with_variance = base_s
    for _ in range(ROUNDS):
        some = np.maximum(1 - empty, 1e-12)
        mean = (base_s + first_s * some) / (1 - rho)
        second = (
            base_s**2
            + 2 * base_s * (first_s * some + rho * mean)
            + first_s**2 * some
            + 2 * first_s * rho * mean
            + rate * work_second * mean
        ) / (1 - rho**2)
        with_s = (mean - empty * base_s) / some
        with_variance = np.maximum((second - empty * base_s**2) / some - with_s**2, 1e-4 * with_s**2)
        rest_s = np.maximum(with_s - least_s, 1e-9 * least_s)
        none = least * _no_arrival(rate, rest_s, np.maximum(with_variance - work_variance, 1e-6 * rest_s**2))
        empty = none / (1 - never + none)
    variance = np.maximum(second - mean**2, 1e-9 * mean**2)
    everything = Passes(
        mean,
        empty,
        mean + variance / mean,
        *_gated_wait(rate, mean, variance, rho, work_second),
        np.ones_like(mean),
    )
    wait, wait_variance = _gated_wait(rate, with_s, with_variance, rho, work_second)
    return everything, Passes(with_s, empty, with_s + with_variance / with_s, wait, wait_variance, 1 - empty)
