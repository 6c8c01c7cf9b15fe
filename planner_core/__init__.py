"""How many LLM-inference engines should run: one pure function, ``tick(TickInput) -> Decision``."""

from __future__ import annotations

from planner_core._tick import first_tick, initial_state, next_tick, tick
from planner_core.config import (
    EngineSpec,
    Limits,
    LoadScaling,
    PlannerConfig,
    QueueThresholds,
    ShellSettings,
    SlaTargets,
    ThroughputScaling,
)
from planner_core.data.errors import ConfigError, MissingExtraError, ObservationError, PlannerError
from planner_core.data.fpm import ForwardPassMetrics, FpmBatch
from planner_core.data.observations import ObservedLatencies, TrafficObservation, WorkerCounts
from planner_core.data.reasons import Constraint, Counterfactual, Explanation, LoadReason, ThroughputReason
from planner_core.data.roles import Role
from planner_core.data.state import PlannerState
from planner_core.types import Decision, Diagnostics, NextTick, RoleDiagnostics, TickInput, TrafficForecast

__all__ = [
    "ConfigError",
    "Constraint",
    "Counterfactual",
    "Decision",
    "Diagnostics",
    "EngineSpec",
    "Explanation",
    "ForwardPassMetrics",
    "FpmBatch",
    "Limits",
    "LoadReason",
    "LoadScaling",
    "MissingExtraError",
    "NextTick",
    "ObservationError",
    "ObservedLatencies",
    "PlannerConfig",
    "PlannerError",
    "PlannerState",
    "QueueThresholds",
    "Role",
    "RoleDiagnostics",
    "ShellSettings",
    "SlaTargets",
    "ThroughputReason",
    "ThroughputScaling",
    "TickInput",
    "TrafficForecast",
    "TrafficObservation",
    "WorkerCounts",
    "first_tick",
    "initial_state",
    "next_tick",
    "tick",
]
