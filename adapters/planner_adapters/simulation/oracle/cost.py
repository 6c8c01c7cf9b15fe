"""What a request costs at least, in seconds of an engine: the first half of the proof.

Let an engine's passes be *p*, each with a duration s(p) and, of the requests that keep the SLA, T(p) prefill
tokens, a(p) pairs of prefill attention, n(p) requests that decode and k(p) tokens that these have in the cache.
Decoding a request with m = output − 1 further tokens within its ITL takes Σ s(p) ≤ itl × m over its m passes, since
they lie between its first and its last token. So for any μ ≥ 0, summed over all passes and over the requests that
keep the SLA::

    Σ s(p)  ≥  Σ s(p) (1 + μ n(p))  −  Σ μ itl m

If prices fulfil s(p) (1 + μ n) ≥ α T + β a + γ n + κ k for *every* pass that the engine can make, then::

    Σ s(p)  ≥  Σ over requests of  α T + β a + (γ − μ itl) m + κ Σ contexts

whose summands are the requests' costs. A pass of the simulated engine takes at least its decode part, plus
attention, plus the slope of the dense curve for each token, plus what prefill costs a pass whatever its tokens. So
α is the smallest slope and the least share of the latter (for an engine that only prefills: the least time per
token of a pass within the TTFT), β the time per pair, and γ the least of s (1/n + μ) − κ k / n over all batches up
to ``max_num_seqs`` and all knots of the timing in k, between which it is linear. Requests that miss the SLA only
make passes longer. A token that comes out of a computation of the whole context, after a preemption, costs at least
α per token of that; where this is less than γ + κ k, it is counted instead. Any μ and κ give a valid bound; the
best ones found are taken. (μ is the price of latency: at the best one, a token costs what it costs in the largest
batch within the ITL.)
"""

from __future__ import annotations

import numpy as np

from planner_adapters.simulation.model import EngineModel
from planner_adapters.simulation.results import Floats, Ints
from planner_adapters.simulation.timing import PassTimer
from planner_adapters.simulation.workload import Workload
from planner_core import Role, SlaTargets


def request_cost_s(workload: Workload, role: Role, engine: EngineModel, sla: SlaTargets) -> Floats:
    """Seconds of an engine that each request takes at least, if it keeps the SLA; 0 for one that none can hold."""
    timer = PassTimer(engine.timing)
    longest = engine.longest_request_tokens
    room = longest - workload.input_tokens
    outputs = np.minimum(workload.output_tokens, np.maximum(room, 1))
    cost_s = np.zeros(len(workload))
    if role is not Role.DECODE:
        hits = 0 if workload.prefix_hit_tokens is None else workload.prefix_hit_tokens
        cached = np.minimum(hits, workload.input_tokens - 1)
        tokens = workload.input_tokens - cached
        pairs = tokens * (cached + tokens / 2)
        cost_s += (
            _prefill_price_s(timer, role, engine, sla) * tokens + engine.timing.attention_s_per_pair * pairs
        )
    if role is not Role.PREFILL:
        cost_s += _decode_cost_s(timer, engine, sla, workload.input_tokens, outputs - 1)
    cost_s[room < 1] = 0.0
    return cost_s


def _prefill_price_s(timer: PassTimer, role: Role, engine: EngineModel, sla: SlaTargets) -> float:
    if role is not Role.PREFILL:
        of_two = timer.pass_s(2, 0.0, 0, 0) - timer.pass_s(1, 0.0, 0, 0)
        overhead_s = timer.pass_s(1, 0.0, 1, 1) - timer.pass_s(0, 0.0, 1, 1) - of_two
        return _least_slope_s(engine) + max(overhead_s, 0.0) / engine.max_num_batched_tokens
    tokens = np.arange(1, engine.max_num_batched_tokens + 1)
    seconds = np.array([timer.pass_s(number, 0.0, 0, 0) for number in tokens.tolist()])
    in_time = seconds <= sla.ttft_ms / 1e3
    return float(np.min(seconds[in_time] / tokens[in_time])) if in_time.any() else 0.0


def _least_slope_s(engine: EngineModel) -> float:
    starts, _, slopes = engine.timing.dense.lines()
    return min(s for at, s in zip(starts, slopes, strict=True) if at < engine.max_num_batched_tokens)


def _decode_cost_s(
    timer: PassTimer, engine: EngineModel, sla: SlaTargets, inputs: Ints, further: Ints
) -> Floats:
    """(γ − μ itl) m + κ Σ contexts, with the μ and κ for which the sum over all requests is highest."""
    from scipy.optimize import minimize

    contexts = further * inputs + further * (further - 1) / 2
    sizes, kv, seconds = _batches(timer, engine)
    most_per_token = float(np.min(seconds / kv))  # beyond, a pass would cost less than nothing
    itl_s = sla.itl_ms / 1e3
    computed_s = _least_slope_s(engine) * inputs

    def cost_s(point: Floats) -> Floats:
        latency_price, per_token_s = float(np.exp(point[0])), most_per_token / (1 + float(np.exp(-point[1])))
        per_request_s = float(np.min(seconds * (1 / sizes + latency_price) - per_token_s * kv / sizes))
        decoded_s = per_request_s * further + per_token_s * contexts
        computed_is_less = computed_s < per_request_s + per_token_s * inputs
        gross_s = np.where(computed_is_less, computed_s * further, decoded_s)
        net_s: Floats = np.maximum(gross_s - latency_price * itl_s * further, 0.0)
        return net_s

    begun = [np.array([mu, kappa]) for mu in (-12.0, -7.0, -3.0) for kappa in (-3.0, 0.0, 3.0)]
    best = max(begun, key=lambda point: cost_s(point).sum())
    found = minimize(lambda point: -cost_s(point).sum(), best, method="Nelder-Mead", options={"maxiter": 200})
    return cost_s(found.x)


def _batches(timer: PassTimer, engine: EngineModel) -> tuple[Floats, Floats, Floats]:
    """(requests, KV tokens, seconds) of decode passes: every number of requests, at each knot of the timing."""
    most_kv = float(engine.max_kv_tokens)
    rows: list[tuple[float, float, float]] = []
    for number in range(1, min(engine.max_num_seqs, engine.max_kv_tokens) + 1):
        since = float(number)
        while since < most_kv:
            base_s, per_token_s, until = timer.decode_line(number, since)  # type: ignore[arg-type]
            until = min(until, most_kv)
            rows += [(number, kv, base_s + per_token_s * kv) for kv in (since, until)]
            since = until
    sizes, kv_tokens, seconds = np.array(rows).T
    return sizes, kv_tokens, seconds
