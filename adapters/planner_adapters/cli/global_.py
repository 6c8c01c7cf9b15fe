"""Run the global planner: several deployments share one GPU budget.

Local planners (environment: global-planner) ask it for replicas over HTTP; it authorises, arbitrates and scales. Who
may ask stands in $PLANNER_GLOBAL_TOKENS, as chat=TOKEN,batch=TOKEN. SIGTERM ends it.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import ssl
from pathlib import Path
from typing import TYPE_CHECKING

from planner_adapters.cli.process import add_address_argument, log_to
from planner_adapters.runner.logs import log, logfmt
from planner_core import ConfigError

if TYPE_CHECKING:
    from planner_adapters.global_planner import GlobalSettings

HELP = "run the global planner: deployments that share one GPU budget"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``planner global``."""
    add = parser.add_argument
    add("--config", metavar="FILE", type=Path, required=True, help="YAML or JSON: budget and deployments")
    add_address_argument(parser, "--listen", 8082, "where local planners ask")
    add("--tls-cert", metavar="FILE", type=Path, help="certificate chain (PEM); give it beyond loopback")
    add("--tls-key", metavar="FILE", type=Path, help="its private key (PEM)")


def run(arguments: argparse.Namespace) -> int:
    """Runs until told to stop."""
    from planner_adapters.global_planner.settings import read_global_settings, read_tokens

    if arguments.listen is None:
        raise ConfigError("--listen off: a global planner that nobody can ask does nothing; name a port")
    settings, tokens = read_global_settings(arguments.config), read_tokens()
    log_to(None)
    tls = None
    if arguments.tls_cert is not None:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(arguments.tls_cert, arguments.tls_key)
    asyncio.run(_run(settings, tokens, arguments.listen, tls))
    return 0


async def _run(
    settings: GlobalSettings, tokens: dict[str, str], listen: tuple[str, int], tls: ssl.SSLContext | None
) -> None:
    from planner_adapters.global_planner import connected, serve

    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for signal_ in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signal_, stop.set)
    host, port = listen
    async with (
        connected(settings) as arbiter,
        serve(arbiter, tokens=tokens, host=host, port=port, ssl=tls) as url,
    ):
        log.info(logfmt("begin", url=url, deployments=", ".join(settings.deployments)))
        await stop.wait()
        log.info(logfmt("end"))
