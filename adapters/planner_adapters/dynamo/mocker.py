"""A workload on Dynamo's engine simulator, the Rust mocker, with any policy in the loop.

The runtime offers it in a module that it calls private, so the extra ``mocker`` pins one version. Each request's
times come back, so the result is the same :class:`~planner_adapters.simulation.outcome.ReplayResult` that our own
simulator gives.
"""

from __future__ import annotations

import importlib
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import attrs
import numpy as np

from planner_adapters.dynamo.mocker_files import (
    BLOCK_TOKENS,
    arrivals_ms,
    engine_arguments,
    write_profile,
    write_trace,
)
from planner_adapters.dynamo.mocker_hook import MockerHook
from planner_adapters.simulation.outcome import ReplayResult
from planner_adapters.simulation.policy import PlannerPolicy, Policy
from planner_adapters.simulation.pool import PoolSpec
from planner_adapters.simulation.replay import GRACE_S
from planner_adapters.simulation.results import Bools, RequestResults, Status
from planner_adapters.simulation.workload import Workload
from planner_core import ConfigError, MissingExtraError, PlannerConfig, Role

Run = Callable[..., Any]


def replay_on_mocker(
    workload: Workload,
    config: PlannerConfig,
    roles: Mapping[Role, PoolSpec],
    *,
    policy: Policy | None = None,
    grace_s: float = GRACE_S,
    on_tick: Callable[[float], None] = lambda now_s: None,
) -> ReplayResult:
    """As :func:`planner_adapters.simulation.replay.replay`, routed round robin; prefix hits are computed anew.

    :class:`~planner_core.ConfigError` for a deployment other than aggregated or disaggregated, and
    :class:`~planner_core.MissingExtraError` with the pip command where the runtime isn't installed.
    """
    began = time.perf_counter()
    if set(roles) not in ({Role.AGG}, {Role.PREFILL, Role.DECODE}):
        raise ConfigError(
            f"mode = {config.mode!r}: the mocker serves agg and disagg; leave out --simulator mocker"
        )
    core = runtime()
    start_s = float(workload.arrival_s[0])
    initial = {role: spec.replicas for role, spec in roles.items()}
    hook = MockerHook(
        PlannerPolicy(config) if policy is None else policy, initial, start_s=start_s, on_tick=on_tick
    )
    longest = min(spec.engine.longest_request_tokens for spec in roles.values())
    fits = workload.input_tokens < longest
    if fits.any():
        served = _served(workload, fits, longest)
        summary, records = _run(core, served, roles, hook)
    else:
        summary, records = {"gpu_hours": 0.0, "duration_ms": 0.0}, []
    requests = _results(workload, fits, longest, records, float(workload.arrival_s[-1]) + grace_s)
    before_s = start_s * sum(spec.replicas * spec.engine.num_gpus for spec in roles.values())
    return ReplayResult(
        name=workload.name,
        sla=config.sla,
        requests=requests,
        timeline=hook.log.timeline(),
        end_s=start_s + summary["duration_ms"] / 1e3,
        gpu_hours=summary["gpu_hours"] + before_s / 3600,
        wall_s=time.perf_counter() - began,
        planner_s=hook.planner_s,
    )


def runtime() -> ModuleType:
    """The guest; :class:`~planner_core.MissingExtraError` with the pip command if it isn't there."""
    # It would take over the logging of the process.
    os.environ.setdefault("DYNAMO_SKIP_PYTHON_LOG_INIT", "1")
    os.environ.setdefault("DYN_LOG", "error")
    try:
        core = importlib.import_module("dynamo._core")
    except ImportError:
        raise MissingExtraError(
            "the mocker needs ai-dynamo-runtime 1.6.1: pip install 'planner-core[mocker]'"
        ) from None
    if not hasattr(core, "run_mocker_trace_replay"):
        raise MissingExtraError(
            "this ai-dynamo-runtime has no engine simulator to drive: pip install 'planner-core[mocker]'"
        )
    return core


def _run(
    core: ModuleType, workload: Workload, roles: Mapping[Role, PoolSpec], hook: MockerHook
) -> tuple[Mapping[str, Any], Sequence[Mapping[str, Any]]]:
    """Its summary, and a record per request."""
    with tempfile.TemporaryDirectory(prefix="planner-mocker-") as directory:
        folder = Path(directory)
        write_trace(folder / "trace.jsonl", workload)
        arguments: dict[str, Any] = {}
        for role, spec in roles.items():
            profile = folder / f"{role}.npz"
            write_profile(profile, spec.engine)
            kind = "aggregated" if role is Role.AGG else str(role)
            engine = engine_arguments(spec.engine, profile, kind, spec.startup_s)
            of_role = "extra" if role is Role.AGG else str(role)
            workers = "num_workers" if role is Role.AGG else f"num_{role}_workers"
            arguments |= {f"{of_role}_engine_args": engine, workers: spec.replicas}
        result = core.run_mocker_trace_replay(
            [str(folder / "trace.jsonl")],
            router_mode="round_robin",
            trace_block_size=BLOCK_TOKENS,
            scaling_policy=hook,
            capture_per_request=True,
            **arguments,
        )
        return result.summary, result.per_request


def _served(workload: Workload, fits: Bools, longest: int) -> Workload:
    """What an engine can hold, as our simulator sees it: outputs end where the context does."""
    served = workload[fits]
    return attrs.evolve(served, output_tokens=np.minimum(served.output_tokens, longest - served.input_tokens))


def _results(
    workload: Workload, fits: Bools, longest: int, records: Sequence[Mapping[str, Any]], until_s: float
) -> RequestResults:
    """Records by their arrival, which no two share, in the rows of the workload."""
    ordered = sorted(records, key=lambda record: float(record["arrival_time_ms"]))
    if len(ordered) != int(fits.sum()):
        raise RuntimeError(f"the mocker was given {int(fits.sum())} requests and tells of {len(ordered)}")
    status = np.where(fits, Status.UNFINISHED, Status.REJECTED).astype(np.int64)
    first_s, finish_s = np.full(len(workload), np.nan), np.full(len(workload), np.nan)
    output_tokens = np.where(
        fits, np.minimum(workload.output_tokens, longest - workload.input_tokens), workload.output_tokens
    )
    rows = np.flatnonzero(fits).tolist()
    told_ms = arrivals_ms(workload[fits]).tolist() if rows else []
    for row, at_ms, record in zip(rows, told_ms, ordered, strict=True):
        # From the mocker's own arrival: it was moved by a microsecond where two were equal.
        arrival_s = float(workload.arrival_s[row])
        if record["terminal_status"] == "rejected":
            status[row] = Status.REJECTED
        elif record["terminal_status"] == "completed":
            done_s = arrival_s + (record["last_token_ms"] - at_ms) / 1e3
            if done_s <= until_s:
                status[row] = Status.COMPLETED
                first_s[row] = arrival_s + record["ttft_ms"] / 1e3
                finish_s[row] = done_s
    return RequestResults(
        arrival_s=workload.arrival_s,
        input_tokens=workload.input_tokens,
        output_tokens=output_tokens,
        first_token_s=first_s,
        finish_s=finish_s,
        status=status,
    )
