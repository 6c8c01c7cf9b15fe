"""Print a Grafana dashboard over the planner's own metrics, as JSON to import or to provision."""

from __future__ import annotations

import argparse

HELP = "print a Grafana dashboard over the planner's metrics"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``planner grafana``."""
    parser.add_argument(
        "--config-map",
        action="store_true",
        help="print a Kubernetes ConfigMap that Grafana's sidecar picks up, in place of JSON",
    )


def run(arguments: argparse.Namespace) -> int:
    """Prints; :class:`~planner_core.MissingExtraError` names the pip command where the extra is absent."""
    from planner_adapters.grafana import config_map, dashboard_json  # its extra is for this command alone

    print(config_map() if arguments.config_map else dashboard_json(), end="")  # noqa: T201
    return 0
