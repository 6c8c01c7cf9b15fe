"""The two ends of a tick: what goes in, and the decision that comes out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import attrs

from planner_core.config import PlannerConfig
from planner_core.data.checks import measured_number
from planner_core.data.fpm import EMPTY_BATCH, FpmBatch
from planner_core.data.observations import ObservedLatencies, TrafficObservation, WorkerCounts
from planner_core.data.reasons import Explanation, LoadReason, ThroughputReason
from planner_core.data.roles import Role
from planner_core.data.state import PlannerState

Need: TypeAlias = Literal["workers", "fpm", "traffic"]


def _batches(fpm: Mapping[Role, Any]) -> dict[Role, FpmBatch]:
    return {Role(role): FpmBatch.of(records) for role, records in fpm.items() if records is not None}


def _counts(workers: Mapping[Role, WorkerCounts | None]) -> dict[Role, WorkerCounts]:
    return {Role(role): counts for role, counts in workers.items() if counts is not None}


@attrs.frozen(kw_only=True)
class TrafficForecast:
    """Demand over the horizon: the planner's own forecast, or one that the user brings."""

    rate_rps: float = attrs.field(validator=measured_number(least=0))
    """Requests per second: mean at the highest step of the horizon."""
    rate_std_rps: float = attrs.field(default=0.0, validator=measured_number(least=0))
    isl: float | None = attrs.field(default=None, validator=measured_number(above=0, optional=True))
    osl: float | None = attrs.field(default=None, validator=measured_number(above=0, optional=True))


@attrs.frozen(kw_only=True)
class NextTick:
    """When to come back, which loops will run then, and what to measure until then."""

    at_s: float
    load: bool
    throughput: bool
    needs: frozenset[Need]
    """``workers``, ``fpm``, ``traffic``: what the tick can use. What can't be had may be left out."""
    traffic_window_s: float
    """Length of the window that ``traffic`` should cover: since it was last asked for."""


@attrs.frozen(kw_only=True)
class TickInput:
    """Everything that a tick looks at. What wasn't measured is left out."""

    config: PlannerConfig
    state: PlannerState
    now_s: float = attrs.field(validator=measured_number())
    """The time, in seconds of any clock that goes on; only differences count."""
    workers: dict[Role, WorkerCounts] = attrs.field(factory=dict, converter=_counts)
    traffic: TrafficObservation | None = None
    fpm: dict[Role, FpmBatch] = attrs.field(factory=dict, converter=_batches)
    """Passes since the last tick, oldest first; records and mappings are turned into columns."""
    forecast: TrafficForecast | None = None
    """A forecast of the user's own, in place of the predictor's."""
    observed: ObservedLatencies | None = None

    def batch(self, role: Role) -> FpmBatch:
        """The passes of a role, none if there are none."""
        return self.fpm.get(role, EMPTY_BATCH)


@attrs.frozen(kw_only=True)
class RoleDiagnostics:
    """What was computed for one role; ``None``: not known."""

    capacity_rps: float | None = None
    """Requests per second that each of the present replicas carries within the SLA."""
    floor: int | None = None
    kv_utilisation: float | None = None
    """Running and queued decode KV tokens over what the known engines hold."""
    queued_prefill_tokens: float | None = None
    """Over all engines."""
    startup_s: float | None = None
    """How long a start is taken to last."""


@attrs.frozen(kw_only=True)
class Diagnostics:
    """What the tick computed on its way, for metrics, reports and curiosity; ``None``: not known."""

    load_reason: LoadReason
    """The reason of the role that changes most, or of the first one."""
    throughput_reason: ThroughputReason
    estimated_ttft_ms: float | None = None
    """Highest over engines."""
    estimated_itl_ms: float | None = None
    predicted: TrafficForecast | None = None
    roles: dict[Role, RoleDiagnostics] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class Decision:
    """How many replicas each role should have, and why."""

    replicas: dict[Role, int]
    """Absolute targets, within the limits, for every role that the planner has an opinion on."""
    drain: dict[Role, tuple[str, ...]]
    """Per shrinking role, worker ids to remove first: least work in flight first."""
    explanations: dict[Role, Explanation]
    diagnostics: Diagnostics
    state: PlannerState
    next_tick: NextTick

    def _repr_html_(self) -> str:
        """A table for notebooks, a row per role; whatever a worker calls itself stays text."""
        from html import escape

        rows = [("role", "replicas", "reason", "bound by", "in words")]
        for role, why in self.explanations.items():
            current = "?" if why.current is None else str(why.current)
            count = self.replicas.get(role)  # a role without a target is left alone
            words = [part for part in why.sentence().split("; ")[1:] if not part.startswith("bound by ")]
            words += [f"drain {', '.join(self.drain[role])}"] if self.drain.get(role) else []
            rows.append(
                (
                    str(role),
                    f"{current} → {'left alone' if count is None else count}",
                    str(why.reason),
                    str(why.constraint or ""),
                    "; ".join(words),
                )
            )
        html = ""
        for tag, row in zip(("th", *("td" for _ in self.explanations)), rows, strict=True):
            cells = (f'<{tag} style="text-align:left">{escape(cell)}</{tag}>' for cell in row)
            html += f"<tr>{''.join(cells)}</tr>"
        return f"<table>{html}</table>"
