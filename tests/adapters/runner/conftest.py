from __future__ import annotations

import gc
import os
from collections.abc import Iterator

import pytest

from planner_adapters.runner.testing import PlayedClock, PlayedFleet
from planner_core import PlannerConfig

KEYS = {
    "mode": "agg",
    "max_gpu_budget": 16,
    "engines": {"agg": {"max_kv_tokens": 100_000}},
}


@pytest.fixture
def config() -> PlannerConfig:
    """An engine holds 100 000 tokens, and 16 may run."""
    return PlannerConfig.from_mapping(KEYS)


@pytest.fixture
def clock() -> PlayedClock:
    return PlayedClock(1000.0)


@pytest.fixture
def busy(clock: PlayedClock) -> PlayedFleet:
    """Four engines with work for four."""
    return PlayedFleet(clock, lambda now_s: 350_000.0, replicas=4)


@pytest.fixture(autouse=True)
def _nothing_stays_open() -> Iterator[None]:
    """Files and sockets of a test are closed when it ends."""
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else None
    yield
    gc.collect()
    if before is not None:
        assert len(os.listdir("/proc/self/fd")) <= before
