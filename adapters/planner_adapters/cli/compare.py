"""Compare policies on request traces: the planner, the autoscalers that people run today, and an oracle.

Each baseline runs with its usual parameters and over a grid of others, so that its best in hindsight is known. The
oracle knows the trace, and obeys the startup time; below its GPU-hours stands a bound that no policy can beat.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
from collections.abc import Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

from planner_adapters.cli.replay import add_deployment_arguments, settings_of
from planner_adapters.cli.terminal import page_file, print_table, progress
from planner_adapters.compare import Case, Outcome, case_of, compare, write_page
from planner_adapters.compare.case import WINDOW_S
from planner_adapters.compare.page import describe
from planner_adapters.compare.policies import all_policies
from planner_adapters.compare.table import HEADER, notes, rows
from planner_adapters.config_file import Settings
from planner_adapters.simulation.deployment import engine_of, plan_deployment
from planner_adapters.simulation.scaling import scaled
from planner_adapters.simulation.traces import load_workload
from planner_adapters.simulation.workload import Workload, WorkloadError
from planner_adapters.warmup import warmup_traffic

HELP = "compare policies on traces: planner, baselines, oracle"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``planner compare``."""
    add = parser.add_argument
    add("traces", nargs="+", metavar="TRACE", help="CSV or JSON lines, plain or gzipped")
    add_deployment_arguments(parser, max_gpus="no limit")
    add("--scale", type=float, default=1.0, metavar="X", help="of the arrivals (default: 1)")
    add("--minutes", type=float, metavar="M", help="of each trace, from its start (default: all of it)")
    add(
        "--policies",
        type=_policies,
        metavar="NAMES",
        help=f"of {', '.join(all_policies())} (default: all)",
    )
    add(
        "--window-s",
        type=float,
        default=WINDOW_S,
        metavar="S",
        help="of the oracle's plan (default: %(default)g)",
    )
    add(
        "--workers", type=_workers, metavar="N", help="processes; 1: none but this one (default: one per CPU)"
    )
    add("--json", action="store_true", help="print one JSON list")
    add("--html", type=page_file, metavar="FILE", help="write a page with plots")


def run(arguments: argparse.Namespace) -> int:
    """Compares and prints."""
    cases = _cases(arguments)
    with (
        progress(f"compare {', '.join(case.name for case in cases)}", 1.0, shown=not arguments.json) as show,
        executor_of(arguments.workers) as executor,
    ):
        try:
            outcomes = compare(cases, executor, policies=arguments.policies, on_progress=show)
        except BaseException:
            executor.shutdown(wait=False, cancel_futures=True)
            raise
    if arguments.json:
        print(json.dumps([outcome.row() for outcome in outcomes]))  # noqa: T201
    else:
        _print(cases, outcomes)
    if arguments.html:
        write_page(arguments.html, cases, outcomes)
    return 0


class Here(Executor):
    """Runs each job at once, in this process."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        """A future that is done, or has failed."""
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 (it is the caller's, and raised by future.result())
            future.set_exception(error)
        return future


def executor_of(workers: int | None) -> Executor:
    """Processes; none for one worker."""
    workers = workers or os.cpu_count() or 1
    if workers == 1:
        return Here()
    # Spawned, since a fork would copy the thread that draws the bar. Ctrl-C is for the parent to answer, and who is
    # started while it is ignored ignores it from the first moment on.
    executor = ProcessPoolExecutor(workers, mp_context=get_context("spawn"))
    answer = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        for _ in range(workers):  # each of these starts a process
            executor.submit(int)
    finally:
        signal.signal(signal.SIGINT, answer)
    return executor


def _cases(arguments: argparse.Namespace) -> list[Case]:
    settings = _settings(arguments)
    deployment = plan_deployment(
        settings,
        engine_of(profile=arguments.profile, name=arguments.engine),
        startup_s=arguments.startup_s,
        replicas=arguments.replicas,
    )
    warmup = warmup_traffic(deployment.config)
    return [
        case_of(
            workload,
            deployment,
            replicas_given=arguments.replicas is not None,
            routing=arguments.routing,
            seed=arguments.seed,
            window_s=arguments.window_s,
            warmup=warmup,
        )
        for workload in _workloads(arguments)
    ]


def _settings(arguments: argparse.Namespace) -> Settings:
    """The planner as it is meant to be, both loops on, and no budget, which would make every policy equal."""
    arguments = argparse.Namespace(**vars(arguments))
    if arguments.target is None and arguments.config is None:
        arguments.target = "sla"
    settings = settings_of(arguments)
    return (
        settings if "limits.max_gpus" in settings else settings.over(Settings(values={"max_gpu_budget": -1}))
    )


def _workloads(arguments: argparse.Namespace) -> list[Workload]:
    for name, value in (
        ("--scale", arguments.scale),
        ("--minutes", arguments.minutes),
        ("--window-s", arguments.window_s),
    ):
        if value is not None and not 0 < value < float("inf"):
            raise WorkloadError(f"{name} {value:g}: must be above 0 and finite")
    found: dict[str, Workload] = {}
    for path in arguments.traces:
        workload = load_workload(path)
        if arguments.minutes is not None:
            rows = workload.arrival_s < 60 * arguments.minutes
            if not rows.any():
                raise WorkloadError(f"{path}: has no request in the first {arguments.minutes:g} minutes")
            workload = workload[rows]
        if arguments.scale != 1:
            workload = scaled(workload, arguments.scale, seed=arguments.seed)
        if workload.name in found:
            raise WorkloadError(f"{path}: a trace of the name {workload.name} is there already; rename one")
        found[workload.name] = workload
    return list(found.values())


def _policies(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip().replace("_", "-") for name in text.split(",")))
    known = list(all_policies())
    for name in names:
        if name not in known:
            raise argparse.ArgumentTypeError(f"there is no policy {name!r}; there are {', '.join(known)}")
    return names


def _workers(text: str) -> int:
    workers = int(text) if text.isdecimal() else 0
    if workers < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: must be a whole number of at least 1")
    return workers


def _print(cases: Sequence[Case], outcomes: Sequence[Outcome]) -> None:
    for case in cases:
        mine = [outcome for outcome in outcomes if outcome.trace == case.name]
        print_table(f"{case.name}: {describe(case)}", rows(mine), notes(mine), HEADER)
