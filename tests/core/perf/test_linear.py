from __future__ import annotations

import math
from typing import Any

import attrs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner_core import ConfigError, FpmBatch, Role
from planner_core.perf import BatchLoad, Linear, LinearState
from planner_core.testing import check_perf_model, fpm_batches

OVERHEAD_S, PER_TOKEN_S, PER_REQUEST_S, PER_KV_S = 0.01, 4e-5, 1e-4, 1e-7
ROLES = list(Role)
PROBES = {
    Role.PREFILL: [(256.0, 0.0), (2000.0, 0.0), (8000.0, 0.0)],
    Role.DECODE: [(0.0, 4.0), (0.0, 64.0), (0.0, 200.0)],
    Role.AGG: [(0.0, 100.0), (500.0, 10.0), (4000.0, 150.0)],
}


def true_s(tokens: Any, requests: Any, context: float = 2000) -> Any:
    return OVERHEAD_S + PER_TOKEN_S * tokens + (PER_REQUEST_S + context * PER_KV_S) * requests


def passes(role: Role, num: int, seed: int = 0, noise: float = 0.0, slower: float = 1.0) -> FpmBatch:
    """Passes over the whole range of loads; ``noise`` is the relative spread of their duration."""
    dice = np.random.default_rng(seed)
    tokens = (
        np.round(np.exp(dice.uniform(np.log(100), np.log(8000), num))) if role.prefills else np.zeros(num)
    )
    requests = np.round(np.exp(dice.uniform(0, np.log(256), num))) if role.decodes else np.zeros(num)
    if role is Role.AGG:
        tokens *= dice.random(num) < 0.6
    context = dice.uniform(500, 4000, num)
    time_s = OVERHEAD_S + PER_TOKEN_S * tokens + PER_REQUEST_S * requests + PER_KV_S * requests * context
    return FpmBatch(
        worker_id=["w0"] * num,
        wall_time_s=slower * time_s * (1 + noise * dice.standard_normal(num)),
        num_prefill=np.ceil(tokens / 1000),
        prefill_tokens=tokens,
        num_decode=requests,
        decode_kv_tokens=requests * context,
    )


def rows(batch: FpmBatch, index: slice) -> FpmBatch:
    names = [field.name for field in attrs.fields(FpmBatch) if field.init]
    columns: Any = {name: getattr(batch, name)[index] for name in names}
    return FpmBatch(**columns)


def learn(*batches: FpmBatch, model: Linear | None = None) -> LinearState:
    model = model or Linear()
    state = model.init()
    for batch in batches:
        state = model.observe(state, batch)
    return state


def one_by_one(batch: FpmBatch, state: LinearState | None = None, at_once: int = 4) -> LinearState:
    state = Linear().init() if state is None else state
    for start in range(0, len(batch), at_once):
        state = Linear().observe(state, rows(batch, slice(start, start + at_once)))
    return state


def estimates_s(role: Role, state: LinearState) -> list[float]:
    got = []
    for tokens, requests in PROBES[role]:
        mean_length = tokens / max(math.ceil(tokens / 1000), 1)
        load = BatchLoad(
            prefill_tokens=tokens,
            prefill_pairs=tokens * mean_length / 2,
            num_decode=requests,
            decode_kv_tokens=2000 * requests,
        )
        estimate = Linear().iteration_s(state, load)
        assert estimate is not None
        got.append(float(estimate.mean_s))
    return got


def truth_s(role: Role) -> list[float]:
    return [true_s(tokens, requests) for tokens, requests in PROBES[role]]


@pytest.mark.parametrize("num_buckets", [1, 16])
def test_it_is_a_performance_model(num_buckets: int) -> None:
    check_perf_model(Linear(num_buckets=num_buckets))


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("seed", range(4))
def test_clean_passes_are_recovered_within_a_few_percent(role: Role, seed: int) -> None:
    assert estimates_s(role, one_by_one(passes(role, 200, seed))) == pytest.approx(truth_s(role), rel=0.04)


@pytest.mark.parametrize("role", ROLES)
def test_noisy_passes_are_seen_through(role: Role) -> None:
    assert estimates_s(role, one_by_one(passes(role, 400, noise=0.1))) == pytest.approx(
        truth_s(role), rel=0.1
    )


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("seed", range(4))
def test_a_pause_of_a_minute_among_64_passes_moves_nothing_much(role: Role, seed: int) -> None:
    clean = passes(role, 64, seed, noise=0.02)
    paused = clean.wall_time_s.copy()
    paused[seed * 16] = 60.0
    before, after = (estimates_s(role, learn(b)) for b in (clean, attrs.evolve(clean, wall_time_s=paused)))
    assert after == pytest.approx(before, rel=0.1)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("seed", range(4))
def test_cold_starts_in_one_of_twenty_passes_move_nothing_much(role: Role, seed: int) -> None:
    clean = passes(role, 200, seed, noise=0.02)
    cold = clean.wall_time_s * np.where(np.arange(200) % 20 == seed, 20.0, 1.0)
    before, after = (estimates_s(role, one_by_one(b)) for b in (clean, attrs.evolve(clean, wall_time_s=cold)))
    assert after == pytest.approx(before, rel=0.1)


@pytest.mark.parametrize("role", ROLES)
def test_passes_that_say_nothing_change_nothing(role: Role) -> None:
    state = learn(passes(role, 40))
    heartbeat, load = {"wall_time_s": 0.0}, {"prefill_tokens": 100.0, "num_decode": 3.0}
    nothing = [heartbeat, heartbeat | load, {"wall_time_s": 1.0}]
    for impossible in (float("nan"), float("inf"), -1.0, 1e300):
        nothing.append(load | {"wall_time_s": impossible})
        nothing.append(load | {"wall_time_s": 0.1, "decode_kv_tokens": impossible})
    for values in nothing:
        columns: Any = {name: np.array([value]) for name, value in values.items()}
        assert Linear().observe(state, FpmBatch(worker_id=["w0"], **columns)) == state


def test_one_pass_of_five_million_tokens_does_not_squeeze_the_buckets() -> None:
    ordinary = passes(Role.PREFILL, 500)
    giant = rows(passes(Role.PREFILL, 1), slice(0, 1))
    giant = attrs.evolve(giant, prefill_tokens=5e6, wall_time_s=OVERHEAD_S + PER_TOKEN_S * 5e6)
    without = one_by_one(ordinary)
    state = one_by_one(ordinary, Linear().observe(one_by_one(rows(ordinary, slice(0, 100))), giant))
    for kept in (without, state):
        tokens = kept.samples[1][kept.samples[1] < 1e5]
        covered, _ = np.histogram(np.log(tokens), bins=8, range=(np.log(100), np.log(8000)))
        assert (covered >= 3).all()
    assert estimates_s(Role.PREFILL, state) == pytest.approx(truth_s(Role.PREFILL), rel=0.05)


@settings(max_examples=30)
@given(st.sampled_from([8, 20, 64]), st.lists(fpm_batches(max_passes=20), max_size=12))
def test_it_never_keeps_more_samples_than_allowed(max_samples: int, batches: list[FpmBatch]) -> None:
    model = Linear(max_samples=max_samples)
    state = model.init()
    for batch in batches:
        state = model.observe(state, batch)
        assert state.samples.shape[1] <= max_samples
        assert state.pending.shape[1] <= max_samples


@given(
    st.lists(fpm_batches(max_passes=8), max_size=6),
    st.floats(0, 1e6),
    st.floats(0, 1e12),
    st.floats(0, 1e4),
    st.floats(0, 1e8),
)
def test_an_estimate_is_never_negative_and_more_work_never_takes_less_time(
    batches: list[FpmBatch], tokens: float, pairs: float, requests: float, kv_tokens: float
) -> None:
    state = learn(*batches)
    load = BatchLoad(
        prefill_tokens=tokens, prefill_pairs=pairs, num_decode=requests, decode_kv_tokens=kv_tokens
    )
    nothing, some = Linear().iteration_s(state, BatchLoad()), Linear().iteration_s(state, load)
    if some is not None and nothing is not None:
        assert 0 <= nothing.mean_s <= some.mean_s
        assert np.isfinite(some.mean_s)
        assert some.std_s >= 0


@pytest.mark.parametrize("role", ROLES)
def test_one_operating_point_alone_gives_sane_estimates_nearby(role: Role) -> None:
    tokens, requests = PROBES[role][1]
    same = FpmBatch(
        worker_id=["w0"] * 50,
        wall_time_s=np.full(50, true_s(tokens, requests)),
        num_prefill=math.ceil(tokens / 1000),
        prefill_tokens=tokens,
        num_decode=requests,
        decode_kv_tokens=2000.0 * requests,
    )
    low, there, high = estimates_s(role, one_by_one(same))
    assert there == pytest.approx(true_s(tokens, requests), rel=0.05)
    if role is not Role.AGG:
        assert there / 10 < low < there < high < 8 * there


@pytest.mark.parametrize("role", ROLES)
def test_an_engine_that_became_twice_as_slow_is_followed_within_a_minute(role: Role) -> None:
    state = one_by_one(passes(role, 400))
    slower = one_by_one(passes(role, 240, seed=9, slower=2.0), state, at_once=20)  # 12 ticks of 20 passes
    assert estimates_s(role, slower) == pytest.approx([2 * s for s in truth_s(role)], rel=0.1)


@pytest.mark.parametrize("probe", range(3))
@pytest.mark.parametrize("role", ROLES)
def test_an_engine_that_became_twice_as_slow_is_followed_where_it_works_though_it_works_nowhere_else(
    role: Role, probe: int
) -> None:
    dice = np.random.default_rng(1)
    state = one_by_one(passes(role, 400, noise=0.03))
    tokens, requests = PROBES[role][probe]
    for _ in range(12):  # a minute
        here = np.round(tokens * dice.normal(1, 0.1, 20)), np.round(requests * dice.normal(1, 0.1, 20))
        now = FpmBatch(
            worker_id=["w0"] * 20,
            wall_time_s=2 * true_s(*here) * dice.normal(1, 0.03, 20),
            num_prefill=np.ceil(here[0] / 1000),
            prefill_tokens=here[0],
            num_decode=here[1],
            decode_kv_tokens=2000 * here[1],
        )
        state = Linear().observe(state, now)
    assert estimates_s(role, state)[probe] == pytest.approx(2 * true_s(tokens, requests), rel=0.15)


@pytest.mark.parametrize("contexts", [0.0, 0.05])
@pytest.mark.parametrize(
    "costs",
    [(4.4e-3, 35e-6, 30e-9), (11e-3, 59e-6, 27e-9), (10e-3, 36e-6, 9e-9)],
    ids=["8B", "70B", "70B fast"],
)
def test_steady_passes_of_a_nearly_steady_load_say_what_twenty_times_the_batch_takes(
    costs: tuple[float, float, float], contexts: float
) -> None:
    overhead_s, per_request_s, per_kv_token_s = costs
    dice = np.random.default_rng(2)
    requests = dice.integers(32, 49, 200).astype(float)
    kv_tokens = requests * 1000 * (1 + contexts * dice.standard_normal(200))
    batch = FpmBatch(
        worker_id=["w0"] * 200,
        wall_time_s=overhead_s + per_request_s * requests + per_kv_token_s * kv_tokens,
        num_decode=requests,
        decode_kv_tokens=kv_tokens,
    )
    estimate = Linear().iteration_s(
        one_by_one(batch), BatchLoad(num_decode=800.0, decode_kv_tokens=800_000.0)
    )
    assert estimate is not None
    true = overhead_s + 800 * (per_request_s + 1000 * per_kv_token_s)
    assert float(estimate.mean_s) == pytest.approx(true, rel=0.06)


def test_it_is_not_ready_before_enough_passes() -> None:
    batch = passes(Role.DECODE, 5)
    assert Linear().iteration_s(learn(rows(batch, slice(0, 4))), BatchLoad(num_decode=1.0)) is None
    assert Linear().iteration_s(learn(batch), BatchLoad(num_decode=1.0)) is not None


@pytest.mark.parametrize(
    ("field", "value"), [("max_samples", 0), ("num_buckets", 15), ("num_buckets", 0), ("min_observations", 0)]
)
def test_impossible_settings_are_refused(field: str, value: int) -> None:
    with pytest.raises(ConfigError, match=rf"Linear\.{field} = {value}"):
        Linear(**{field: value})


@pytest.mark.parametrize("role", ROLES)
def test_noise_changes_nothing_that_is_known_and_a_slower_engine_does(role: Role) -> None:
    model, state, known = Linear(), one_by_one(passes(role, 400, seed=1, noise=0.05)), set()
    for seed in range(2, 42):
        state = one_by_one(passes(role, 64, seed, noise=0.05), state, at_once=64)
        known.add(model.knowledge(state))
    assert len(known) <= 8
    state = one_by_one(passes(role, 800, seed=50, noise=0.05, slower=1.2), state)
    assert estimates_s(role, state) == pytest.approx([1.2 * s for s in truth_s(role)], rel=0.06)
