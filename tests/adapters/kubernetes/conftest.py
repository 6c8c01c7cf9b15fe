"""What tests of the Kubernetes shell wait for and ask with; the API server itself is in tests/adapters/conftest.py."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("lightkube", reason="needs the extra kubernetes")

from planner_core import EngineSpec, PlannerConfig, Role


def config_of(**gpus: int) -> PlannerConfig:
    engines = {Role(role): EngineSpec(num_gpus=number) for role, number in gpus.items()}
    return PlannerConfig(engines=engines)


@pytest.fixture(scope="session")
def agg() -> PlannerConfig:
    return config_of(agg=1)


@pytest.fixture(scope="session")
def disagg() -> PlannerConfig:
    return config_of(prefill=1, decode=1)


@pytest.fixture(scope="session")
def order() -> Callable[..., Any]:
    """``order({Role.DECODE: 2}, {Role.DECODE: ("pod-1",)})``: replicas and drain list as a planner orders them."""

    def make(replicas: dict[Role, int], drain: dict[Role, tuple[str, ...]] | None = None) -> Any:
        return SimpleNamespace(replicas=replicas, drain=drain or {}, next_tick=None)

    return make
