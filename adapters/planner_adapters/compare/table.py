"""The comparison in a terminal: of each policy its usual parameters and those of its front, and what the best are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from planner_adapters.compare.outcome import Outcome, better, front
from planner_adapters.compare.policies import ORACLE, PLANNER

HEADER = (
    "policy",
    "parameters",
    "SLA",
    "GPU-hours",
    "÷ oracle",
    "TTFT p95, ms",
    "ITL p95, ms",
    "turns",
    "peak",
)


def rows(outcomes: Sequence[Outcome]) -> list[tuple[str, ...]]:
    """The table of one trace: per policy the usual parameters (★) and the other points of its front."""
    by_policy: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        by_policy.setdefault(outcome.candidate.policy, []).append(outcome)
    least = oracle_gpu_hours(outcomes)
    found = []
    for of_policy in by_policy.values():
        best = front(of_policy)
        usual = [outcome for outcome in of_policy if outcome.candidate.is_default]
        found += [cells(outcome, least) for outcome in (*usual, *(o for o in best if o not in usual))]
    return found


def oracle_gpu_hours(outcomes: Sequence[Outcome]) -> float | None:
    """Of the oracle with its usual attainment, where it reached that."""
    for outcome in outcomes:
        candidate = outcome.candidate
        if candidate.policy == ORACLE and candidate.is_default and outcome.figures["reached"]:
            return outcome.gpu_hours
    return None


def cells(outcome: Outcome, oracle_gpu_hours: float | None = None) -> tuple[str, ...]:
    """One row of :data:`HEADER`."""
    candidate, figures = outcome.candidate, outcome.figures
    ratio = "–" if oracle_gpu_hours is None else f"{outcome.gpu_hours / oracle_gpu_hours:.2f}"
    return (
        candidate.policy + (" ★" if candidate.is_default else ""),
        shown(candidate.params),
        f"{outcome.attainment:.2%}",
        f"{outcome.gpu_hours:.2f}",
        ratio,
        _number(figures["ttft_ms"]["p95"]),
        _number(figures["itl_ms"]["p95"]),
        f"{figures['direction_changes']:,}",
        f"{figures['peak_replicas']:,}",
    )


def notes(outcomes: Sequence[Outcome]) -> list[str]:
    """What has to be known of the figures of one trace."""
    found = []
    causal = [outcome for outcome in outcomes if outcome.candidate.policy not in (PLANNER, ORACLE)]
    for outcome in outcomes:
        candidate = outcome.candidate
        if candidate.policy == PLANNER and candidate.is_default and causal:
            beaten_by = ", ".join(
                f"{o.candidate.policy} ({shown(o.candidate.params)})" for o in front(better(causal, outcome))
            )
            found.append(f"both more attainment and fewer GPU-hours than planner ★: {beaten_by or 'nobody'}")
        if candidate.policy != ORACLE or not candidate.is_default:
            continue
        share, least = candidate.params["attainment"], outcome.figures["lower_bound_gpu_hours"]
        if not outcome.figures["reached"]:
            found.append(
                f"the oracle found no plan with {share:.4g} of the requests within the SLA; its best is shown"
            )
        if least is None:
            found.append(
                f"no policy can keep {share:.4g} of the requests within the SLA from the fleet at the start"
            )
        else:
            found.append(
                f"oracle: {outcome.gpu_hours:.2f} GPU-hours for {share:.4g}; no policy can stay below {least:.2f}"
            )
    return found


def shown(params: Mapping[str, Any]) -> str:
    """Parameters in short."""
    return ", ".join(f"{key} {'unset' if value is None else value}" for key, value in params.items())


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"
