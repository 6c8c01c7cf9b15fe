"""Packages that a predictor stands on, imported when it is built: a tick imports nothing."""

from __future__ import annotations

import importlib
from typing import Any

from planner_core.data.errors import MissingExtraError


def guest(module: str, needed_by: str) -> Any:
    """The module; :class:`MissingExtraError` with the pip command if its package isn't installed."""
    try:
        return importlib.import_module(module)
    except ImportError:
        package = module.partition(".")[0]
        raise MissingExtraError(f"{needed_by} needs {package}: pip install {package}") from None
