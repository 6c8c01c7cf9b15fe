"""Performance models: how long would this batch take?

The default one comes with the package; the others are loaded when they are first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from planner_core.data.later import loader
from planner_core.perf.linear import Linear, LinearState
from planner_core.perf.protocol import BatchLoad, Estimate, PerfModel, Recognisable

if TYPE_CHECKING:
    from planner_core.perf.blended import Blended, BlendedState
    from planner_core.perf.prior import Coefficients, Prior
    from planner_core.perf.profiled import Profiled
    from planner_core.perf.roofline import GPUS, Gpu, Roofline

_LATER = {
    **dict.fromkeys(("Blended", "BlendedState"), "blended"),
    **dict.fromkeys(("Coefficients", "Prior"), "prior"),
    "Profiled": "profiled",
    **dict.fromkeys(("GPUS", "Gpu", "Roofline"), "roofline"),
}
"""The modules of names that are loaded when they are asked for."""

__getattr__ = loader(__name__, _LATER)

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
    "Recognisable",
    "Roofline",
]
