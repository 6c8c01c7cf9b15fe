"""What the planner is told: engines, target, SLA, loops and limits. Wrong ones fail when they are built."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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


def __getattr__(name: str) -> Any:
    """The table of keys is loaded when text is to be read; a configuration built from objects does without."""
    if name not in ("ENGINE_KEYS", "KEYS", "Key"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from planner_core.config import keys

    return getattr(keys, name)
