"""What else could decide: a fixed fleet, and autoscalers that people run today, each driven as the planner is."""

from __future__ import annotations

from planner_adapters.simulation.baselines.autoscaled import RoleScaler, autoscaled, fit, static
from planner_adapters.simulation.baselines.hpa import Hpa, Keda
from planner_adapters.simulation.baselines.kpa import Kpa
from planner_adapters.simulation.baselines.signals import RoleSignals, role_signals

__all__ = [
    "Hpa",
    "Keda",
    "Kpa",
    "RoleScaler",
    "RoleSignals",
    "autoscaled",
    "fit",
    "role_signals",
    "static",
]
