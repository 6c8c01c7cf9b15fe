"""What a run looked like: one HTML file that opens offline, from a journal or from ticks as they come."""

from __future__ import annotations

from planner_adapters.figures import NAMES
from planner_adapters.report.builder import SeriesBuilder, series_of
from planner_adapters.report.page import html_of, write_report
from planner_adapters.report.periodic import PeriodicReport
from planner_adapters.report.reading import skim_journal
from planner_adapters.report.series import Curve, Feed, Moment, Series

__all__ = [
    "NAMES",
    "Curve",
    "Feed",
    "Moment",
    "PeriodicReport",
    "Series",
    "SeriesBuilder",
    "html_of",
    "series_of",
    "skim_journal",
    "write_report",
]
