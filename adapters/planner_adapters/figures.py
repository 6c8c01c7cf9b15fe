"""What one tick says in numbers, by name. What isn't known isn't there."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from planner_core import Decision, PlannerConfig, Role, TickInput
from planner_core.stages.schedule import LEARN_INTERVAL_S

Z_90 = 1.645
"""Standard deviations to each side within which 90 % of a normal distribution lie."""
OF_ROLE = (
    *("ready", "starting", "draining", "wanted", "floor"),
    *("capacity_rps", "kv_utilisation", "queued_prefill_tokens"),
)
OF_ALL = (
    *("gpus", "gpus_wanted", "gpu_budget"),
    *("observed_ttft_ms", "estimated_ttft_ms", "target_ttft_ms"),
    *("observed_itl_ms", "estimated_itl_ms", "target_itl_ms", "request_duration_s"),
    *("rate_rps", "forecast_rps", "forecast_low_rps", "forecast_high_rps"),
    *("isl", "osl", "forecast_isl", "forecast_osl"),
)
NAMES = (*(f"{role}.{name}" for role in Role for name in OF_ROLE), *OF_ALL)
PLACE = {name: place for place, name in enumerate(NAMES)}

_EACH_TICK = {"ready", "starting", "draining", "wanted", "floor", "gpus", "gpus_wanted", "gpu_budget"}
_FAST = {"estimated_ttft_ms", "estimated_itl_ms", "kv_utilisation", "queued_prefill_tokens"}
_PACE = np.array(
    [0 if n.rpartition(".")[2] in _EACH_TICK else 1 if n.rpartition(".")[2] in _FAST else 2 for n in NAMES]
)


def intervals_s(config: PlannerConfig) -> tuple[float, float]:
    """How often passes come, and how often traffic."""
    fast = LEARN_INTERVAL_S if config.load_loop is None else config.load_loop.interval_s
    return fast, fast if config.throughput_loop is None else config.throughput_loop.interval_s


def max_gaps_s(config: PlannerConfig, elapsed_s: float) -> npt.NDArray[np.float64]:
    """For each of ``NAMES``: for how long it may be unknown before its line breaks.

    What every tick knows breaks with one tick (of which the last was ``elapsed_s`` ago) that doesn't; what comes with a
    loop may be late by that loop's interval.
    """
    fast_s, slow_s = intervals_s(config)
    each_s = min(elapsed_s, 2.5 * fast_s) if config.load_loop is not None else min(elapsed_s, 2.5 * slow_s)
    gaps_s: npt.NDArray[np.float64] = np.array((each_s, 2.5 * fast_s, 2.5 * slow_s))[_PACE] + 1e-6
    return gaps_s


def figures(inputs: TickInput, decision: Decision) -> dict[str, float]:
    """The numbers that are known, by the names of ``NAMES``."""
    found = (
        *_of_all(inputs, decision),
        *(f for role in inputs.config.engines for f in _of_role(role, inputs, decision)),
    )
    return {name: float(value) for name, value in found if value is not None}


def _of_role(role: Role, inputs: TickInput, decision: Decision) -> Iterator[tuple[str, float | None]]:
    counts, why = inputs.workers.get(role), decision.explanations.get(role)
    if counts is not None:
        yield f"{role}.ready", counts.ready
        yield f"{role}.starting", len(counts.starting_ages_s)
        yield f"{role}.draining", counts.draining
    yield f"{role}.wanted", decision.replicas.get(role)
    yield f"{role}.floor", None if why is None else why.floor
    seen = decision.diagnostics.roles.get(role)
    if seen is not None:
        yield f"{role}.capacity_rps", seen.capacity_rps
        yield f"{role}.kv_utilisation", seen.kv_utilisation
        yield f"{role}.queued_prefill_tokens", seen.queued_prefill_tokens


def _of_all(inputs: TickInput, decision: Decision) -> Iterator[tuple[str, float | None]]:
    config, found = inputs.config, decision.diagnostics
    yield "gpus", gpus_in_use(inputs)
    if not set(config.engines) - set(decision.replicas):
        yield (
            "gpus_wanted",
            sum(spec.num_gpus * decision.replicas[role] for role, spec in config.engines.items()),
        )
    yield "gpu_budget", config.limits.max_gpus
    if inputs.observed is not None:
        yield "observed_ttft_ms", inputs.observed.ttft_ms
        yield "observed_itl_ms", inputs.observed.itl_ms
        yield "request_duration_s", inputs.observed.request_duration_s
    yield "estimated_ttft_ms", found.estimated_ttft_ms
    yield "estimated_itl_ms", found.estimated_itl_ms
    if config.target == "sla":
        yield "target_ttft_ms", config.sla.ttft_ms if any(role.prefills for role in config.engines) else None
        yield "target_itl_ms", config.sla.itl_ms if any(role.decodes for role in config.engines) else None
    if inputs.traffic is not None:
        traffic = inputs.traffic
        if traffic.num_requests is not None:
            yield "rate_rps", traffic.num_requests / traffic.duration_s
        yield "isl", traffic.isl
        yield "osl", traffic.osl
    predicted = found.predicted
    if predicted is not None:
        spread = Z_90 * predicted.rate_std_rps
        yield "forecast_rps", predicted.rate_rps
        yield "forecast_low_rps", max(0.0, predicted.rate_rps - spread)
        yield "forecast_high_rps", predicted.rate_rps + spread
        yield "forecast_isl", predicted.isl
        yield "forecast_osl", predicted.osl


def gpus_in_use(inputs: TickInput) -> float | None:
    """GPUs of the replicas that are ready, starting or draining; ``None`` if a role's replicas aren't known."""
    engines = inputs.config.engines
    if set(engines) - set(inputs.workers):
        return None
    held = ((engines[role].num_gpus, inputs.workers[role]) for role in engines)
    return float(sum(num * (each.ready + len(each.starting_ages_s) + each.draining) for num, each in held))
