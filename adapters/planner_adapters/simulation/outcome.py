"""What a replay came to: how many requests kept the SLA, what that cost, and how restless the fleet was."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
import numpy as np

from planner_adapters.simulation.results import Floats, Ints, RequestResults, Status
from planner_core import Role, SlaTargets

PERCENTILES = (50, 95, 99)


@attrs.frozen(kw_only=True, eq=False)
class Timeline:
    """The fleet at each tick, as it was before the decision: columns of T rows."""

    at_s: Floats
    ready: Mapping[Role, Ints]
    starting: Mapping[Role, Ints]
    draining: Mapping[Role, Ints]
    wanted: Mapping[Role, Ints]
    """Replicas that the policy asked for, by this tick or an earlier one."""
    initial: Mapping[Role, int]
    """What ran at the start."""

    def running(self, role: Role) -> Ints:
        """Replicas that occupy GPUs: ready, starting and draining ones."""
        return self.ready[role] + self.starting[role] + self.draining[role]


@attrs.frozen(kw_only=True, eq=False)
class ReplayResult:
    """Every request's fate and every tick's fleet, and the figures that sum them up.

    A request meets the SLA if it finished with TTFT ≤ target and mean ITL ≤ target; one output token has no
    ITL, and meets it. Latencies are in ms over the requests that have them, ``None`` where none has.
    """

    name: str
    sla: SlaTargets
    requests: RequestResults
    timeline: Timeline
    end_s: float
    """Simulated time at which the last request was through, or was given up."""
    gpu_hours: float
    """Starting and draining replicas count."""
    wall_s: float
    planner_s: float
    """Of ``wall_s``, the time in the policy."""

    @property
    def completed(self) -> int:
        """Requests that finished."""
        return self._count(Status.COMPLETED)

    @property
    def rejected(self) -> int:
        """Requests that no engine could hold."""
        return self._count(Status.REJECTED)

    @property
    def unfinished(self) -> int:
        """Requests on their way when the replay was ended."""
        return self._count(Status.UNFINISHED)

    @property
    def ttft_attainment(self) -> float:
        """Share of all requests that finished, and had their first token in time."""
        return float(np.mean(self.requests.met_ttft(self.sla.ttft_ms)))

    @property
    def itl_attainment(self) -> float:
        """Share of all requests that finished, and had their tokens in time."""
        return float(np.mean(self.requests.met_itl(self.sla.itl_ms)))

    @property
    def sla_attainment(self) -> float:
        """Share of all requests that meet both targets."""
        met = self.requests.met_ttft(self.sla.ttft_ms) & self.requests.met_itl(self.sla.itl_ms)
        return float(np.mean(met))

    @property
    def ttft_ms(self) -> dict[str, float | None]:
        """p50, p95, p99."""
        return _percentiles(self.requests.ttft_ms)

    @property
    def itl_ms(self) -> dict[str, float | None]:
        """p50, p95, p99 over requests of their mean ITL."""
        return _percentiles(self.requests.itl_ms)

    @property
    def scale_ups(self) -> int:
        """Decisions that asked for more replicas of a role."""
        return sum(int(np.sum(moves > 0)) for moves in self._moves())

    @property
    def scale_downs(self) -> int:
        """Decisions that asked for fewer replicas of a role."""
        return sum(int(np.sum(moves < 0)) for moves in self._moves())

    @property
    def direction_changes(self) -> int:
        """Decisions that moved a role the other way than the role's last move."""
        signs = (np.sign(moves[moves != 0]) for moves in self._moves())
        return sum(int(np.sum(sign[1:] != sign[:-1])) for sign in signs)

    @property
    def peak_replicas(self) -> int:
        """Most replicas at a time, over all roles; starting and draining ones count."""
        total = sum(self.timeline.running(role) for role in self.timeline.initial)
        return int(np.max(total, initial=sum(self.timeline.initial.values())))

    @property
    def peak_replicas_by_role(self) -> dict[Role, int]:
        """The same for each role."""
        return {
            role: int(np.max(self.timeline.running(role), initial=first))
            for role, first in self.timeline.initial.items()
        }

    def summary(self) -> dict[str, Any]:
        """All figures as JSON data."""
        return {
            "requests": len(self.requests.status),
            "completed": self.completed,
            "ttft_attainment": self.ttft_attainment,
            "itl_attainment": self.itl_attainment,
            "sla_attainment": self.sla_attainment,
            "ttft_ms": self.ttft_ms,
            "itl_ms": self.itl_ms,
            "gpu_hours": self.gpu_hours,
            "scale_ups": self.scale_ups,
            "scale_downs": self.scale_downs,
            "direction_changes": self.direction_changes,
            "peak_replicas": self.peak_replicas,
            "wall_s": self.wall_s,
            "planner_s": self.planner_s,
            "rejected": self.rejected,
            "unfinished": self.unfinished,
            "peak_replicas_by_role": {str(role): peak for role, peak in self.peak_replicas_by_role.items()},
            "simulated_s": self.end_s,
            "ticks": len(self.timeline.at_s),
        }

    def _count(self, status: Status) -> int:
        return int(np.sum(self.requests.status == status))

    def _moves(self) -> list[Ints]:
        """Per role, the change of each decision."""
        return [
            np.diff(self.timeline.wanted[role], prepend=first)
            for role, first in self.timeline.initial.items()
        ]


def _percentiles(values: Floats) -> dict[str, float | None]:
    known = values[np.isfinite(values)]
    figures = np.percentile(known, PERCENTILES).tolist() if len(known) else [None] * len(PERCENTILES)
    return {f"p{p}": figure for p, figure in zip(PERCENTILES, figures, strict=True)}
