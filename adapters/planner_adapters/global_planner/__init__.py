"""Several deployments, one GPU budget: local planners ask, one global planner arbitrates and scales.

The global side is :func:`serve` around an :class:`Arbiter`, which asks :func:`planner_core.fleet.arbitrate` what each
deployment may run. The local side is :class:`GlobalPlanner`, the connector of the environment ``global-planner``. Both
need the extra ``virtual``, for HTTP.
"""

from __future__ import annotations

from planner_adapters.global_planner.arbiter import Arbiter, Managed
from planner_adapters.global_planner.client import GlobalPlanner, client_of
from planner_adapters.global_planner.endpoint import NotAllowedError, serve
from planner_adapters.global_planner.settings import GlobalSettings, Place, connected, read_global_settings

__all__ = [
    "Arbiter",
    "GlobalPlanner",
    "GlobalSettings",
    "Managed",
    "NotAllowedError",
    "Place",
    "client_of",
    "connected",
    "read_global_settings",
    "serve",
]
