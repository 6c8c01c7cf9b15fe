"""What one engine of each role carries within an SLA."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from planner_adapters.profile.fits import FittedRole
from planner_core import EngineSpec, SlaTargets
from planner_core.maths.sla import Capacity, Curve, RequestShape, capacity, curve


@attrs.frozen(kw_only=True, eq=False)
class RoleCapacity:
    """The capacity of an engine, and the curve that it was read off."""

    role: str
    found: Capacity
    curve: Curve


def capacities(
    fitted: Sequence[FittedRole], spec: EngineSpec, shape: RequestShape, sla: SlaTargets
) -> list[RoleCapacity]:
    """The capacity of each role of which enough is known."""
    found = []
    for each in fitted:
        if each.iteration is not None:
            of_role = curve(each.role, each.iteration, spec, shape, sla.quantile)
            found.append(
                RoleCapacity(
                    role=str(each.role), found=capacity(of_role, sla.ttft_ms, sla.itl_ms), curve=of_role
                )
            )
    return found
