"""Run the planner: observe, decide, scale, until SIGTERM.

What is scaled and measured comes from the configuration (environment, backend, prometheus_endpoint). SIGHUP or a change
of the file loads it anew; SIGTERM ends after the tick in hand. With --state the planner goes on where it ended.
"""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path
from typing import Any

from planner_adapters.cli.process import add_address_argument, log_to
from planner_adapters.cli.settings import add_journal_argument, add_settings_arguments
from planner_adapters.config_file import read_settings
from planner_adapters.prior import with_prior
from planner_adapters.runner import (
    ConfigFile,
    Live,
    Saved,
    Service,
    SteadyClock,
    remembered,
    serve,
    sole_writer,
)
from planner_adapters.runner.wiring import connected
from planner_adapters.warmup import warmup_traffic
from planner_core import Decision, PlannerConfig, TickInput

HELP = "run the planner against a deployment"
FAILED = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``planner run``."""
    add_settings_arguments(parser)
    add_journal_argument(parser)
    add = parser.add_argument
    add("--state", metavar="FILE", type=Path, help="memory: read at the start, written at every tick")
    add("--advisory", action="store_true", help="decide and report, change nothing")
    add("--once", action="store_true", help="one tick now, and the decision on stdout")
    add_address_argument(parser, "--health", 8081, "of /healthz and /readyz, or off")
    for flag, key in (
        ("--metrics-host", "planner_prometheus_port"),
        ("--dashboard-host", "live_dashboard_port"),
    ):
        add(flag, default="127.0.0.1", metavar="HOST", help=f"where {key} is (default: 127.0.0.1)")


def run(arguments: argparse.Namespace) -> int:
    """Runs until told to stop; 1 if ``--once`` could not scale."""
    flags: dict[str, Any] = dict(arguments.set) | ({"advisory": True} if arguments.advisory else {})

    def load() -> PlannerConfig:
        return with_prior(read_settings(arguments.config, flags).config())

    file = None if arguments.config is None else ConfigFile(arguments.config, load)
    config = load()
    log_to(config.shell.log_dir)
    service = Service(
        journal=arguments.journal,
        state=arguments.state,
        health=None if arguments.once else arguments.health,
        dashboard_host=None if arguments.once else arguments.dashboard_host,
        config_file=file,
        once=arguments.once,
    )
    with sole_writer(service.state, service.journal):
        before = remembered(state=service.state, journal=service.journal)
        return asyncio.run(_run(config, service, before, arguments.metrics_host))


async def _run(config: PlannerConfig, service: Service, before: Saved | None, metrics_host: str) -> int:
    async with connected(config, metrics_host=metrics_host) as parts:
        clock = SteadyClock(not_before_s=0.0 if before is None else before.state.schedule.last_tick_s)
        environment = Live(parts.connector, parts.traffic, parts.passes, clock=clock)
        watchers = (*parts.watchers, _say) if service.once else parts.watchers
        traffic = warmup_traffic(config) if before is None else ()
        health = await serve(environment, config, service, before=before, traffic=traffic, on_tick=watchers)
    return FAILED if service.once and health.problems else 0


def _say(inputs: TickInput, decision: Decision) -> None:
    for explanation in decision.explanations.values():
        sentence = explanation.sentence()
        print("".join(c if c.isprintable() else repr(c)[1:-1] for c in sentence))  # noqa: T201
