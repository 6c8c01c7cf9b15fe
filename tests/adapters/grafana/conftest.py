from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import attrs
import pytest
from prometheus_client.parser import text_string_to_metric_families

from planner_adapters.prometheus import MetricsOut

T0 = 1_700_000_000
TICK_S = 15
NUM_TICKS = 80


@attrs.frozen
class Recording:
    """What a Prometheus would have stored of a planner to which everything was known, and when that ended."""

    text: str
    end_s: float


@pytest.fixture(scope="session")
def recording(known_run: Callable[..., Any]) -> Recording:
    # a minimum that binds, so that there is a constraint to be seen
    ticks = list(known_run(NUM_TICKS, tick_s=float(TICK_S), prefill_min_endpoint=3))
    metrics, lines = MetricsOut(), list[str]()
    for inputs, decision in ticks:
        metrics.update(inputs, decision)
        lines += _samples(metrics, T0 + inputs.now_s)
    by_series = sorted(lines, key=lambda line: line.partition("{")[0])
    return Recording("".join(by_series), T0 + NUM_TICKS * TICK_S)


def _samples(metrics: MetricsOut, at_s: float) -> Iterator[str]:
    for family in text_string_to_metric_families(metrics.text()):
        for sample in family.samples:
            labels = {**sample.labels, "job": "planner", "instance": "10.0.0.1:9085"}
            text = ",".join(f'{key}="{value}"' for key, value in labels.items())
            yield f"{sample.name}{{{text}}} {sample.value} {at_s}\n"
