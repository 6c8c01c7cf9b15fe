from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from planner_adapters.prometheus import MetricsOut


@pytest.fixture
def full_metrics(known_run: Callable[..., Any]) -> MetricsOut:
    """After ticks in which everything was known, over two intervals of the slow loop."""
    ticks = list(known_run(80))
    metrics = MetricsOut()
    for inputs, decision in ticks:
        metrics.update(inputs, decision)
    return metrics
