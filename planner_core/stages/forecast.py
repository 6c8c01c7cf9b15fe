"""Traffic series → demand over the horizon.

Windows of any length add up to one value per interval of the slow loop. What wasn't measured teaches nothing:
a lost scrape is no silence, and a silent window says nothing about lengths.
"""

from __future__ import annotations

import math
from typing import Any

import attrs
import numpy as np

from planner_core.config import PlannerConfig, ThroughputScaling
from planner_core.data.fpm import LARGEST
from planner_core.data.observations import TrafficObservation
from planner_core.data.state import DemandState, LengthSum, Requests, TrafficSum
from planner_core.predictors import Forecast, Predictor
from planner_core.types import TrafficForecast

RATE_MEMORY_S = 20.0
"""Time constant of the recent rate: long enough to see through Poisson noise, short beside a start."""
SURELY, LEAP = 2.0, 6.0
"""Standard deviations: from the first on, more arrivals than expected count more than by their time, and a window with
so many as the second tells a new rate by itself. So a burst is known in one window, not in ten. How much arrivals vary
by chance is learned: those that clump vary far more than Poisson."""
DISPERSION_MEMORY_S = 300.0
SHAPE_MEMORY_S = 120.0
"""Time constant of the recent lengths."""
CENSORED = 1.2
"""Engines that generate this many times the tokens of what completes are working on longer outputs than those seen."""
CLEARLY = 0.03
"""Requests are taken to be as before until a figure of theirs differs by this much: means over a few hundred requests
do so by chance, and no fleet has to be sized anew for that."""
MOST_MISSED = 64
"""Intervals of an outage that are filled in; after a longer one, a season has to be found again."""
MAX_KV_HIT_RATE = 0.95
"""A hit rate is trusted up to here; a prompt always leaves something to compute."""


def start(config: PlannerConfig) -> DemandState:
    """Nothing seen."""
    slow = config.throughput_loop
    if slow is None:
        return DemandState()
    return DemandState(rate=slow.predictor.init(), isl=slow.predictor.init(), osl=slow.predictor.init())


def learn(
    demand: DemandState,
    config: PlannerConfig,
    traffic: TrafficObservation | None,
    now_s: float,
    generated_tps: float | None = None,
) -> DemandState:
    """The demand after one more window, in which engines generated ``generated_tps`` tokens per second."""
    if traffic is None:
        return demand
    demand = _recent(demand, traffic, now_s)
    num = traffic.num_requests
    kept = math.exp(-traffic.duration_s / SHAPE_MEMORY_S)
    completed, generated = traffic.num_completed, generated_tps
    if completed is None or generated is None:
        completed, generated = demand.completed, demand.generated
    else:
        completed = demand.completed * kept + completed
        generated = demand.generated * kept + min(generated * traffic.duration_s, LARGEST)
    hit, accept = traffic.kv_hit_rate, traffic.accept_length
    most = math.inf if config.speculative_nextn is None else config.speculative_nextn + 1.0
    demand = attrs.evolve(
        demand,
        pending=_add(demand.pending, traffic),
        inputs=_sum(demand.inputs, num, traffic.isl, traffic.isl_std, kept),
        outputs=_sum(
            demand.outputs,
            num if traffic.num_completed is None else traffic.num_completed,
            traffic.osl,
            traffic.osl_std,
            kept,
        ),
        completed=completed,
        generated=generated,
        kv_hit_rate=demand.kv_hit_rate if hit is None else min(hit, MAX_KV_HIT_RATE),
        accept_length=demand.accept_length if accept is None else min(max(accept, 1.0), most),
    )
    return attrs.evolve(demand, requests=_requests(demand))


def _recent(demand: DemandState, traffic: TrafficObservation, now_s: float) -> DemandState:
    """The demand with the smoothed rates of now, and what they vary by chance.

    Chance is told from the difference of neighbouring windows: what a ramp adds from one to the next is little.
    """
    num, duration_s = traffic.num_requests, traffic.duration_s
    if num is None:
        return demand
    rps, recent_rps, dispersion = num / duration_s, demand.recent_rps, demand.dispersion
    fade = -math.expm1(-duration_s / RATE_MEMORY_S)
    since_s = math.inf if demand.recent_at_s is None else now_s - demand.recent_at_s
    if recent_rps is None or since_s > 2 * duration_s + RATE_MEMORY_S:
        fade = 1.0
    else:
        excess = (rps - recent_rps) * duration_s / math.sqrt(dispersion * max(recent_rps * duration_s, 1.0))
        fade = max(fade, min((excess - SURELY) / (LEAP - SURELY), 1.0))
        if demand.last_rps is not None:
            last = demand.last_rps * duration_s
            lesson = min((num - last) / max(num + last, 1.0) * (num - last), LARGEST) - dispersion
            dispersion = max(dispersion - lesson * math.expm1(-duration_s / DISPERSION_MEMORY_S), 1.0)
    recent_rps = _faded(recent_rps, rps, fade)
    if not num and recent_rps * RATE_MEMORY_S < 0.5:
        recent_rps = 0.0  # it would fade without end: what is left is no request
    recent_tps = demand.recent_tps
    if traffic.isl is not None or not num:
        recent_tps = _faded(recent_tps, rps * (traffic.isl or 0.0), fade)
    return attrs.evolve(
        demand,
        recent_rps=recent_rps,
        recent_tps=recent_tps,
        recent_at_s=now_s,
        last_rps=rps,
        dispersion=dispersion,
    )


def _requests(demand: DemandState) -> Requests:
    """What requests are like now, or were taken to be like before where that is nearly the same."""
    seen = Requests(
        isl=demand.inputs.mean,
        osl=expected_osl(demand),
        isl_cv2=demand.inputs.cv2,
        osl_cv2=demand.outputs.cv2,
        kv_hit_rate=demand.kv_hit_rate or 0.0,
        accept_length=demand.accept_length or 1.0,
    )
    pairs = zip(_figures(demand.requests), _figures(seen), strict=True)
    same = all(
        (a is None) == (b is None) and abs((a or 0.0) - (b or 0.0)) <= CLEARLY * (b or 0.0) for a, b in pairs
    )
    return demand.requests if same else seen


def _figures(requests: Requests) -> tuple[float | None, ...]:
    """What the work of requests grows with, in proportion."""
    second = (None if cv2 is None else 1 + cv2 for cv2 in (requests.isl_cv2, requests.osl_cv2))
    return (requests.isl, requests.osl, *second, 1 - requests.kv_hit_rate, requests.accept_length)


def learn_interval(demand: DemandState, slow: ThroughputScaling, now_s: float) -> DemandState:
    """The demand once the forecasters have learned from what was gathered over the slow loop's interval.

    For intervals in which nothing was measured, the rate's forecaster is fed its own forecast: so a season keeps its
    phase, and no silence is made up.
    """
    pending = demand.pending
    if pending.duration_s == 0:
        return demand
    observe = _observer(slow.predictor)
    rate = demand.rate
    for _ in range(_intervals_missed(demand, slow, now_s)):
        expected = _at(_forecast(slow.predictor, rate, 1), 0)
        rate = observe(rate, expected)
    isl = pending.input_tokens / pending.isl_requests if pending.isl_requests else None
    osl = pending.output_tokens / pending.osl_requests if pending.osl_requests else None
    return attrs.evolve(
        demand,
        pending=TrafficSum(),
        learned_at_s=now_s,
        rate=observe(rate, pending.num_requests / pending.duration_s),
        isl=observe(demand.isl, isl),
        osl=observe(demand.osl, osl),
    )


def _intervals_missed(demand: DemandState, slow: ThroughputScaling, now_s: float) -> int:
    """Whole intervals between the last lesson and the window that is learned now, of which nothing is known."""
    if demand.learned_at_s is None:
        return 0
    unknown_s = now_s - demand.learned_at_s - max(demand.pending.duration_s, slow.interval_s)
    return min(max(0, round(unknown_s / slow.interval_s)), MOST_MISSED)


def predict(demand: DemandState, slow: ThroughputScaling, startup_s: float) -> TrafficForecast | None:
    """The highest demand until the replicas of the decision after this one could be ready.

    A replica that is ordered in one interval's time is ready ``startup_s`` later, so this decision has to cover
    startup and interval. While the predictor isn't ready, what arrives now is taken to go on; ``None`` where that isn't
    known either. ISL and OSL are ``None`` while unknown.
    """
    steps = math.ceil((startup_s + slow.interval_s) / slow.interval_s)
    rate = _forecast(slow.predictor, demand.rate, steps)
    if rate is None:
        if demand.recent_rps is None:
            return None
        rate = Forecast(mean=np.full(steps, demand.recent_rps), std=np.zeros(steps))
    peak = int(np.argmax(rate.mean + slow.z * rate.std))  # the step that needs most, with its headroom
    return TrafficForecast(
        rate_rps=float(rate.mean[peak]),
        rate_std_rps=float(rate.std[peak]),
        isl=_at(_forecast(slow.predictor, demand.isl, steps), peak) or demand.inputs.mean,
        osl=expected_osl(demand, _at(_forecast(slow.predictor, demand.osl, steps), peak)),
    )


def _observer(predictor: Predictor[Any]) -> Any:
    def observe(state: Any, value: float | None) -> Any:
        state = predictor.init() if state is None else state
        return state if value is None else predictor.observe(state, value)

    return observe


def _forecast(predictor: Predictor[Any], state: Any, steps: int) -> Forecast | None:
    return None if state is None else predictor.forecast(state, steps)


def _at(forecast: Forecast | None, step: int) -> float | None:
    return None if forecast is None else float(forecast.mean[step])


def _faded(old: float | None, new: float, fade: float) -> float:
    """The old value, of which this part has faded into the new one."""
    return new if old is None else old + (new - old) * fade


def expected_osl(demand: DemandState, forecast: float | None = None) -> float | None:
    """Mean output tokens: as forecast or as seen, unless engines generate far more than what completes.

    Of requests that began not long ago, the short ones complete first, so after a start and in a backlog the outputs
    seen are too short. All generated tokens over all completed requests, the running ones' tokens included, are the
    mean of exponential lengths that are seen only in part (the maximum of the likelihood of censored times; Epstein and
    Sobel 1953).
    """
    seen = forecast or demand.outputs.mean
    if seen is None or demand.completed < 1:
        return seen
    whole = demand.generated / demand.completed
    return whole if whole > CENSORED * seen else seen


def _sum(
    total: LengthSum, num: float | None, mean: float | None, std: float | None, kept: float
) -> LengthSum:
    """The sum after the requests of one more window; those from before count ``kept`` times."""
    if mean is None:
        return total
    num = max(num or 0.0, 1.0)
    squares = total.squares
    if std is not None or squares is not None:
        before = total.tokens * (total.mean or 0.0) if squares is None else squares
        variance = mean * mean * (total.cv2 or 0.0) if std is None else std * std
        squares = before * kept + num * (mean * mean + variance)
    return LengthSum(
        num_requests=total.num_requests * kept + num, tokens=total.tokens * kept + num * mean, squares=squares
    )


def _add(total: TrafficSum, traffic: TrafficObservation) -> TrafficSum:
    num = traffic.num_requests
    if num is None:
        return total
    has_isl, has_osl = traffic.isl is not None, traffic.osl is not None
    # Output lengths are those of requests that finished, also in windows in which none arrived.
    osl_requests = max(num, 1.0) if traffic.num_completed is None else traffic.num_completed
    return TrafficSum(
        duration_s=total.duration_s + traffic.duration_s,
        num_requests=total.num_requests + num,
        isl_requests=total.isl_requests + (num if has_isl else 0),
        input_tokens=total.input_tokens + (num * traffic.isl if traffic.isl is not None else 0),
        osl_requests=total.osl_requests + (osl_requests if has_osl else 0),
        output_tokens=total.output_tokens + (osl_requests * traffic.osl if traffic.osl is not None else 0),
    )
