"""The command ``planner``: one module per subcommand, each with ``HELP``, ``add_arguments`` and ``run``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import NoReturn

from planner_adapters.backtest.series import SeriesError
from planner_adapters.cli import (
    backtest,
    compare,
    config,
    explain,
    global_,
    grafana,
    profile,
    replay,
    report,
    run,
)
from planner_adapters.dynamo.profiles import ProfileError
from planner_adapters.environment import NotScaled, Unobserved
from planner_adapters.journal import JournalError
from planner_adapters.simulation.workload import WorkloadError
from planner_core import PlannerError

COMMANDS: dict[str, ModuleType] = {
    "replay": replay,
    "compare": compare,
    "backtest": backtest,
    "profile": profile,
    "explain": explain,
    "report": report,
    "run": run,
    "global": global_,
    "config": config,
    "grafana": grafana,
}

BAD_INPUT, INTERRUPTED, BROKEN_PIPE = 2, 130, 141
_EXPECTED = (
    PlannerError,
    WorkloadError,
    SeriesError,
    ProfileError,
    JournalError,
    Unobserved,
    NotScaled,
    OSError,
)
"""What bad input raises; anything else is a fault of ours and keeps its traceback."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a subcommand; the exit code is 0, or 2 after a line for each thing wrong with the input."""
    arguments = _parser().parse_args(argv)
    try:
        code = int(COMMANDS[arguments.command].run(arguments))
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except KeyboardInterrupt:
        print("planner: interrupted", file=sys.stderr)  # noqa: T201
        return INTERRUPTED
    except _EXPECTED as error:
        for problem in getattr(error, "problems", None) or (_one_line(error),):
            print(f"planner {arguments.command}: {problem}", file=sys.stderr)  # noqa: T201
        return BAD_INPUT
    return code


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line; the usage is a ``--help`` away."""

    def error(self, message: str) -> NoReturn:
        self.exit(BAD_INPUT, f"{self.prog}: {message} (see {self.prog} --help)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="planner", description="How many LLM-inference engines should run?")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        subparser = subparsers.add_parser(name, help=command.HELP, description=command.__doc__)
        command.add_arguments(subparser)
    return parser


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split())
