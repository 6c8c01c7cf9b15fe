"""The planner's own metrics: each series once, with its meaning and where its value comes from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final, Literal, TypeAlias

import attrs
import numpy as np

from planner_core import Decision, Role, TickInput
from planner_core.data.reasons import LoadReason, ThroughputReason

PREFIX: Final = "dynamo_planner_"
Read: TypeAlias = Callable[[TickInput, Decision], float | None]
Tick: TypeAlias = Literal["every", "load", "throughput"]
EngineValue: TypeAlias = tuple[str, str, float]
"""Worker id, data-parallel rank, value."""


@attrs.frozen(kw_only=True)
class Gauge:
    """A number. ``tick``: the last value stands until this loop has run again, and is gone if it ran without one."""

    name: str
    meaning: str
    read: Read
    tick: Tick = "every"


@attrs.frozen(kw_only=True)
class PerEngine:
    """A number of each engine that reports, labelled ``worker_id`` and ``dp_rank``."""

    name: str
    meaning: str
    columns: tuple[str, ...]
    """Of :class:`~planner_core.FpmBatch`; their sum is the value."""


@attrs.frozen(kw_only=True)
class Choice:
    """One of several words: 1 for the one that holds, 0 for the others, in a label with the metric's own name."""

    name: str
    meaning: str
    words: tuple[str, ...]
    read: Callable[[Decision], str]
    tick: Tick


def _of(role: Role, read: Callable[[TickInput, Decision, Role], float | None]) -> Read:
    """Aggregated engines answer where decode engines would: they generate tokens."""

    def value(inputs: TickInput, decision: Decision) -> float | None:
        engines = inputs.config.engines
        actual = Role.AGG if role is Role.DECODE and Role.AGG in engines else role
        return read(inputs, decision, actual) if actual in engines else None

    return value


def _ready(inputs: TickInput, decision: Decision, role: Role) -> float | None:
    counts = inputs.workers.get(role)
    return None if counts is None else counts.ready


def _wanted(inputs: TickInput, decision: Decision, role: Role) -> float | None:
    return decision.replicas.get(role)


def _capacity(inputs: TickInput, decision: Decision, role: Role) -> float | None:
    found = decision.diagnostics.roles.get(role)
    return None if found is None else found.capacity_rps


def _observed_rps(inputs: TickInput, decision: Decision) -> float | None:
    traffic = inputs.traffic
    return (
        None if traffic is None or traffic.num_requests is None else traffic.num_requests / traffic.duration_s
    )


def _traffic(field: str) -> Read:
    return lambda inputs, _: getattr(inputs.traffic, field, None)


def _latency(field: str) -> Read:
    return lambda inputs, _: getattr(inputs.observed, field, None)


def _predicted(field: str) -> Read:
    return lambda _, decision: getattr(decision.diagnostics.predicted, field, None)


def _target(field: str) -> Read:
    return lambda inputs, _: getattr(inputs.config.sla, field) if inputs.config.target == "sla" else None


GAUGES: Final = (
    Gauge(name="num_prefill_replicas", meaning="Prefill replicas that serve", read=_of(Role.PREFILL, _ready)),
    Gauge(
        name="num_decode_replicas",
        meaning="Decode replicas that serve; aggregated ones where the deployment has these",
        read=_of(Role.DECODE, _ready),
    ),
    Gauge(
        name="observed_ttft_ms",
        meaning="Time to first token that users saw, in ms",
        read=_latency("ttft_ms"),
        tick="throughput",
    ),
    Gauge(
        name="observed_itl_ms",
        meaning="Time between tokens that users saw, in ms",
        read=_latency("itl_ms"),
        tick="throughput",
    ),
    Gauge(
        name="observed_requests_per_second",
        meaning="Requests that arrived",
        read=_observed_rps,
        tick="throughput",
    ),
    Gauge(
        name="observed_request_duration_seconds",
        meaning="Time from a request to its last token",
        read=_latency("request_duration_s"),
        tick="throughput",
    ),
    Gauge(
        name="observed_input_sequence_tokens",
        meaning="Mean prompt length",
        read=_traffic("isl"),
        tick="throughput",
    ),
    Gauge(
        name="observed_output_sequence_tokens",
        meaning="Mean answer length",
        read=_traffic("osl"),
        tick="throughput",
    ),
    Gauge(
        name="predicted_requests_per_second",
        meaning="Forecast of requests",
        read=_predicted("rate_rps"),
        tick="throughput",
    ),
    Gauge(
        name="predicted_input_sequence_tokens",
        meaning="Forecast of the prompt length",
        read=_predicted("isl"),
        tick="throughput",
    ),
    Gauge(
        name="predicted_output_sequence_tokens",
        meaning="Forecast of the answer length",
        read=_predicted("osl"),
        tick="throughput",
    ),
    Gauge(
        name="predicted_num_prefill_replicas",
        meaning="Prefill replicas that the planner asks for",
        read=_of(Role.PREFILL, _wanted),
    ),
    Gauge(
        name="predicted_num_decode_replicas",
        meaning="Decode (or aggregated) replicas that the planner asks for",
        read=_of(Role.DECODE, _wanted),
    ),
    Gauge(
        name="estimated_ttft_ms",
        meaning="Time to first token that the next request would meet, highest over engines, in ms",
        read=lambda _, decision: decision.diagnostics.estimated_ttft_ms,
        tick="load",
    ),
    Gauge(
        name="estimated_itl_ms",
        meaning="Time between tokens that the next request would meet, highest over engines, in ms",
        read=lambda _, decision: decision.diagnostics.estimated_itl_ms,
        tick="load",
    ),
    *(
        Gauge(
            name=f"engine_{role}_{word}requests_per_second",
            meaning=f"Requests that one {role} replica carries within the SLA",
            read=_of(role, _capacity),
            tick="throughput",
        )
        for role in (Role.PREFILL, Role.DECODE)
        for word in ("", "capacity_")
    ),
    Gauge(name="sla_target_ttft_ms", meaning="Promised time to first token, in ms", read=_target("ttft_ms")),
    Gauge(name="sla_target_itl_ms", meaning="Promised time between tokens, in ms", read=_target("itl_ms")),
)

GPU_HOURS: Final = "gpu_hours"
GPU_HOURS_MEANING: Final = (
    "GPUs of ready, starting and draining replicas over time, in hours, since the process began"
)

PER_ENGINE: Final = (
    PerEngine(
        name="engine_queued_prefill_tokens",
        meaning="Prompt tokens that wait for the engine",
        columns=("queued_prefill_tokens",),
    ),
    PerEngine(
        name="engine_queued_decode_kv_tokens",
        meaning="KV tokens of requests that wait to decode",
        columns=("queued_decode_kv_tokens",),
    ),
    PerEngine(
        name="engine_inflight_decode_kv_tokens",
        meaning="KV tokens of requests that decode",
        columns=("decode_kv_tokens",),
    ),
)

CHOICES: Final = (
    Choice(
        name="load_scaling_decision",
        meaning="Reason of the load loop's latest decision",
        words=tuple(map(str, LoadReason)),
        read=lambda decision: str(decision.diagnostics.load_reason),
        tick="load",
    ),
    Choice(
        name="throughput_scaling_decision",
        meaning="Reason of the throughput loop's latest decision",
        words=tuple(map(str, ThroughputReason)),
        read=lambda decision: str(decision.diagnostics.throughput_reason),
        tick="throughput",
    ),
)


def names() -> Sequence[str]:
    """Every series, with its prefix."""
    every = (*(g.name for g in GAUGES), GPU_HOURS, *(e.name for e in PER_ENGINE), *(c.name for c in CHOICES))
    return [PREFIX + name for name in every]


def engine_values(inputs: TickInput, columns: tuple[str, ...]) -> Iterator[EngineValue]:
    """Each engine's latest value; engines that don't report have none."""
    for batch in inputs.fpm.values():
        value = sum(getattr(batch, column)[batch.latest] for column in columns)
        ids = batch.worker_id[batch.latest].tolist(), batch.dp_rank[batch.latest].tolist()
        for worker_id, rank, number in zip(*ids, np.broadcast_to(value, len(batch.latest)), strict=True):
            yield worker_id, str(rank), float(number)


def gpus_in_use(inputs: TickInput) -> float | None:
    """GPUs of all replicas that hold some; ``None`` if a role's replicas aren't known."""
    engines = inputs.config.engines
    if set(engines) - set(inputs.workers):
        return None
    held = {role: inputs.workers[role] for role in engines}
    return float(
        sum(
            engines[role].num_gpus * (counts.ready + len(counts.starting_ages_s) + counts.draining)
            for role, counts in held.items()
        )
    )
