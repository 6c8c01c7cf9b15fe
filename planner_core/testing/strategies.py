"""Hypothesis strategies: every valid value that a planner may meet, likely ones and hostile ones."""

from __future__ import annotations

from typing import Any, TypeVar

from hypothesis import strategies as st

from planner_core._tick import initial_state, tick
from planner_core.config import (
    EngineSpec,
    Limits,
    LoadScaling,
    PlannerConfig,
    QueueThresholds,
    ShellSettings,
    SlaTargets,
    Target,
    ThroughputScaling,
)
from planner_core.data.fpm import NUMBERS, ForwardPassMetrics, FpmBatch
from planner_core.data.observations import ObservedLatencies, TrafficObservation, WorkerCounts
from planner_core.data.roles import ROLES_OF_MODE, Role
from planner_core.data.state import PlannerState
from planner_core.perf import Linear
from planner_core.predictors import Constant, Ensemble
from planner_core.types import Decision, TickInput, TrafficForecast

T = TypeVar("T")

HOSTILE_IDS = (
    "",
    " ",
    "a\nb",
    "\x00",
    "<script>alert(1)</script>",
    "../../etc/passwd",
    '"}',
    "\u202e",
    "\ud800",
    "💥",
)
"""Names of engines that break what trusts them."""


def _positive(most: float) -> st.SearchStrategy[float]:
    return st.floats(min_value=1e-6, max_value=most, allow_subnormal=False)


def _default_or(strategy: st.SearchStrategy[T], default: T) -> st.SearchStrategy[T]:
    """The default as often as not: that is what runs out there, and it is quickly drawn."""
    return st.just(default) | strategy


def _maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


def worker_ids() -> st.SearchStrategy[str]:
    """Names of engines: mostly a few tame ones, so that they meet again; some hostile."""
    return (
        st.sampled_from([f"worker-{number}" for number in range(6)])
        | st.sampled_from(HOSTILE_IDS)
        | st.text()
    )


def worker_counts() -> st.SearchStrategy[WorkerCounts]:
    """Replicas of one role."""
    few = st.integers(0, 12)
    return st.builds(
        WorkerCounts,
        ready=few | st.integers(0, 10_000),
        expected=_maybe(few | st.integers(0, 10_000)),
        starting_ages_s=st.lists(st.floats(0, 1e5), max_size=8).map(tuple),
        draining=few,
    )


def traffic_observations() -> st.SearchStrategy[TrafficObservation]:
    """Traffic of one window: idle, known in part, or not at all."""
    tokens = _maybe(_positive(1e6))
    return st.builds(
        TrafficObservation,
        duration_s=st.sampled_from([5.0, 180.0]) | _positive(1e6),
        num_requests=_maybe(st.just(0.0) | st.floats(0, 1e6)),
        isl=tokens,
        osl=tokens,
        num_completed=_maybe(st.just(0.0) | st.floats(0, 1e6)),
        isl_std=tokens,
        osl_std=tokens,
        kv_hit_rate=_maybe(st.floats(0, 1)),
        accept_length=_maybe(_positive(16)),
    )


def observed_latencies() -> st.SearchStrategy[ObservedLatencies]:
    """Latencies that users saw."""
    some = _maybe(st.floats(0, 1e6))
    return st.builds(ObservedLatencies, ttft_ms=some, itl_ms=some, request_duration_s=some)


def traffic_forecasts() -> st.SearchStrategy[TrafficForecast]:
    """Forecasts of a user's own."""
    rates, tokens = st.floats(0, 1e4), _maybe(_positive(1e5))
    return st.builds(TrafficForecast, rate_rps=rates, rate_std_rps=rates, isl=tokens, osl=tokens)


@st.composite
def forward_pass_metrics(draw: st.DrawFn, role: Role | None = None) -> ForwardPassMetrics:
    """A pass of an engine of the role (``None``: of any): likely, idle, or with impossible numbers."""
    numbers = dict.fromkeys(NUMBERS, 0.0)
    if draw(st.booleans()):
        numbers["wall_time_s"] = draw(_positive(10))
        for prefix in ("", "queued_"):
            if role is None or role.prefills:
                num = numbers[f"{prefix}num_prefill"] = float(draw(st.integers(0, 20)))
                numbers[f"{prefix}prefill_tokens"] = num * draw(st.integers(1, 20_000))
            if role is None or role.decodes:
                num = numbers[f"{prefix}num_decode"] = float(draw(st.integers(0, 300)))
                numbers[f"{prefix}decode_kv_tokens"] = num * draw(st.integers(1, 20_000))
    elif draw(st.booleans()):
        numbers |= draw(
            st.dictionaries(st.sampled_from(NUMBERS), st.floats() | st.floats(0, 1e9), max_size=6)
        )
    return ForwardPassMetrics(worker_id=draw(worker_ids()), dp_rank=draw(st.integers(0, 3)), **numbers)


def fpm_batches(role: Role | None = None, max_passes: int = 12) -> st.SearchStrategy[FpmBatch]:
    """Passes of engines of the role (of any, if ``None``), none to ``max_passes`` of them."""
    return st.lists(forward_pass_metrics(role), max_size=max_passes).map(FpmBatch.of)


def engine_specs() -> st.SearchStrategy[EngineSpec]:
    """Engines, known well or hardly."""

    def build(min_replicas: int, spread: int | None, **rest: Any) -> EngineSpec:
        most = None if spread is None else min_replicas + spread
        return EngineSpec(min_replicas=min_replicas, max_replicas=most, **rest)

    any_spec = st.builds(
        build,
        min_replicas=st.integers(0, 4),
        spread=_maybe(st.integers(0, 50)),
        num_gpus=st.sampled_from([1, 2, 4, 8, 16]),
        max_num_batched_tokens=_maybe(st.integers(1, 65_536)),
        max_num_seqs=_maybe(st.integers(1, 1024)),
        context_length=_maybe(st.integers(1, 1_000_000)),
        max_kv_tokens=_maybe(st.integers(1, 10_000_000)),
        startup_s=st.floats(0, 3600),
        cost_per_hour=_maybe(st.floats(0, 1000)),
    )
    known = EngineSpec(
        max_num_batched_tokens=8192, max_num_seqs=256, context_length=32_768, max_kv_tokens=200_000
    )
    return _default_or(any_spec, known)


def _limits() -> st.SearchStrategy[Limits]:
    def build(min_gpus: int | None, spread: int | None, **rest: Any) -> Limits:
        return Limits(
            min_gpus=min_gpus, max_gpus=None if spread is None else (min_gpus or 0) + spread, **rest
        )

    step = _maybe(st.integers(1, 20))
    any_limits = st.builds(
        build,
        min_gpus=_maybe(st.integers(0, 32)),
        spread=_maybe(st.integers(0, 256)),
        max_up_replicas=step,
        max_down_replicas=step,
    )
    return _default_or(any_limits, Limits())


def _thresholds() -> st.SearchStrategy[QueueThresholds]:
    def build(prefill: float, decode: float, prefill_share: float, decode_share: float) -> QueueThresholds:
        return QueueThresholds(
            prefill_scale_up_queue_tokens=prefill,
            prefill_scale_down_queue_tokens=prefill * prefill_share,
            decode_scale_up_kv_rate=decode,
            decode_scale_down_kv_rate=decode * decode_share,
        )

    share = st.floats(0, 0.9)
    return st.builds(
        build, prefill=_positive(1e6), decode=_positive(1.0), prefill_share=share, decode_share=share
    )


@st.composite
def configs(draw: st.DrawFn, mode: str | None = None, target: Target | None = None) -> PlannerConfig:
    """Valid configurations, of any mode and target unless one is given."""
    mode = mode or draw(st.sampled_from(sorted(ROLES_OF_MODE)))
    targets: tuple[Target, ...] = ("throughput", "latency", "load", "sla")
    chosen = draw(st.sampled_from(targets)) if target is None else target
    fast = st.builds(
        LoadScaling,
        interval_s=st.sampled_from([1.0, 5.0, 20.0]),
        down_sensitivity=st.sampled_from([0.0, 80.0, 100.0]) | st.floats(0, 100),
        step=st.sampled_from(["sized", "unit"]),
        metric_samples=st.integers(1, 20),
        drain_s=_positive(600),
        stabilisation_s=st.floats(0, 600),
        idle_s=st.floats(0, 600),
        patience_s=_positive(3600),
    )
    slow = st.builds(
        ThroughputScaling,
        interval_s=st.sampled_from([30.0, 180.0]),
        predictor=st.builds(Constant, memory=st.integers(1, 64)) | st.just(Ensemble()),
        max_step_replicas=st.integers(1, 20),
        quantile=st.floats(0.5, 0.999),
    )
    loops = draw(st.sampled_from(["both", "load", "throughput"]))
    return PlannerConfig(
        engines={role: draw(engine_specs()) for role in ROLES_OF_MODE[mode]},
        target=chosen,
        sla=draw(
            st.builds(
                SlaTargets,
                ttft_ms=_positive(60_000),
                itl_ms=_positive(1000),
                quantile=_maybe(st.sampled_from([0.5, 0.95, 0.99])),
            )
        ),
        thresholds=draw(_thresholds()) if chosen == "load" else draw(_maybe(_thresholds())),
        load=None if loops == "throughput" else draw(_default_or(fast, LoadScaling())),
        throughput=None if loops == "load" else draw(_default_or(slow, ThroughputScaling())),
        limits=draw(_limits()),
        perf=draw(st.sampled_from([Linear(), Linear(max_samples=8, num_buckets=4, min_observations=1)])),
        speculative_nextn=draw(_maybe(st.integers(1, 8))),
        shell=draw(_default_or(st.builds(ShellSettings, model_name=st.text(min_size=1)), ShellSettings())),
    )


@st.composite
def tick_inputs(draw: st.DrawFn, config: PlannerConfig | None = None, max_ticks_before: int = 3) -> TickInput:
    """Valid inputs: a new state or one that some ticks have passed through, any part of the rest missing.

    Mostly time goes on; sometimes it stands still, leaps, or goes back.
    """
    config = draw(configs()) if config is None else config
    now_s = draw(st.sampled_from([0.0, 1.7e9]) | st.floats(-1e6, 1e10))
    state = initial_state(config, now_s)
    inputs = draw(_observations(config, state, now_s))
    for _ in range(draw(st.integers(0, max_ticks_before))):
        inputs = draw(_observations(config, tick(inputs).state, inputs.now_s))
    return inputs


@st.composite
def _observations(draw: st.DrawFn, config: PlannerConfig, state: PlannerState, before_s: float) -> TickInput:
    step_s = draw(st.sampled_from([5.0, 0.0, -30.0, 180.0, 86_400.0]) | st.floats(0, 600))
    fpm, workers = {}, {}
    for role in config.engines:
        if draw(st.booleans()):
            fpm[role] = draw(fpm_batches(role))
        if draw(st.booleans()):
            workers[role] = draw(worker_counts())
    return TickInput(
        config=config,
        state=state,
        now_s=before_s + step_s,
        workers=workers,
        traffic=draw(_maybe(traffic_observations())),
        fpm=fpm,
        forecast=draw(_maybe(traffic_forecasts())),
        observed=draw(_maybe(observed_latencies())),
    )


def decisions(config: PlannerConfig | None = None) -> st.SearchStrategy[Decision]:
    """What ticks decide."""
    return tick_inputs(config).map(tick)


def states(config: PlannerConfig | None = None) -> st.SearchStrategy[PlannerState]:
    """States that ticks have passed through."""
    return decisions(config).map(lambda decision: decision.state)
