"""Forecast → floor per role: the replicas that the predicted traffic needs, given what one carries within the SLA."""

from __future__ import annotations

import attrs

from planner_core.data.reasons import ThroughputReason
from planner_core.maths.fleet import Sizing
from planner_core.maths.queueing import whole

MOST_HEADROOM = 3.0
"""Times the mean that is expected."""


@attrs.frozen(kw_only=True)
class Floor:
    """A role's lower bound. ``None``: it stays what it was."""

    replicas: int | None
    reason: ThroughputReason


def planned_rps(mean_rps: float, std_rps: float, z: float, backlog_rps: float) -> float:
    """The rate to plan for: a quantile of the forecast (``z`` of the normal distribution) and the backlog's share.

    The headroom is bounded by the mean: a spread that outlives the traffic it was learned from keeps nothing up, and
    the next burst after a lull is provided for.
    """
    return mean_rps + min(z * std_rps, MOST_HEADROOM * mean_rps) + backlog_rps


def floor_for(
    rate_rps: float,
    sizings: tuple[Sizing, Sizing] | None,
    *,
    model_ready: bool = True,
    per_replica: float,
    before: int | None,
    max_step: int,
) -> Floor:
    """The replicas for ``rate_rps`` requests per second, at most ``max_step`` away from ``before``.

    ``sizings`` are the engines that they need, and those that leave room: the floor sinks only to the latter, else it
    would rise again with the next measurement. Without them there is no floor to set, but for a rate of 0.
    """
    if rate_rps == 0:
        needed, reason = 0, ThroughputReason.SET_LOWER_BOUND
    elif sizings is None:
        reason = ThroughputReason.PREDICT_FAILED if model_ready else ThroughputReason.MODEL_NOT_READY
        return Floor(replicas=None, reason=reason)
    else:
        needed, roomy = (whole(sizing.engines / per_replica) for sizing in sizings)
        if before is not None and needed < before:
            needed = max(needed, min(roomy, before))
        missed = sizings[0].unreachable is not None
        reason = ThroughputReason.SLA_UNREACHABLE if missed else ThroughputReason.SET_LOWER_BOUND
    if before is not None:
        needed = min(max(needed, before - max_step), before + max_step)
    return Floor(replicas=needed, reason=reason)
