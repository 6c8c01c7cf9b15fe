"""The options that say what is configured, alike wherever a command plans."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from planner_adapters.config_file import read_value


def add_settings_arguments(parser: argparse.ArgumentParser) -> None:
    """``--config`` and ``--set``."""
    parser.add_argument(
        "--config",
        metavar="FILE",
        type=Path,
        help="YAML or JSON with the planner's keys; flags win over it",
    )
    parser.add_argument(
        "--set",
        type=read_setting,
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="any key of the configuration",
    )


def add_journal_argument(parser: argparse.ArgumentParser) -> None:
    """``--journal``."""
    parser.add_argument("--journal", metavar="FILE", type=Path, help="append every tick as a JSON line")


def read_setting(text: str) -> tuple[str, Any]:
    """``KEY=VALUE`` of a command line."""
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise argparse.ArgumentTypeError(f"{text!r} has no KEY=VALUE")
    return key.strip(), read_value(value)
