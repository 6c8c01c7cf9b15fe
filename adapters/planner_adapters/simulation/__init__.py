"""A simulated cluster of LLM engines: continuous batching, KV memory, startup, draining, telemetry."""

from __future__ import annotations

from planner_adapters.simulation.cluster import Cluster, Observation
from planner_adapters.simulation.engine import Engine
from planner_adapters.simulation.model import EngineModel
from planner_adapters.simulation.pool import PoolSpec
from planner_adapters.simulation.presets import PRESETS
from planner_adapters.simulation.request import Request
from planner_adapters.simulation.results import RequestResults, Status
from planner_adapters.simulation.telemetry import PassRecord
from planner_adapters.simulation.timing import Curve, EngineTiming

__all__ = [
    "PRESETS",
    "Cluster",
    "Curve",
    "Engine",
    "EngineModel",
    "EngineTiming",
    "Observation",
    "PassRecord",
    "PoolSpec",
    "Request",
    "RequestResults",
    "Status",
]
