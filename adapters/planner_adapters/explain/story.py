"""One tick in plain words and numbers: what was seen, what was expected, what was decided, and what was rejected."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import attrs
import numpy as np

from planner_core import Decision, PlannerConfig, Role, TickInput
from planner_core.data.state import RoleState
from planner_core.maths.fleet import fleet_latency
from planner_core.maths.shape import RequestShape
from planner_core.perf import BatchLoad


@attrs.frozen(kw_only=True)
class Candidate:
    """A number of replicas that might have been chosen, and what it is foretold to offer."""

    replicas: int
    ttft_ms: float | None
    itl_ms: float | None
    """Quantiles over requests, at the arrivals as they are, before they grow."""
    keeps_sla: bool


@attrs.frozen(kw_only=True)
class Story:
    """What there is to say of one tick."""

    title: str
    lines: tuple[tuple[str, str], ...]
    """(about what, sentence), in the order of the tick; those of a role begin with its name."""
    candidates: dict[Role, tuple[Candidate, ...]]


def story_of(inputs: TickInput, decision: Decision) -> Story:
    """The story of a recorded tick."""
    config = inputs.config
    promise = (
        f", TTFT {config.sla.ttft_ms:g} ms, ITL {config.sla.itl_ms:g} ms" if config.target == "sla" else ""
    )
    candidates = {role: tuple(_candidates(role, inputs, decision)) for role in config.engines}
    lines = [*_of_all(inputs, decision)]
    for role in config.engines:
        lines += _of_role(role, inputs, decision, candidates[role])
    return Story(
        title=f"tick at {inputs.now_s:,.1f} s: {config.mode}, target {config.target}{promise}",
        lines=tuple(lines),
        candidates=candidates,
    )


def _of_all(inputs: TickInput, decision: Decision) -> Iterator[tuple[str, str]]:
    """Traffic and forecast."""
    traffic, demand = inputs.traffic, decision.state.demand
    if traffic is None or traffic.num_requests is None:
        last = demand.recent_at_s
        age = "never known" if last is None else f"last known {inputs.now_s - last:,.0f} s ago"
        yield "traffic", f"not known in this tick; {age}"
    else:
        rate = traffic.num_requests / traffic.duration_s
        lengths = "".join(
            f", {name} {value:,.0f}"
            for name, value in (("ISL", traffic.isl), ("OSL", traffic.osl))
            if value is not None
        )
        yield "traffic", f"{rate:.4g} requests/s over the last {traffic.duration_s:,.0f} s{lengths}"
    if demand.recent_rps is not None:
        yield "", f"smoothed {demand.recent_rps:.4g} requests/s"
    predicted = decision.diagnostics.predicted
    if predicted is not None:
        source = "brought by the user" if inputs.forecast is not None else "until new replicas could be ready"
        yield "forecast", f"{predicted.rate_rps:.4g} ± {predicted.rate_std_rps:.2g} requests/s, {source}"


def _of_role(
    role: Role, inputs: TickInput, decision: Decision, candidates: tuple[Candidate, ...]
) -> Iterator[tuple[str, str]]:
    why, seen = decision.explanations[role], decision.diagnostics.roles.get(role)
    yield str(role), f"{_number(why.current)} → {_number(why.replicas)}, because {why.reason}"
    yield "seen", _seen(role, inputs, decision)
    if seen is not None and seen.capacity_rps is not None:
        yield "capacity", f"{seen.capacity_rps:.4g} requests/s per replica within the SLA"
    if why.numbers:
        yield "numbers", ", ".join(why.figures())
    chain = f"wish {_number(why.wish)} → settled {_number(why.settled)} → fitted {_number(why.replicas)}"
    floor = "" if why.floor is None else f", floor {why.floor}"
    bound = "" if why.constraint is None else f", bound by {why.constraint}"
    yield "decision", f"{chain}{floor}{bound} (load: {why.load_reason}, throughput: {why.throughput_reason})"
    for candidate in candidates:
        if candidate.replicas != why.replicas:
            verdict = _rejected(candidate, inputs.config)
            if candidate.keeps_sla and why.numbers.get("growth") and candidate.replicas < (why.replicas or 0):
                verdict += " while the arrivals don't grow"
            yield "rejected", verdict
    for counterfactual in why.counterfactuals:
        yield "rule", counterfactual.sentence()
    for note in why.notes:
        yield "note", note


def _seen(role: Role, inputs: TickInput, decision: Decision) -> str:
    counts, batch = inputs.workers.get(role), inputs.batch(role)
    parts = ["replicas not counted in this tick"]
    if counts is not None:
        parts = [f"{counts.ready} ready", f"{len(counts.starting_ages_s)} starting"]
        parts += [f"{counts.draining} draining"] if counts.draining else []
        parts += [f"{counts.expected} asked for"] if counts.expected is not None else []
    if len(batch.latest):
        parts.append(f"{len(batch)} passes of engines: {len(batch.latest)}")
    else:
        last = decision.state.roles[role].fleet.fpm_at_s
        parts.append(
            "no engine has ever reported" if last is None else f"no pass for {inputs.now_s - last:,.0f} s"
        )
    return ", ".join(parts)


def _rejected(candidate: Candidate, config: PlannerConfig) -> str:
    quantile = f"p{100 * config.sla.share:g}"
    latencies = ", ".join(
        f"{name} {quantile} {value:,.0f} ms" if np.isfinite(value) else f"{name} without end"
        for name, value in (("TTFT", candidate.ttft_ms), ("ITL", candidate.itl_ms))
        if value is not None
    )
    verdict = "keeps the SLA" if candidate.keeps_sla else "breaks the SLA"
    return f"{candidate.replicas} replica{'s' * (candidate.replicas > 1)}: {latencies}: {verdict}"


def _candidates(role: Role, inputs: TickInput, decision: Decision) -> Iterator[Candidate]:
    """The sizes around what was and what is; nothing where rates, lengths or passes aren't known."""
    config, why = inputs.config, decision.explanations[role]
    rate_rps, demand = why.numbers.get("arrivals_rps"), decision.state.demand
    shape = _shape(demand.requests)
    iteration = _iteration(role, config, decision.state.roles[role])
    if config.target != "sla" or not rate_rps or shape is None or iteration is None or why.replicas is None:
        return
    if role.decodes and shape.osl is None:
        return
    batch = inputs.batch(role)
    per_replica = len(batch.latest) / batch.num_workers if batch.num_workers else 1.0
    near = {why.replicas + step for step in (-1, 0, 1)} | {why.current or 1, why.wish or 1}
    sizes = np.array(sorted(size for size in near if size > 0), dtype=float)
    offered = fleet_latency(
        role, iteration, config.engines[role], shape, rate_rps, sizes * per_replica, config.sla.share
    )
    for place, size in enumerate(sizes):
        ttft, itl = (
            None if values is None else float(values[place]) for values in (offered.ttft_ms, offered.itl_ms)
        )
        keeps = (ttft is None or ttft <= config.sla.ttft_ms) and (itl is None or itl <= config.sla.itl_ms)
        yield Candidate(replicas=int(size), ttft_ms=ttft, itl_ms=itl, keeps_sla=keeps)


def _shape(requests: Any) -> RequestShape | None:
    return None if requests.isl is None else RequestShape(**attrs.asdict(requests))


def _iteration(role: Role, config: PlannerConfig, state: RoleState) -> Any:
    model = config.perf_model(role)
    if model.iteration_s(state.perf, BatchLoad(num_decode=1.0)) is None:
        return None

    def iteration(load: BatchLoad) -> Any:
        estimate = model.iteration_s(state.perf, load)
        assert estimate is not None  # a model that is ready for one load is ready for all
        return estimate.mean_s

    return iteration


def changes(before: Mapping[Role, int], after: Mapping[Role, int]) -> list[str]:
    """What differs between two decisions, a line each."""
    roles = dict.fromkeys((*before, *after))
    return [
        f"{role}: {_number(before.get(role))} → {_number(after.get(role))}"
        for role in roles
        if before.get(role) != after.get(role)
    ]


def _number(count: int | None) -> str:
    return "unknown" if count is None else str(count)
