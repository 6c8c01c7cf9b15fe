"""A working day to try things on, drawn from the public statistics of real services."""

from __future__ import annotations

import math

import numpy as np

from planner_adapters.simulation.workload import Floats, Ints, Workload

HOURLY = np.array(
    [
        *(0.69, 0.66, 0.63, 0.51, 0.41, 0.34, 0.29, 0.24, 0.23, 0.23, 0.25, 0.37),
        *(0.69, 1.19, 1.67, 1.82, 1.74, 1.98, 2.22, 2.26, 2.12, 1.54, 1.12, 0.85),
    ]
)
"""Rate by hour of the day (UTC) over the day's mean: Monday to Thursday of Azure's 2024 code trace (16.8
million requests; Stojkovic et al., DynamoLLM, HPCA 2025; CC-BY-4.0). By the minute its peak is 2.6 and its
trough 0.15 of the mean."""

CONVERSATION_SHARE = 0.7
"""The other requests are code completions."""

LENGTHS = {
    "conversation": ((1020, 4083, 14_050), (129, 451, 1000)),
    "code": ((1469, 7303, 7437), (13, 90, 1899)),
}
"""(median, 95th percentile, maximum) of input and of output tokens, of Azure's 2023 traces: 19 366 requests
of a conversation service and 8 819 of a code service (Patel et al., Splitwise, ISCA 2024; CC-BY-4.0)."""

NOISE_STD = 0.15
NOISE_CORRELATION = 0.7
"""Logarithm of the rate from minute to minute, an AR(1). The conversation service's counts per minute vary
by 0.24 of their mean with an autocorrelation of 0.72, some of it drift over the hour, which HOURLY stands
for."""

BURSTS = 4
BURST_S = 120.0
BURST_FACTOR = 1.5
"""Somebody starts a batch: two minutes of half as much again, at busy hours. The highest minute is then three
to four times the mean; in the code services it is 2.7 (2024) and 4.2 (2023) times."""

STEP_S = 10.0


def working_day(*, seed: int = 0, hours: float = 3.0, mean_rps: float = 16.0) -> Workload:
    """A day from midnight to midnight, compressed into ``hours``; about ``mean_rps × 3600 × hours`` requests.

    Compressed eight times, its ramps are eight times as steep as a real day's: the harder test, and short
    enough to replay while one waits. Equal arguments give equal days.
    """
    rng = np.random.default_rng(seed)
    steps = math.ceil(hours * 3600 / STEP_S)
    starts_s = np.arange(steps, dtype=np.float64) * STEP_S
    shape = _shape(starts_s, hours, rng)
    counts = rng.poisson(mean_rps * STEP_S * shape / shape.mean())
    arrival_s = np.sort(np.repeat(starts_s, counts) + rng.uniform(0, STEP_S, counts.sum()))
    is_conversation = rng.random(len(arrival_s)) < CONVERSATION_SHARE
    columns = []
    for which in range(2):
        kinds = [_lengths(LENGTHS[kind][which], len(arrival_s), rng) for kind in ("conversation", "code")]
        columns.append(np.where(is_conversation, *kinds))
    return Workload(
        name="working day", arrival_s=arrival_s, input_tokens=columns[0], output_tokens=columns[1]
    )


def _shape(starts_s: Floats, hours: float, rng: np.random.Generator) -> Floats:
    hour = starts_s / 3600 * 24 / hours
    shape: Floats = np.interp(hour, np.arange(25) + 0.5, [*HOURLY, HOURLY[0]], period=24.0)
    minute = (starts_s // 60).astype(np.int64)
    noise = np.zeros(int(minute[-1]) + 1)
    kicks = rng.normal(0, NOISE_STD * math.sqrt(1 - NOISE_CORRELATION**2), len(noise))
    for i in range(1, len(noise)):
        noise[i] = NOISE_CORRELATION * noise[i - 1] + kicks[i]
    shape *= np.exp(noise[minute])
    for start_s in rng.uniform(0.55, 0.9, BURSTS) * hours * 3600:
        shape[(starts_s >= start_s) & (starts_s < start_s + BURST_S)] *= BURST_FACTOR
    return shape


def _lengths(figures: tuple[int, int, int], number: int, rng: np.random.Generator) -> Ints:
    """Log-normal with this median and 95th percentile, cut at the maximum."""
    median, p95, most = figures
    sigma = math.log(p95 / median) / 1.6449
    drawn = np.rint(median * np.exp(sigma * rng.standard_normal(number)))
    lengths: Ints = np.clip(drawn, 1, most).astype(np.int64)
    return lengths
