"""A Grafana dashboard over the planner's own metrics: what it shows is data, and one function writes the JSON.

Building it needs the extra ``grafana``; looking at it Grafana 11.6 or newer and a Prometheus that scrapes the planner.
"""

from __future__ import annotations

from planner_adapters.grafana.build import config_map, dashboard_json
from planner_adapters.grafana.panels import ROWS, Panel, Query, Row, queries

__all__ = ["ROWS", "Panel", "Query", "Row", "config_map", "dashboard_json", "queries"]
