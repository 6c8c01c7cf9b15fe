from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from planner_adapters.prometheus import MetricsOut
from planner_core import Decision, PlannerConfig, PlannerState, TickInput, initial_state, tick

Ticked = Callable[..., tuple[TickInput, Decision]]


@pytest.fixture
def full_metrics(known_run: Callable[..., Any]) -> MetricsOut:
    """After ticks in which everything was known, over two intervals of the slow loop."""
    ticks = list(known_run(80))
    metrics = MetricsOut()
    for inputs, decision in ticks:
        metrics.update(inputs, decision)
    return metrics


@pytest.fixture(scope="session")
def ticked() -> Ticked:
    """``ticked(config, 5.0, workers={…})``: the two ends of a tick, the first one where no state is given."""

    def make(
        config: PlannerConfig, now_s: float = 1.0, state: PlannerState | None = None, **measured: Any
    ) -> tuple[TickInput, Decision]:
        state = initial_state(config, 0.0) if state is None else state
        inputs = TickInput(config=config, state=state, now_s=now_s, **measured)
        return inputs, tick(inputs)

    return make
