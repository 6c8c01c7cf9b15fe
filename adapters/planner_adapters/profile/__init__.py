"""Looking at engine performance data: how well it fits, and what one engine carries within an SLA."""

from __future__ import annotations

from planner_adapters.profile.capacity import RoleCapacity, capacities
from planner_adapters.profile.fits import Fit, FittedRole, fit_passes, fit_profile

__all__ = ["Fit", "FittedRole", "RoleCapacity", "capacities", "fit_passes", "fit_profile"]
