"""What the planner is told: engines, target, SLA, loops and limits. Wrong ones fail when they are built."""

from __future__ import annotations

from planner_core.config.keys import ENGINE_KEYS, KEYS, Key
from planner_core.config.planner import PlannerConfig, Target
from planner_core.config.sections import (
    EngineSpec,
    Limits,
    LoadScaling,
    QueueThresholds,
    ShellSettings,
    SlaTargets,
    ThroughputScaling,
)

__all__ = [
    "ENGINE_KEYS",
    "KEYS",
    "EngineSpec",
    "Key",
    "Limits",
    "LoadScaling",
    "PlannerConfig",
    "QueueThresholds",
    "ShellSettings",
    "SlaTargets",
    "Target",
    "ThroughputScaling",
]
