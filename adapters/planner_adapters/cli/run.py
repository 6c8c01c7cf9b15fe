"""Run the planner: observe, decide, scale, until SIGTERM.

What is scaled and measured comes from the configuration (environment, backend, prometheus_endpoint). SIGHUP or a change
of the file loads it anew; SIGTERM ends after the tick in hand. With --state the planner goes on where it ended.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

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
from planner_adapters.runner.logs import LogfmtFormatter, log
from planner_adapters.runner.wiring import connected
from planner_adapters.warmup import warmup_traffic
from planner_core import Decision, PlannerConfig, TickInput

HELP = "run the planner against a deployment"
FAILED = 1
LOG_BYTES, LOG_FILES = 10_000_000, 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``planner run``."""
    add_settings_arguments(parser)
    add_journal_argument(parser)
    add = parser.add_argument
    add("--state", metavar="FILE", type=Path, help="memory: read at the start, written at every tick")
    add("--advisory", action="store_true", help="decide and report, change nothing")
    add("--once", action="store_true", help="one tick now, and the decision on stdout")
    add(
        "--health",
        type=address,
        default=("127.0.0.1", 8081),
        metavar="[HOST:]PORT",
        help="of /healthz and /readyz, or off (default: 127.0.0.1:8081)",
    )
    add(
        "--metrics-host",
        default="127.0.0.1",
        metavar="HOST",
        help="where planner_prometheus_port is (default: 127.0.0.1)",
    )
    add(
        "--dashboard-host",
        default="127.0.0.1",
        metavar="HOST",
        help="where live_dashboard_port is (default: 127.0.0.1)",
    )


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


def log_to(folder: str | None) -> None:
    """Lines on stderr, and in a folder if one is named. A log that can't be written stops nothing."""
    logging.raiseExceptions = False
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    if folder is not None:
        Path(folder).mkdir(parents=True, exist_ok=True)
        path = Path(folder) / "planner.log"
        handlers.append(
            RotatingFileHandler(path, maxBytes=LOG_BYTES, backupCount=LOG_FILES, encoding="utf-8")
        )
    for handler in handlers:
        handler.setFormatter(LogfmtFormatter())
    logging.basicConfig(level=logging.WARNING, handlers=handlers, force=True)
    log.setLevel(logging.INFO)


def address(text: str) -> tuple[str, int] | None:
    """``PORT``, ``HOST:PORT`` or ``off`` of a command line."""
    if text == "off":
        return None
    host, _, port = text.rpartition(":")
    if not port.isdecimal() or int(port) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no address: write a port, HOST:PORT, or off")
    return host.strip("[]") or "127.0.0.1", int(port)
