from __future__ import annotations

from typing import Any

import attrs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner_core import (
    ConfigError,
    EngineSpec,
    FpmBatch,
    PlannerConfig,
    Role,
    ThroughputReason,
    TrafficObservation,
    WorkerCounts,
    initial_state,
)
from planner_core.codec import dumps, loads
from planner_core.data.state import PlannerState
from planner_core.maths.sla import RequestShape, capacity, curve
from planner_core.perf import BatchLoad, Blended, Coefficients, Linear, Profiled, Roofline
from planner_core.testing import check_perf_model, fpm_batches

ROLES = list(Role)
FEW = Coefficients(overhead_s=0.01, s_per_prefill_token=4e-5, s_per_decode_request=1e-4)


def dirty(batch: FpmBatch, seed: int) -> FpmBatch:
    """As from a real engine: its first 5 % of passes compile, 5 to 20 times as slow; 2 % are paused, 100 times."""
    dice = np.random.default_rng(seed)
    factor = np.ones(len(batch))
    num_cold = len(batch) // 20
    factor[:num_cold] = dice.uniform(5, 20, num_cold)
    factor[dice.choice(np.arange(num_cold, len(batch)), len(batch) // 50, replace=False)] = 100
    return attrs.evolve(batch, wall_time_s=batch.wall_time_s * factor)


def decode_capacity(model: Any, state: Any, max_kv_tokens: int | None = 2_000_000) -> Any:
    """Of an engine, for 2 000 tokens in and 200 out, at 40 ms."""

    def iteration(load: BatchLoad) -> Any:
        return model.iteration_s(state, load).mean_s

    spec = EngineSpec(max_kv_tokens=max_kv_tokens, max_num_seqs=1024)
    of_engine = curve(Role.DECODE, iteration, spec, RequestShape(isl=2000, osl=200), None)
    return capacity(of_engine, 500, 40)


# What it is


@pytest.mark.parametrize("prior", [FEW, Roofline.of(gpu="h100", num_parameters=8e9)])
def test_it_is_a_performance_model(prior: Any) -> None:
    check_perf_model(Blended(prior=prior))


def test_it_is_a_performance_model_with_a_profile(bench: Any) -> None:
    check_perf_model(Blended(prior=bench.profile(knee=10)))


def test_before_any_pass_it_says_what_the_prior_says(bench: Any) -> None:
    prior = bench.profile()
    load = BatchLoad(prefill_tokens=500.0, prefill_pairs=125e3, num_decode=20.0, decode_kv_tokens=30e3)
    model = Blended(prior=prior)
    blended, alone = model.iteration_s(model.init(), load), prior.iteration_s((), load)
    assert (blended.mean_s, blended.std_s) == pytest.approx((alone.mean_s, alone.std_s))


def test_model_and_state_come_back_from_json(bench: Any) -> None:
    config = PlannerConfig(engines={Role.AGG: EngineSpec()}, perf=Blended(prior=bench.profile()))
    assert loads(dumps(config), PlannerConfig) == config
    state = initial_state(config, 0.0, fpm={Role.AGG: bench.passes(bench.profile(2), Role.AGG, 80)})
    text = dumps(state)
    assert loads(text, PlannerState) == state
    assert dumps(loads(text, PlannerState)) == text


@pytest.mark.parametrize(("field", "value"), [("prior", Linear()), ("num_buckets", 15), ("max_samples", 0)])
def test_what_cannot_be_is_refused(field: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"Blended\.{field}"):
        Blended(**{"prior": FEW, field: value})


# What it learns


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_a_profile_that_is_wrong_by_a_factor_of_two_is_corrected_within_32_passes(
    bench: Any, role: Role, factor: float
) -> None:
    """A decode engine makes so many in a second, a prefill engine in ten."""
    truth, model = bench.profile(knee=10), Blended(prior=bench.profile(factor, knee=10))
    for seed in range(3):
        state = bench.learn(model, bench.passes(truth, role, 32, seed, noise=0.03))
        assert bench.error(model, state, bench.passes(truth, role, 200, seed + 10)) < 0.05


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_a_few_passes_with_prompts_among_many_without_correct_the_prompts_too(
    bench: Any, factor: float
) -> None:
    truth, wrong = bench.profile(), Blended(prior=bench.profile(factor=factor))
    seen = bench.passes(truth, Role.AGG, 2000, noise=0.01)
    with_prompts, without = (np.flatnonzero(kind) for kind in (seen.num_prefill > 0, seen.num_prefill == 0))
    order = np.insert(without[:720], np.arange(25, 720, 50), with_prompts[:14])  # one in fifty
    state = bench.learn(wrong, bench.rows(seen, order), at_once=10)
    assert bench.error(wrong, state, bench.rows(seen, with_prompts[100:])) < 0.1
    assert bench.error(wrong, state, bench.rows(seen, without[720:])) < 0.05


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("factor", [0.1, 10.0])
def test_even_a_prior_that_is_wrong_by_a_factor_of_ten_is_corrected_within_a_minute(
    bench: Any, role: Role, factor: float
) -> None:
    truth, model = bench.profile(knee=10), Blended(prior=bench.profile(factor, knee=10))
    state = bench.learn(model, bench.passes(truth, role, 240, noise=0.03), at_once=20)  # a tick each 5 s
    assert bench.error(model, state, bench.passes(truth, role, 200, 10)) < 0.05


@pytest.mark.parametrize("role", ROLES)
def test_a_prior_of_the_wrong_shape_is_corrected_too(bench: Any, role: Role) -> None:
    truth, model = bench.profile(knee=20, extra_ms=10), Blended(prior=FEW)
    state = bench.learn(model, bench.passes(truth, role, 200, noise=0.03))
    assert bench.error(model, state, bench.passes(truth, role, 200, 10)) < 0.06


@pytest.mark.parametrize("role", ROLES)
def test_outliers_and_cold_starts_bend_nothing(bench: Any, role: Role) -> None:
    truth = bench.profile(knee=10)
    for factor in (0.5, 1.0, 2.0):
        model = Blended(prior=bench.profile(factor, knee=10))
        for seed in range(3):
            state = bench.learn(model, dirty(bench.passes(truth, role, 200, seed, noise=0.03), seed))
            assert bench.error(model, state, bench.passes(truth, role, 200, seed + 10)) < 0.05


@pytest.mark.parametrize("role", ROLES)
def test_on_every_real_profile_the_error_is_below_five_percent_after_200_passes(
    bench: Any, real_profiles: dict[str, Profiled], role: Role
) -> None:
    for name, truth in real_profiles.items():
        wrong = attrs.evolve(
            truth, prefill_ttft_ms=2 * truth.prefill_ttft_ms, decode_itl_ms=truth.decode_itl_ms / 2
        )
        for prior in (truth, wrong):
            model = Blended(prior=prior)
            state = bench.learn(model, dirty(bench.passes(truth, role, 200, noise=0.03), 0))
            assert bench.error(model, state, bench.passes(truth, role, 200, 10)) < 0.05, name


@pytest.mark.parametrize("role", ROLES)
def test_cold_starts_of_a_whole_fleet_do_not_collapse_the_capacity(bench: Any, role: Role) -> None:
    """Forty engines start at once, and all that is seen of them for three ticks is their compilation."""
    truth = bench.profile()
    model = Blended(prior=truth)
    state, dice = model.init(), np.random.default_rng(1)
    before = decode_capacity(model, state).rps
    for seed in range(3):
        cold = bench.passes(truth, role, 200, seed)
        state = model.observe(
            state, attrs.evolve(cold, wall_time_s=cold.wall_time_s * dice.uniform(5, 20, 200))
        )
        assert decode_capacity(model, state).rps == pytest.approx(before, rel=0.01)


@pytest.mark.parametrize("factor", [2.0, 8.0])
@pytest.mark.parametrize("role", ROLES)
def test_an_engine_that_really_became_slower_is_followed_within_a_minute(
    bench: Any, role: Role, factor: float
) -> None:
    truth = bench.profile()
    model = Blended(prior=truth)
    state = bench.learn(model, bench.passes(truth, role, 400), at_once=20)
    state = bench.learn(model, bench.passes(truth, role, 240, 1, slower=factor), state, at_once=20)
    test = bench.passes(truth, role, 200, 10, slower=factor)
    assert bench.error(model, state, test) < 0.05


def test_one_half_of_a_prior_may_be_wrong_by_more_than_outliers_are(bench: Any) -> None:
    """Passes with prompts and without are judged apart; else prompts that are always rejected would teach nothing."""
    truth = bench.profile()
    wrong = attrs.evolve(truth, prefill_ttft_ms=truth.prefill_ttft_ms / 10)
    model = Blended(prior=wrong)
    state = bench.learn(model, bench.passes(truth, Role.AGG, 240), at_once=20)
    assert bench.error(model, state, bench.passes(truth, Role.AGG, 200, 10)) < 0.06


@pytest.mark.parametrize("role", ROLES)
def test_times_that_cannot_be_true_change_nothing(bench: Any, role: Role) -> None:
    truth = bench.profile()
    model = Blended(prior=truth)
    clean = bench.passes(truth, role, 64, noise=0.03)
    broken = bench.passes(truth, role, 5, 7)
    broken = attrs.evolve(broken, wall_time_s=[np.nan, np.inf, -1.0, 0.0, -np.inf])
    expected = bench.learn(model, clean)
    assert model.observe(expected, broken) == expected


def test_capacity_is_not_bounded_by_the_largest_kv_ever_seen(bench: Any) -> None:
    truth = bench.profile()
    model = Blended(prior=bench.profile(1.5))
    small = bench.rows(
        bench.passes(truth, Role.DECODE, 2000), bench.passes(truth, Role.DECODE, 2000).decode_kv_tokens < 2e4
    )
    state = bench.learn(model, bench.rows(small, slice(0, 200)))
    assert decode_capacity(model, state).batch == pytest.approx(decode_capacity(truth, ()).batch, rel=0.1)
    assert decode_capacity(model, state, max_kv_tokens=60_000).binding == "kv"


def test_cached_prompt_tokens_are_not_counted_as_computed(bench: Any) -> None:
    """Scheduled tokens exclude what the cache served; that only adds to what the new ones attend to."""
    truth, model = bench.profile(), Blended(prior=bench.profile(2))
    fresh = bench.passes(truth, Role.PREFILL, 100)
    load = BatchLoad.of(attrs.evolve(fresh, prefill_kv_tokens=3 * fresh.prefill_tokens))
    cached = attrs.evolve(
        fresh,
        prefill_kv_tokens=3 * fresh.prefill_tokens,
        wall_time_s=truth.iteration_s((), load).mean_s,
    )
    state = bench.learn(model, cached)
    assert bench.error(model, state, bench.passes(truth, Role.PREFILL, 100, 10)) < 0.05


def test_one_operating_point_keeps_the_shape_of_the_prior(bench: Any) -> None:
    truth, model = bench.profile(knee=10), Blended(prior=bench.profile(1.6, knee=10))
    load = BatchLoad(num_decode=40.0, decode_kv_tokens=80_000.0)
    same = FpmBatch(
        worker_id=["w0"] * 100,
        wall_time_s=np.full(100, truth.iteration_s((), load).mean_s),
        num_decode=40.0,
        decode_kv_tokens=80_000.0,
    )
    state = bench.learn(model, same)
    assert bench.error(model, state, bench.passes(truth, Role.DECODE, 200)) < 0.02


# What it promises


@settings(max_examples=30)
@given(st.sampled_from([1, 8, 64]), st.lists(fpm_batches(max_passes=20), max_size=12))
def test_it_never_keeps_more_samples_than_allowed(max_samples: int, batches: list[FpmBatch]) -> None:
    model = Blended(prior=FEW, max_samples=max_samples)
    state = model.init()
    for batch in batches:
        state = model.observe(state, batch)
        assert state.samples.shape[1] <= max_samples
        assert state.pending.shape[1] <= max_samples


@given(
    st.lists(fpm_batches(max_passes=8), max_size=6),
    st.floats(1, 1e6),
    st.floats(0, 1e12),
    st.floats(1, 1e4),
    st.floats(0, 1e8),
    st.floats(1, 4),
)
def test_an_estimate_is_never_negative_and_more_work_never_takes_less_time(
    batches: list[FpmBatch], tokens: float, pairs: float, requests: float, kv_tokens: float, more: float
) -> None:
    model = Blended(prior=FEW)
    state = bench_state(model, batches)
    work = {
        "prefill_tokens": tokens,
        "prefill_pairs": pairs,
        "num_decode": requests,
        "decode_kv_tokens": kv_tokens,
    }
    base = model.iteration_s(state, BatchLoad(**work))
    assert 0 <= base.mean_s < np.inf
    assert base.std_s >= 0
    for name in work:
        grown = model.iteration_s(state, BatchLoad(**work | {name: more * work[name]}))
        assert grown.mean_s >= base.mean_s * (1 - 1e-9)


def bench_state(model: Blended, batches: list[FpmBatch]) -> Any:
    state = model.init()
    for batch in batches:
        state = model.observe(state, batch)
    return state


def test_with_a_data_sheet_the_sla_sizes_a_fleet_on_day_one(lab: Any) -> None:
    """No pass was ever seen; the slow loop plans for the traffic all the same."""
    prior = Roofline.of(gpu="h100", num_parameters=8e9)
    config = lab.config(perf=Blended(prior=prior), throughput=lab.slow(interval_s=60.0))
    traffic = TrafficObservation(duration_s=60.0, num_requests=60 * 40, isl=3000, osl=150)
    workers = {role: WorkerCounts(ready=1) for role in config.engines}
    decision = lab.once(config, now_s=60.0, warm=False, traffic=traffic, workers=workers)
    assert decision.diagnostics.throughput_reason is ThroughputReason.SET_LOWER_BOUND
    assert decision.replicas[Role.PREFILL] > 2
