from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import attrs
import pytest

from planner_core import (
    Decision,
    EngineSpec,
    ForwardPassMetrics,
    Limits,
    LoadScaling,
    PlannerConfig,
    Role,
    SlaTargets,
    ThroughputScaling,
    TickInput,
    WorkerCounts,
    first_tick,
    initial_state,
    tick,
)

SPEC = EngineSpec(
    max_num_batched_tokens=8192,
    max_num_seqs=256,
    max_kv_tokens=400_000,
    context_length=16_384,
    startup_s=60.0,
)
"""An engine of which all is known."""


def prefill_pass(worker: str, tokens: float = 2000, queued: float = 0, **more: Any) -> ForwardPassMetrics:
    """10 ms and 20 µs per token; prompts of 1 000 tokens. Without tokens, a heartbeat."""
    values: dict[str, Any] = {
        "worker_id": worker,
        "wall_time_s": 0.01 + 2e-5 * tokens if tokens else 0.0,
        "num_prefill": tokens / 1000,
        "prefill_tokens": tokens,
        "queued_prefill_tokens": queued,
        "queued_num_prefill": queued / 1000,
    }
    return ForwardPassMetrics(**values | more)


def decode_pass(worker: str, requests: float = 20, context: float = 1000, **more: Any) -> ForwardPassMetrics:
    """8 ms, 0.1 ms per request and 0.1 µs per KV token. Without requests, a heartbeat."""
    values: dict[str, Any] = {
        "worker_id": worker,
        "wall_time_s": 0.008 + 1e-4 * requests + 1e-7 * requests * context if requests else 0.0,
        "num_decode": requests,
        "decode_kv_tokens": requests * context,
    }
    return ForwardPassMetrics(**values | more)


def agg_pass(worker: str, requests: float = 20, tokens: float = 500, **more: Any) -> ForwardPassMetrics:
    """The overhead and the work of both."""
    values: dict[str, Any] = {
        "worker_id": worker,
        "wall_time_s": 0.01 + 2e-5 * tokens + 1e-4 * requests + 1e-4 * requests if tokens + requests else 0.0,
        "num_prefill": tokens / 1000,
        "prefill_tokens": tokens,
        "num_decode": requests,
        "decode_kv_tokens": requests * 1000,
    }
    return ForwardPassMetrics(**values | more)


def benchmark(role: Role) -> list[ForwardPassMetrics]:
    """Passes over the whole range of loads, as a self-benchmark of an engine gives them."""
    if role is Role.PREFILL:
        return [prefill_pass("bench", tokens) for tokens in range(256, 8193, 512)]
    batches = (1, 4, 16, 48, 96, 192)
    if role is Role.DECODE:
        return [decode_pass("bench", n, context) for n in batches for context in (500, 1500, 4000)]
    return [agg_pass("bench", n, tokens) for n in batches for tokens in (0, 500, 2000, 6000)]


def make_config(mode: str = "disagg", target: str = "sla", **changes: Any) -> PlannerConfig:
    """Both loops, no budget, an engine of which all is known; ``spec`` changes the engine, ``load`` the fast loop."""
    roles = {"disagg": ("prefill", "decode")}.get(mode, (mode,))
    spec = attrs.evolve(SPEC, **changes.pop("spec", {}))
    load = LoadScaling(**changes.pop("load", {}))
    values: dict[str, Any] = {
        "engines": dict.fromkeys(roles, spec),
        "target": target,
        "sla": SlaTargets(ttft_ms=500, itl_ms=30),
        "throughput": None,
        "load": load,
        "limits": Limits(max_gpus=None),
    }
    return PlannerConfig(**values | changes)


def drive(
    config: PlannerConfig,
    observe: Callable[[float, Mapping[Role, int]], Mapping[str, Any]],
    *,
    replicas: Mapping[str, int],
    duration_s: float = 300.0,
    warm: bool = True,
    startup_s: float = 0.0,
) -> Iterator[Decision]:
    """Ticks against a fleet that does as it is told.

    ``observe(now_s, ready)`` gives the tick's measurements besides ``workers``. New replicas are ready ``startup_s``
    after they were asked for.
    """
    ready = {Role(role): count for role, count in replicas.items()}
    starting: dict[Role, list[float]] = {role: [] for role in ready}
    passes = {role: benchmark(role) for role in ready} if warm else {}
    state, upcoming = initial_state(config, 0.0, fpm=passes), first_tick(config, 0.0)
    while upcoming.at_s <= duration_s:
        now_s = upcoming.at_s
        for role, starts in starting.items():
            ready[role] += sum(now_s - start >= startup_s for start in starts)
            starts[:] = [start for start in starts if now_s - start < startup_s]
        workers = {
            role: WorkerCounts(ready=count, starting_ages_s=tuple(now_s - start for start in starting[role]))
            for role, count in ready.items()
        }
        measured: dict[str, Any] = {"workers": workers, **observe(now_s, dict(ready))}
        decision = tick(TickInput(config=config, state=state, now_s=now_s, **measured))
        yield decision
        for role, count in decision.replicas.items():
            change = count - ready[role] - len(starting[role])
            if change > 0:
                starting[role] += [now_s] * change
            for _ in range(-change):
                if starting[role]:
                    starting[role].pop()
                else:
                    ready[role] -= 1
        state, upcoming = decision.state, decision.next_tick


class Lab:
    """The builders above, under one name, for tests."""

    spec = SPEC
    prefill_pass = staticmethod(prefill_pass)
    decode_pass = staticmethod(decode_pass)
    agg_pass = staticmethod(agg_pass)
    benchmark = staticmethod(benchmark)
    config = staticmethod(make_config)
    drive = staticmethod(drive)

    @staticmethod
    def once(config: PlannerConfig, *, now_s: float = 5.0, warm: bool = True, **measured: Any) -> Decision:
        """One tick of a planner that began at 0."""
        passes = {role: benchmark(role) for role in config.engines} if warm else {}
        state = initial_state(config, 0.0, fpm=passes)
        return tick(TickInput(config=config, state=state, now_s=now_s, **measured))

    @staticmethod
    def slow(**changes: Any) -> ThroughputScaling:
        """The slow loop."""
        return ThroughputScaling(**changes)


@pytest.fixture(scope="session")
def lab() -> type[Lab]:
    return Lab
