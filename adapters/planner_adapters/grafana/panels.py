"""What the dashboard shows: rows of panels, each with its queries, as plain data.

``{}`` in an expression is where the selector of the chosen planners goes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal, TypeAlias

import attrs

Kind: TypeAlias = Literal["stat", "lines", "steps", "reasons", "bounds"]

PREFIX: Final = "dynamo_planner_"
"""Of every series; the exporter's module isn't imported, since it stands on an extra of its own."""
SELECTOR: Final = '{job=~"$job", instance=~"$instance"}'
MOST_ENGINES: Final = 10
"""Engines that a panel draws: those with the highest values; a fleet of thousands is no picture."""


@attrs.frozen
class Query:
    """PromQL, and the words of the legend; ``{{label}}`` stands for a label's value."""

    expr: str
    legend: str


@attrs.frozen(kw_only=True)
class Panel:
    """One panel. ``width`` is of 24 columns."""

    title: str
    says: str
    """What one learns from it; Grafana shows it behind the title's ⓘ."""
    kind: Kind
    unit: str
    """As Grafana names units: ``ms``, ``reqps``, ``none``, …"""
    queries: tuple[Query, ...]
    width: int = 8


@attrs.frozen
class Row:
    """Panels under one heading."""

    title: str
    panels: tuple[Panel, ...]


def _of(name: str) -> str:
    return PREFIX + name + "{}"


def _share_within(seen: str, target: str) -> str:
    """Share of the time shown in which a latency kept its target; absent where either isn't known."""
    return f"avg_over_time(({_of(seen)} <= bool {_of(target)})[$__range:])"


def _replicas(role: str) -> Panel:
    return Panel(
        title=f"{role.capitalize()} replicas",
        says="What serves, and what the planner asks for. The gap is what starts or drains."
        + ("" if role == "prefill" else " Aggregated engines are shown here."),
        kind="steps",
        unit="none",
        queries=(
            Query(_of(f"num_{role}_replicas"), "serving"),
            Query(_of(f"predicted_num_{role}_replicas"), "asked for"),
        ),
    )


def _latency(short: str, long: str) -> Panel:
    return Panel(
        title=short.upper(),
        says=f"{long}: what users saw, what the next request would meet on the slowest engine, and what is promised.",
        kind="lines",
        unit="ms",
        queries=(
            Query(_of(f"observed_{short}_ms"), "observed"),
            Query(_of(f"estimated_{short}_ms"), "estimated"),
            Query(_of(f"sla_target_{short}_ms"), "target"),
        ),
    )


def _lengths(short: str, long: str, which: str) -> Panel:
    return Panel(
        title=short.upper(),
        says=f"Mean {long} length, in tokens.",
        kind="lines",
        unit="none",
        queries=_observed_and_forecast(f"{which}_sequence_tokens"),
    )


def _fleet(role: str) -> Query:
    """What all replicas that serve carry together."""
    capacity = _of(f"engine_{role}_capacity_requests_per_second")
    return Query(f"{capacity} * {_of(f'num_{role}_replicas')}", f"{role} fleet")


def _by_role(name: str) -> tuple[Query, ...]:
    return tuple(Query(_of(name.format(role)), role) for role in ("prefill", "decode"))


def _observed_and_forecast(what: str) -> tuple[Query, ...]:
    return Query(_of(f"observed_{what}"), "observed"), Query(_of(f"predicted_{what}"), "forecast")


def _reasons(loop: str, says: str) -> Panel:
    name = f"{loop}_scaling_decision"
    return Panel(
        title=f"Reasons of the {loop} loop",
        says=says,
        kind="reasons",
        unit="none",
        queries=(Query(f"{_of(name)} == 1", "{{" + PREFIX + name + "}}"),),
        width=12,
    )


def _engines(title: str, name: str, says: str) -> Panel:
    return Panel(
        title=title,
        says=f"{says} The {MOST_ENGINES} highest engines, and the mean of all: a skew can't be scaled away.",
        kind="lines",
        unit="none",
        queries=(
            Query(f"topk({MOST_ENGINES}, {_of(name)})", "{{worker_id}} rank {{dp_rank}}"),
            Query(f"avg({_of(name)})", "mean of all engines"),
        ),
    )


GPUS: Final = Query(f"rate({_of('gpu_hours')}[$__rate_interval]) * 3600", "GPUs")

ROWS: Final = (
    Row(
        "Now",
        (
            Panel(
                title="Serving",
                says="Replicas that serve, by role. Aggregated engines are counted as decode.",
                kind="stat",
                unit="none",
                queries=_by_role("num_{}_replicas"),
                width=6,
            ),
            Panel(
                title="GPUs in use",
                says="GPUs of ready, starting and draining replicas: the pace of the GPU-hours.",
                kind="stat",
                unit="none",
                queries=(GPUS,),
                width=6,
            ),
            Panel(
                title="GPU-hours",
                says="Spent in the time shown.",
                kind="stat",
                unit="h",
                queries=(Query(f"increase({_of('gpu_hours')}[$__range])", "GPU-hours"),),
                width=6,
            ),
            Panel(
                title="Time within the SLA",
                says="Share of the time shown in which what users saw, on average, kept the promise.",
                kind="stat",
                unit="percentunit",
                queries=(
                    Query(_share_within("observed_ttft_ms", "sla_target_ttft_ms"), "TTFT"),
                    Query(_share_within("observed_itl_ms", "sla_target_itl_ms"), "ITL"),
                ),
                width=6,
            ),
        ),
    ),
    Row(
        "Why",
        (
            _reasons("load", "The fast loop: what engines have in hand, every few seconds."),
            _reasons("throughput", "The slow loop: what is forecast, every few minutes."),
            Panel(
                title="What bounds the replicas",
                says="Which limit kept a role from what was wished for: a budget or a maximum from more, a minimum or "
                "the slow loop's floor from less, a rate from either. Empty where nothing binds.",
                kind="bounds",
                unit="none",
                queries=(
                    Query(
                        f"{_of('binding_constraint')} == 1", "{{role}}: {{" + PREFIX + "binding_constraint}}"
                    ),
                ),
                width=24,
            ),
        ),
    ),
    Row(
        "Replicas",
        (
            _replicas("prefill"),
            _replicas("decode"),
            Panel(
                title="GPUs in use",
                says="GPUs of ready, starting and draining replicas.",
                kind="lines",
                unit="none",
                queries=(GPUS,),
            ),
        ),
    ),
    Row(
        "Latency",
        (
            _latency("ttft", "Time to first token"),
            _latency("itl", "Time between tokens"),
            Panel(
                title="Request duration",
                says="From a request to its last token, as users saw it.",
                kind="lines",
                unit="s",
                queries=(Query(_of("observed_request_duration_seconds"), "observed"),),
            ),
        ),
    ),
    Row(
        "Traffic",
        (
            Panel(
                title="Requests",
                says="What arrived, and the forecast that the fleet is sized for.",
                kind="lines",
                unit="reqps",
                queries=_observed_and_forecast("requests_per_second"),
            ),
            _lengths("isl", "prompt", "input"),
            _lengths("osl", "answer", "output"),
        ),
    ),
    Row(
        "Capacity",
        (
            Panel(
                title="Capacity of one replica",
                says="Requests that one replica carries within the SLA, at the lengths of now.",
                kind="lines",
                unit="reqps",
                queries=_by_role("engine_{}_capacity_requests_per_second"),
                width=12,
            ),
            Panel(
                title="Capacity of the fleet over demand",
                says="What the serving replicas carry within the SLA, and what arrives. Below it, the SLA is at risk.",
                kind="lines",
                unit="reqps",
                queries=(
                    _fleet("prefill"),
                    _fleet("decode"),
                    Query(_of("observed_requests_per_second"), "demand"),
                ),
                width=12,
            ),
        ),
    ),
    Row(
        "Engines",
        (
            _engines("Queued prefill", "engine_queued_prefill_tokens", "Prompt tokens that wait."),
            _engines("Queued decode", "engine_queued_decode_kv_tokens", "KV tokens of what waits to decode."),
            _engines("Decode in flight", "engine_inflight_decode_kv_tokens", "KV tokens of what decodes."),
        ),
    ),
)


def queries(selector: str = SELECTOR) -> Iterator[tuple[Panel, str]]:
    """Every panel with each of its expressions, as Grafana sends them but for its own variables."""
    for row in ROWS:
        for panel in row.panels:
            for query in panel.queries:
                yield panel, query.expr.replace("{}", selector)
