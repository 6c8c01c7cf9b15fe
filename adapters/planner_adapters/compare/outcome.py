"""What a run came to, and which runs of many are worth having."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import numpy as np

from planner_adapters.compare.policies import Candidate
from planner_adapters.simulation.outcome import ReplayResult, Timeline
from planner_adapters.simulation.results import Floats

TIMES = ("wall_s", "planner_s")
"""Figures that differ between equal runs."""


@attrs.frozen(kw_only=True, eq=False)
class Outcome:
    """One policy on one trace."""

    trace: str
    candidate: Candidate
    figures: dict[str, Any]
    """As :meth:`~planner_adapters.simulation.outcome.ReplayResult.summary`, without what the machine took."""
    steps: tuple[Floats, Floats]
    """Times (s), and the replicas of all roles that occupy GPUs from each on."""

    @property
    def attainment(self) -> float:
        """Share of the requests that kept the SLA."""
        return float(self.figures["sla_attainment"])

    @property
    def gpu_hours(self) -> float:
        """What it cost."""
        return float(self.figures["gpu_hours"])

    def row(self) -> dict[str, Any]:
        """JSON data: trace, policy, params, then the figures that matter most, then the others."""
        first = ("sla_attainment", "gpu_hours", "direction_changes")
        return {
            "trace": self.trace,
            "policy": self.candidate.policy,
            "params": self.candidate.params,
            "is_default": self.candidate.is_default,
            **{key: self.figures[key] for key in first},
            **{key: value for key, value in self.figures.items() if key not in first},
        }


def outcome_of(trace: str, candidate: Candidate, result: ReplayResult, **more: Any) -> Outcome:
    """From a replay; ``more`` are further figures."""
    figures = {key: value for key, value in result.summary().items() if key not in TIMES}
    return Outcome(
        trace=trace, candidate=candidate, figures=figures | more, steps=_steps(result.timeline, result.end_s)
    )


def front(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Those that no other one beats in both attainment and GPU-hours, by rising GPU-hours."""
    best: list[Outcome] = []
    for outcome in sorted(outcomes, key=lambda o: (o.gpu_hours, -o.attainment)):
        if not best or outcome.attainment > best[-1].attainment:
            best.append(outcome)
    return best


def better(outcomes: Sequence[Outcome], than: Outcome) -> list[Outcome]:
    """Those with both more attainment and fewer GPU-hours."""
    return [o for o in outcomes if o.attainment > than.attainment and o.gpu_hours < than.gpu_hours]


def _steps(timeline: Timeline, end_s: float) -> tuple[Floats, Floats]:
    running = np.array(sum(timeline.running(role) for role in timeline.initial), dtype=np.float64, ndmin=1)
    first = float(sum(timeline.initial.values()))
    times = np.concatenate([[0.0], timeline.at_s, [end_s]])
    values = np.concatenate([[first], running, running[-1:] if len(running) else [first]])
    kept = np.flatnonzero(np.diff(values, prepend=np.nan) != 0)
    kept = np.unique(np.append(kept, len(values) - 1))
    return times[kept], values[kept]
