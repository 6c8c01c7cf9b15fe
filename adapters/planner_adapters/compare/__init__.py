"""Policies side by side on the same traffic: the planner, the baselines over their thresholds, and the oracle."""

from __future__ import annotations

from planner_adapters.compare.case import Case, case_of
from planner_adapters.compare.outcome import Outcome, front
from planner_adapters.compare.page import write_page
from planner_adapters.compare.policies import FAMILIES, Candidate, candidates
from planner_adapters.compare.sweep import compare

__all__ = [
    "FAMILIES",
    "Candidate",
    "Case",
    "Outcome",
    "candidates",
    "case_of",
    "compare",
    "front",
    "write_page",
]
