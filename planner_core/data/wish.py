"""What a loop asks for one role, before it is settled and fitted."""

from __future__ import annotations

import attrs

from planner_core.data.reasons import Counterfactual, LoadReason


@attrs.frozen(kw_only=True)
class Wish:
    """Replicas that the load asks for, and why. ``need`` ``None``: no opinion."""

    need: int | None
    reason: LoadReason
    numbers: dict[str, float] = attrs.field(factory=dict)
    counterfactuals: tuple[Counterfactual, ...] = ()
    notes: tuple[str, ...] = ()
