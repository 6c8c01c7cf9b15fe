"""What the commands have in common that run until they are told to stop: where they listen, and what they say."""

from __future__ import annotations

import argparse
import logging
import sys
from logging.handlers import RotatingFileHandler
from pathlib import Path

from planner_adapters.runner.logs import LogfmtFormatter, log

LOG_BYTES, LOG_FILES = 10_000_000, 5


def add_address_argument(parser: argparse.ArgumentParser, flag: str, port: int, what: str) -> None:
    """``flag`` with ``[HOST:]PORT``, by default a port of this machine alone; ``None`` for ``off``."""
    parser.add_argument(
        flag,
        type=_address,
        default=("127.0.0.1", port),
        metavar="[HOST:]PORT",
        help=f"{what} (default: 127.0.0.1:{port})",
    )


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


def _address(text: str) -> tuple[str, int] | None:
    """``PORT``, ``HOST:PORT`` or ``off`` of a command line."""
    if text == "off":
        return None
    host, _, port = text.rpartition(":")
    if not port.isdecimal() or int(port) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no address: write a port, HOST:PORT, or off")
    return host.strip("[]") or "127.0.0.1", int(port)
