"""A run while it goes on: the page of a report, kept up to date in the browser."""

from __future__ import annotations

from planner_adapters.dashboard.server import Dashboard

__all__ = ["Dashboard"]
