"""Reasons: what kind of thing each one says, and which of several is shown where there is room for one."""

from __future__ import annotations

from planner_core import LoadReason, ThroughputReason

KINDS = {
    "nothing": "no change",
    "floor": "the slow loop set a size",
    "wait": "waits for what was ordered, or for calm",
    "idle": "idle",
    "bound": "held up by the floor or by the survivors",
    "down": "down",
    "up": "up",
    "blind": "inputs or models missing",
    "broken": "the SLA can't be met",
}
"""The kinds and their words, least notable first; each has a colour."""

_KIND: dict[str, str] = {
    LoadReason.NO_CHANGE: "nothing",
    LoadReason.SCALING_IN_PROGRESS: "wait",
    LoadReason.STABILISING: "wait",
    LoadReason.IDLE: "idle",
    LoadReason.SCALE_DOWN_CAPPED_BY_THROUGHPUT: "bound",
    LoadReason.SCALE_DOWN_REFUSED_CONSOLIDATION: "bound",
    LoadReason.SCALE_DOWN: "down",
    LoadReason.SCALE_UP: "up",
    LoadReason.NO_FPM_DATA: "blind",
    LoadReason.WORKER_COUNT_MISMATCH: "blind",
    LoadReason.INSUFFICIENT_DATA: "blind",
    LoadReason.SLA_UNREACHABLE: "broken",
    ThroughputReason.NO_CHANGE: "nothing",
    ThroughputReason.SET_LOWER_BOUND: "floor",
    ThroughputReason.SCALE: "floor",
    ThroughputReason.NO_TRAFFIC_DATA: "blind",
    ThroughputReason.PREDICT_FAILED: "blind",
    ThroughputReason.MODEL_NOT_READY: "blind",
    ThroughputReason.SLA_UNREACHABLE: "broken",
}
SILENT = frozenset({"unset", "disabled"})
"""The reasons of a loop that didn't run."""


def kind_of(reason: str) -> str:
    """One of ``KINDS``; a reason that is new here counts as a change."""
    return "nothing" if reason in SILENT else _KIND.get(reason, "up")


def notability(reason: str) -> int:
    """The higher, the rather it is shown."""
    return list(KINDS).index(kind_of(reason))
