"""The planner's own metrics: each series once, with its meaning and where its value comes from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, Literal, TypeAlias

import attrs
import numpy as np

from planner_adapters.figures import figures
from planner_core import Constraint, Decision, Explanation, LoadReason, ThroughputReason, TickInput

PREFIX: Final = "dynamo_planner_"
Tick: TypeAlias = Literal["every", "load", "throughput"]
EngineValue: TypeAlias = tuple[str, str, float]
"""Worker id, data-parallel rank, value."""


@attrs.frozen
class Gauge:
    """A number. ``tick``: the last value stands until this loop has run again, and is gone if it ran without one."""

    name: str
    meaning: str
    figure: str
    """Its name in :func:`exported_figures`."""
    tick: Tick = "every"


@attrs.frozen
class PerEngine:
    """A number of each engine that reports, labelled ``worker_id`` and ``dp_rank``."""

    name: str
    meaning: str
    column: str
    """Of :class:`~planner_core.FpmBatch`."""


@attrs.frozen(kw_only=True)
class Choice:
    """One of several words: 1 for the one that holds, 0 for the others, in a label with the metric's own name."""

    name: str
    meaning: str
    words: tuple[str, ...]
    read: Callable[[Decision], str]
    tick: Tick


GAUGES: Final = (
    Gauge("num_prefill_replicas", "Prefill replicas that serve", "prefill.ready"),
    Gauge(
        "num_decode_replicas",
        "Decode replicas that serve; aggregated ones where the deployment has these",
        "decode.ready",
    ),
    Gauge("observed_ttft_ms", "Time to first token that users saw, in ms", "observed_ttft_ms", "throughput"),
    Gauge("observed_itl_ms", "Time between tokens that users saw, in ms", "observed_itl_ms", "throughput"),
    Gauge("observed_requests_per_second", "Requests that arrived", "rate_rps", "throughput"),
    Gauge(
        "observed_request_duration_seconds",
        "Time from a request to its last token",
        "request_duration_s",
        "throughput",
    ),
    Gauge("observed_input_sequence_tokens", "Mean prompt length", "isl", "throughput"),
    Gauge("observed_output_sequence_tokens", "Mean answer length", "osl", "throughput"),
    Gauge("predicted_requests_per_second", "Forecast of requests", "forecast_rps", "throughput"),
    Gauge("predicted_input_sequence_tokens", "Forecast of the prompt length", "forecast_isl", "throughput"),
    Gauge("predicted_output_sequence_tokens", "Forecast of the answer length", "forecast_osl", "throughput"),
    Gauge("predicted_num_prefill_replicas", "Prefill replicas that the planner asks for", "prefill.wanted"),
    Gauge(
        "predicted_num_decode_replicas",
        "Decode (or aggregated) replicas that the planner asks for",
        "decode.wanted",
    ),
    Gauge(
        "estimated_ttft_ms",
        "Time to first token that the next request would meet, highest over engines, in ms",
        "estimated_ttft_ms",
        "load",
    ),
    Gauge(
        "estimated_itl_ms",
        "Time between tokens that the next request would meet, highest over engines, in ms",
        "estimated_itl_ms",
        "load",
    ),
    *(
        Gauge(
            f"engine_{role}_{word}requests_per_second",
            f"Requests that one {role} replica carries within the SLA",
            f"{role}.capacity_rps",
            "throughput",
        )
        for role in ("prefill", "decode")
        for word in ("", "capacity_")
    ),
    Gauge("sla_target_ttft_ms", "Promised time to first token, in ms", "target_ttft_ms"),
    Gauge("sla_target_itl_ms", "Promised time between tokens, in ms", "target_itl_ms"),
)

GPU_HOURS: Final = "gpu_hours"
GPU_HOURS_MEANING: Final = (
    "GPUs of ready, starting and draining replicas over time, in hours, since the process began"
)

PER_ENGINE: Final = (
    PerEngine(
        "engine_queued_prefill_tokens", "Prompt tokens that wait for the engine", "queued_prefill_tokens"
    ),
    PerEngine(
        "engine_queued_decode_kv_tokens",
        "KV tokens of requests that wait to decode",
        "queued_decode_kv_tokens",
    ),
    PerEngine("engine_inflight_decode_kv_tokens", "KV tokens of requests that decode", "decode_kv_tokens"),
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

BINDING: Final = "binding_constraint"
BINDING_MEANING: Final = (
    "What kept the role from the replicas that were wished for; none of them where nothing did"
)
CONSTRAINTS: Final = tuple(map(str, Constraint))


def names() -> Sequence[str]:
    """Every series, with its prefix."""
    every = (
        *(g.name for g in GAUGES),
        *(e.name for e in PER_ENGINE),
        *(c.name for c in CHOICES),
        GPU_HOURS,
        BINDING,
    )
    return [PREFIX + name for name in every]


def exported_figures(inputs: TickInput, decision: Decision) -> Mapping[str, float]:
    """What is known. Aggregated engines answer where decode engines would: they generate tokens."""
    known = figures(inputs, decision)
    agg = {name.replace("agg.", "decode."): value for name, value in known.items() if name.startswith("agg.")}
    return known | agg


def binding(why: Explanation, before: str | None) -> str | None:
    """The constraint that binds a role, ``""`` if none does, and as ``before`` where no loop had an opinion.

    ``None``: not known, since the role's replicas aren't.
    """
    if why.replicas is None:
        return None
    if why.constraint is None and why.settled is None:
        return before
    return "" if why.constraint is None else str(why.constraint)


def engine_values(inputs: TickInput, column: str) -> Iterator[EngineValue]:
    """Each engine's latest value; engines that don't report have none."""
    for batch in inputs.fpm.values():
        ids = batch.worker_id[batch.latest].tolist(), batch.dp_rank[batch.latest].tolist()
        values = np.broadcast_to(getattr(batch, column)[batch.latest], len(batch.latest))
        for worker_id, rank, number in zip(*ids, values, strict=True):
            yield worker_id, str(rank), float(number)
