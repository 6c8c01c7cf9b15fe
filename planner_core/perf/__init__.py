"""Performance models: how long would this batch take?"""

from __future__ import annotations

from planner_core.perf.blended import Blended, BlendedState
from planner_core.perf.linear import Linear, LinearState
from planner_core.perf.prior import Coefficients, Prior
from planner_core.perf.profiled import Profiled
from planner_core.perf.protocol import BatchLoad, Estimate, PerfModel
from planner_core.perf.roofline import GPUS, Gpu, Roofline

__all__ = [
    "GPUS",
    "BatchLoad",
    "Blended",
    "BlendedState",
    "Coefficients",
    "Estimate",
    "Gpu",
    "Linear",
    "LinearState",
    "PerfModel",
    "Prior",
    "Profiled",
    "Roofline",
]
