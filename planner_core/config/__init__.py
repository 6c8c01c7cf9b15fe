"""What the planner is told: engines, target, SLA, loops and limits. Wrong ones fail when they are built."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
from planner_core.data.later import loader

if TYPE_CHECKING:
    from planner_core.config.keys import ENGINE_KEYS, KEYS, Key

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

# The table of keys is loaded when text is to be read; a configuration built from objects does without.
__getattr__ = loader(__name__, dict.fromkeys(("ENGINE_KEYS", "KEYS", "Key"), "keys"))
