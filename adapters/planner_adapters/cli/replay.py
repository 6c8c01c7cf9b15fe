"""Replay a request trace against a simulated cluster that the planner scales; without one, a working day.

Says which share of the requests kept the SLA, and what that cost in GPU-hours. A trace is a CSV with
arrival_s, input_tokens, output_tokens; the Azure LLM inference CSV; or JSON lines of timestamp (ms),
input_length, output_length.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any, get_args

from planner_adapters.cli.settings import add_journal_argument, add_settings_arguments
from planner_adapters.cli.terminal import print_table, progress
from planner_adapters.config_file import Settings, read_settings
from planner_adapters.dynamo.mocker import replay_on_mocker, runtime
from planner_adapters.journal import Journal
from planner_adapters.runner import sole_writer
from planner_adapters.simulation.deployment import DEFAULT_ENGINE, Deployment, engine_of, plan_deployment
from planner_adapters.simulation.outcome import ReplayResult
from planner_adapters.simulation.policy import PlannerPolicy
from planner_adapters.simulation.pool import ROUTINGS
from planner_adapters.simulation.presets import PRESETS
from planner_adapters.simulation.replay import GRACE_S, replay
from planner_adapters.simulation.synthetic import working_day
from planner_adapters.simulation.traces import load_workload
from planner_adapters.warmup import warmup_traffic
from planner_core import ConfigError, Constraint, PlannerConfig, Role
from planner_core.config import Target
from planner_core.data.roles import ROLES_OF_MODE

HELP = "replay a request trace: SLA attainment and GPU-hours"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``planner replay``."""
    add = parser.add_argument
    add(
        "trace",
        nargs="?",
        metavar="TRACE",
        help="CSV or JSON lines, plain or gzipped; default: a synthetic working day",
    )
    add_deployment_arguments(parser)
    add(
        "--simulator",
        choices=("built-in", "mocker"),
        default="built-in",
        help="what plays the engines; mocker: Dynamo's own, needs the extra of this name (default: %(default)s)",
    )
    add("--json", action="store_true", help="print one JSON object")
    add_journal_argument(parser)


def add_deployment_arguments(parser: argparse.ArgumentParser, *, max_gpus: str = "8") -> None:
    """The options that say what is simulated and how it is planned; ``max_gpus`` is the default in words."""
    add_settings_arguments(parser)
    add = parser.add_argument
    add("--mode", choices=tuple(ROLES_OF_MODE), help="roles of the deployment (default: disagg)")
    add(
        "--target",
        choices=get_args(Target),
        help="what decides (default: throughput); with sla both loops are on",
    )
    add("--ttft-ms", type=float, metavar="MS", help="promised time to first token (default: 500)")
    add("--itl-ms", type=float, metavar="MS", help="promised inter-token latency (default: 50)")
    add("--max-gpus", type=int, metavar="N", help=f"GPU budget; negative: no limit (default: {max_gpus})")
    engine = parser.add_mutually_exclusive_group()
    engine.add_argument("--profile", metavar="PATH", help="the engine as profiled: NPZ file or directory")
    engine.add_argument(
        "--engine", choices=tuple(PRESETS), help=f"a built-in engine (default: {DEFAULT_ENGINE})"
    )
    add("--startup-s", type=float, metavar="S", help="how long a replica takes to start (default: 120)")
    add(
        "--replicas",
        type=_replicas,
        metavar="N",
        help="replicas at the start: 2, or prefill=2,decode=4 (default: the minimum)",
    )
    add(
        "--routing",
        choices=ROUTINGS,
        default=ROUTINGS[0],
        help="of requests to replicas (default: %(default)s)",
    )
    add("--seed", type=int, default=0, metavar="N", help="of the working day and of routing by lot")


def run(arguments: argparse.Namespace) -> int:
    """Replays and prints."""
    settings = settings_of(arguments)
    engine = engine_of(profile=arguments.profile, name=arguments.engine)
    deployment = plan_deployment(settings, engine, startup_s=arguments.startup_s, replicas=arguments.replicas)
    workload = load_workload(arguments.trace) if arguments.trace else working_day(seed=arguments.seed)
    play = _simulator(arguments)
    policy = PlannerPolicy(deployment.config, warmup_traffic(deployment.config))
    bound = _BudgetWatch()
    with ExitStack() as stack:
        stack.enter_context(sole_writer(arguments.journal))
        journal = stack.enter_context(Journal(arguments.journal)) if arguments.journal else None
        end_s = float(workload.arrival_s[-1])
        show = stack.enter_context(progress(f"replay {workload.name}", end_s, shown=not arguments.json))

        def on_tick(now_s: float) -> None:
            assert policy.last is not None
            bound.note(policy.last[1].explanations.values())
            if journal is not None:
                journal.append(*policy.last)
            show(now_s)

        result = play(workload, deployment.config, deployment.roles, policy=policy, on_tick=on_tick)
    notes = [*bound.notes(deployment.config), *_notes(result, deployment)]
    if arguments.simulator == "mocker" and workload.prefix_hit_tokens is not None:
        notes.append("the mocker was not told of prefix hits: it computed every prompt in full")
    if arguments.json:
        print(json.dumps(result.summary() | {"trace": workload.name, "notes": notes}))  # noqa: T201
    else:
        print_table(_title(result, deployment), _rows(result), notes)
    return 0


def _simulator(arguments: argparse.Namespace) -> Callable[..., ReplayResult]:
    """What plays the deployment."""
    if arguments.simulator == "built-in":
        return partial(replay, routing=arguments.routing, seed=arguments.seed)
    if arguments.routing != ROUTINGS[0]:
        raise ConfigError(f"routing = {arguments.routing!r}: the mocker routes {ROUTINGS[0]} alone")
    runtime()
    return replay_on_mocker


def settings_of(arguments: argparse.Namespace) -> Settings:
    """What file and flags say of the deployment."""
    flags: dict[str, Any] = dict(arguments.set)
    for key, value in (
        ("mode", arguments.mode),
        ("optimization_target", arguments.target),
        ("ttft_ms", arguments.ttft_ms),
        ("itl_ms", arguments.itl_ms),
        ("max_gpu_budget", arguments.max_gpus),
    ):
        if value is not None:
            flags[key] = value
    settings = read_settings(arguments.config, flags)
    # A file means what it says, also by its silence: it is replayed as it would run.
    target_is_ours = arguments.target is not None or arguments.config is None
    if target_is_ours and settings.get("target") == "sla" and "load" not in settings:
        settings = settings.over(Settings(values={"enable_load_scaling": True}))
    return settings


def _replicas(text: str) -> int | dict[Role, int]:
    try:
        if "=" not in text:
            return _count(text)
        pairs = [part.split("=") for part in text.split(",")]
        return {Role(role.strip()): _count(number) for role, number in pairs}
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no number of replicas: write 2, or prefill=2,decode=4"
        ) from None


def _count(text: str) -> int:
    count = int(text)
    if count < 0:
        raise ValueError(text)
    return count


class _BudgetWatch:
    """In how many ticks the GPU budget kept a role from growing."""

    def __init__(self) -> None:
        self.ticks = self.bound = 0

    def note(self, explanations: Any) -> None:
        self.ticks += 1
        self.bound += any(
            e.constraint in (Constraint.GPU_BUDGET, Constraint.INFEASIBLE_BUDGET) for e in explanations
        )

    def notes(self, config: PlannerConfig) -> list[str]:
        if not self.bound:
            return []
        share = self.bound / self.ticks
        return [
            f"the budget of {config.limits.max_gpus} GPUs bound in {share:.1%} of the ticks: "
            "--max-gpus N raises it, -1 lifts it"
        ]


def _notes(result: ReplayResult, deployment: Deployment) -> list[str]:
    notes = []
    if result.rejected:
        longest = min(spec.engine.longest_request_tokens for spec in deployment.roles.values())
        notes.append(
            f"{result.rejected:,} requests were rejected: longer than the {longest:,} tokens of an engine"
        )
    if result.unfinished:
        notes.append(f"{result.unfinished:,} requests were given up {GRACE_S:,.0f} s after the last arrival")
    return notes


def _title(result: ReplayResult, deployment: Deployment) -> str:
    config = deployment.config
    sla = f"TTFT {config.sla.ttft_ms:g} ms, ITL {config.sla.itl_ms:g} ms"
    return f"{result.name}: {config.mode}, target {config.target}, {sla}; {deployment.engine}"


def _rows(result: ReplayResult) -> list[tuple[str, str]]:
    def share(value: float) -> str:
        return f"{value:.2%}"

    def latencies(figures: Mapping[str, float | None], digits: int) -> str:
        return " / ".join("–" if value is None else f"{value:,.{digits}f}" for value in figures.values())

    of_roles = ", ".join(f"{role} {peak}" for role, peak in result.peak_replicas_by_role.items())
    number: Callable[[float], str] = "{:,}".format
    return [
        ("requests", number(len(result.requests.status))),
        ("completed", number(result.completed)),
        ("TTFT attainment", share(result.ttft_attainment)),
        ("ITL attainment", share(result.itl_attainment)),
        ("SLA attainment", share(result.sla_attainment)),
        ("TTFT p50 / p95 / p99, ms", latencies(result.ttft_ms, 0)),
        ("ITL p50 / p95 / p99, ms", latencies(result.itl_ms, 1)),
        ("GPU-hours", f"{result.gpu_hours:,.2f}"),
        ("scale-ups", number(result.scale_ups)),
        ("scale-downs", number(result.scale_downs)),
        ("direction changes", number(result.direction_changes)),
        ("peak replicas", f"{result.peak_replicas} ({of_roles})"),
        ("simulated time, h", f"{result.end_s / 3600:.2f}"),
        ("wall time, s", f"{result.wall_s:.1f}"),
        ("of it planner, s", f"{result.planner_s:.1f}"),
    ]
