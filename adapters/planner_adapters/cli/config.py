"""Check a configuration file, print what it comes to, or print the JSON schema of such files."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from planner_adapters.config_file import read_settings
from planner_adapters.config_schema import config_schema
from planner_core import MissingExtraError, PlannerConfig
from planner_core.config import KEYS

HELP = "check a configuration, show what it comes to, or its JSON schema"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The actions of ``planner config``."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    check = actions.add_parser("check", help="is it valid? Every problem at once")
    effective = actions.add_parser("effective", help="all keys with what is in force under the target")
    for action in (check, effective):
        action.add_argument("file", metavar="FILE", help="YAML or JSON with the planner's keys")
    effective.add_argument("--json", action="store_true", help="JSON instead of YAML")
    actions.add_parser("schema", help="JSON schema of such files, for editors and pipelines")


def run(arguments: argparse.Namespace) -> int:
    """Prints; ``ConfigError`` with every problem of the file."""
    if arguments.action == "schema":
        print(json.dumps(config_schema(), indent=2))  # noqa: T201
        return 0
    settings = read_settings(arguments.file)
    config = settings.config()
    if arguments.action == "check":
        print(f"{arguments.file}: is valid ({config.mode}, target {config.target})")  # noqa: T201
        return 0
    unread = unread_keys(config)
    mapping = {key: value for key, value in config.effective().to_mapping().items() if key not in unread}
    given = [key.name for key in KEYS if key.name in unread and key.place in settings]
    note = f"not looked at under this target: {', '.join(given)}" if given else None
    _print_json(mapping, note) if arguments.json else _print_yaml(mapping, note)
    return 0


def _print_json(mapping: dict[str, Any], note: str | None) -> None:
    print(json.dumps(mapping, indent=2))  # noqa: T201
    if note:
        print(f"planner config: {note}", file=sys.stderr)  # noqa: T201


def _print_yaml(mapping: dict[str, Any], note: str | None) -> None:
    try:
        import yaml
    except ImportError:
        raise MissingExtraError(
            "YAML needs PyYAML: pip install 'planner-core[cli]' (or use --json)"
        ) from None
    text: str = yaml.safe_dump(mapping, sort_keys=False, allow_unicode=True)
    print((f"# {note}\n" if note else "") + text, end="")  # noqa: T201


def unread_keys(config: PlannerConfig) -> set[str]:
    """The keys whose values this target and these loops don't look at, by their canonical names."""
    sections = set()
    if config.target != "sla":
        sections.add("sla")
    if config.target != "load":
        sections.add("thresholds")
    if config.throughput_loop is None:
        sections |= {"throughput", "predictors"}
    if config.load_loop is None:
        sections.add("load")
    return {key.name for key in KEYS if "." in key.place and key.place.split(".")[0] in sections}
