"""Ticks in which everything changes all the time, so that nothing can be left out of a page; for benchmarks too."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import attrs
import numpy as np

from planner_core import (
    Decision,
    Explanation,
    LoadReason,
    ObservedLatencies,
    PlannerConfig,
    Role,
    ThroughputReason,
    TickInput,
    TrafficForecast,
    TrafficObservation,
    WorkerCounts,
    initial_state,
    tick,
)

TICK_S = 5.0


def noisy_ticks(
    config: PlannerConfig, num_ticks: int, *, start_s: float = 1.8e9, notes: Sequence[str] = ()
) -> Iterator[tuple[TickInput, Decision]]:
    """A tick every 5 s, each with other figures and reasons; equal for equal arguments."""
    rng = np.random.default_rng(5)
    state = initial_state(config, start_s)
    usual = tick(TickInput(config=config, state=state, now_s=start_s + TICK_S))
    reasons = (list(LoadReason), list(ThroughputReason))
    for number in range(num_ticks):
        ready, drawn = int(rng.integers(1, 6)), rng.lognormal(size=8)
        why = {
            role: Explanation(
                role=role,
                load_reason=rng.choice(reasons[0]),
                throughput_reason=rng.choice(reasons[1]),
                current=ready,
                replicas=ready + int(rng.integers(-1, 2)),
                floor=ready,
                numbers={f"quantity_{n}_tokens": float(x) for n, x in enumerate(drawn)},
                notes=tuple(notes),
            )
            for role in config.engines
        }
        found = attrs.evolve(
            usual.diagnostics,
            estimated_ttft_ms=400 * drawn[0],
            estimated_itl_ms=40 * drawn[1],
            predicted=TrafficForecast(
                rate_rps=9 * drawn[2], rate_std_rps=drawn[3], isl=900 * drawn[4], osl=90 * drawn[5]
            ),
            roles={
                role: attrs.evolve(
                    usual.diagnostics.roles[role],
                    capacity_rps=drawn[5 + place],
                    kv_utilisation=min(drawn[6], 1.0),
                    queued_prefill_tokens=1e4 * drawn[7],
                )
                for place, role in enumerate(why)
            },
        )
        counts = WorkerCounts(ready=ready, starting_ages_s=(1.0,) * (number % 2), draining=number % 3)
        inputs = TickInput(
            config=config,
            state=state,
            now_s=start_s + TICK_S * (number + 1),
            workers=dict.fromkeys(config.engines, counts),
            traffic=TrafficObservation(
                duration_s=TICK_S, num_requests=50 * drawn[6], isl=1e3 * drawn[7], osl=90 * drawn[0]
            ),
            observed=ObservedLatencies(ttft_ms=300 * drawn[1], itl_ms=30 * drawn[2]),
        )
        replicas = {Role(role): each.replicas for role, each in why.items()}
        yield inputs, attrs.evolve(usual, replicas=replicas, explanations=why, diagnostics=found)
