"""Why was that decided? One recorded tick in words and numbers, and what would have changed it.

A tick is a pure function, so a journal answers exactly: the tick is made again with something else in its place.
"""

from __future__ import annotations

from planner_adapters.explain.levers import Turned, turning_points
from planner_adapters.explain.story import Story, story_of
from planner_adapters.explain.what_if import with_config

__all__ = ["Story", "Turned", "story_of", "turning_points", "with_config"]
