"""Performance models: how long would this batch take?"""

from __future__ import annotations

from planner_core.perf.linear import Linear, LinearState
from planner_core.perf.protocol import BatchLoad, Estimate, PerfModel

__all__ = ["BatchLoad", "Estimate", "Linear", "LinearState", "PerfModel"]
