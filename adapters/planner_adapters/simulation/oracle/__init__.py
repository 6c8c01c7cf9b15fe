"""The oracle: what could be had by knowing the trace, and what nobody can stay below."""

from __future__ import annotations

from planner_adapters.simulation.oracle.bound import lower_bound
from planner_adapters.simulation.oracle.plan import Plan, PlanPolicy
from planner_adapters.simulation.oracle.search import Oracle, find_oracle
from planner_adapters.simulation.oracle.windows import Survey, num_windows, survey

__all__ = ["Oracle", "Plan", "PlanPolicy", "Survey", "find_oracle", "lower_bound", "num_windows", "survey"]
