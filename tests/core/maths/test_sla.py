from __future__ import annotations

from typing import Any

import attrs
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from planner_core import EngineSpec, Role
from planner_core.maths.fleet import MOST_SLACK, fleet_latency
from planner_core.maths.shape import prompt_s
from planner_core.maths.sla import Capacity, Curve, RequestShape, capacity, curve, prefill_s
from planner_core.perf import BatchLoad

SPEC = EngineSpec(max_num_batched_tokens=8192, max_num_seqs=256, max_kv_tokens=400_000)
SHAPE = RequestShape(isl=1000, osl=200)
ROLES = list(Role)

shapes = st.builds(
    RequestShape,
    isl=st.floats(1, 100_000),
    osl=st.floats(1, 10_000),
    isl_cv2=st.floats(0, 4),
    kv_hit_rate=st.floats(0, 0.95),
    accept_length=st.floats(1, 5),
)
targets_ms = st.floats(0.1, 1e5)
quantiles = st.sampled_from([None, 0.5, 0.95, 0.99])


def iteration(load: BatchLoad) -> Any:
    """An engine of 10 ms, 20 µs per prompt token, 1 ns per attention pair, 0.1 ms per request, 0.1 µs per KV token."""
    prompts = 2e-5 * load.prefill_tokens + 1e-9 * load.prefill_pairs
    return 0.01 + prompts + 1e-4 * load.num_decode + 1e-7 * load.decode_kv_tokens


def curve_of(
    role: Role, shape: RequestShape = SHAPE, spec: EngineSpec = SPEC, quantile: float | None = None
) -> Curve:
    return curve(role, iteration, spec, shape, quantile)


def carries(role: Role, ttft_ms: float = 500, itl_ms: float = 30, **more: Any) -> Capacity:
    return capacity(curve_of(role, **more), ttft_ms, itl_ms)


@given(st.floats(0, 1e9), st.floats(1, 65_536))
def test_a_prompt_takes_its_full_chunks_and_the_rest(tokens: float, chunk: float) -> None:
    got = prefill_s(iteration, tokens, SHAPE, chunk)
    full, rest = divmod(tokens, chunk)
    work_s = tokens * (2e-5 + 1e-9 * SHAPE.pairs_per_token)
    assert got == pytest.approx(work_s + 0.01 * (full + (rest > 0)), rel=1e-6)


def test_prompts_of_many_engines_are_computed_at_once() -> None:
    tokens = np.array([0.0, 1.0, 8192.0, 8193.0, 1e8])
    together = prefill_s(iteration, tokens, SHAPE, 8192.0)
    assert together.tolist() == [pytest.approx(float(prefill_s(iteration, t, SHAPE, 8192.0))) for t in tokens]


def test_a_mix_of_lengths_costs_more_pairs_than_equal_ones() -> None:
    dice = np.random.default_rng(3)
    lengths = dice.exponential(1000, 200_000)  # cv² = 1
    shape = RequestShape(isl=float(lengths.mean()), isl_cv2=1.0)
    assert shape.pairs_per_token == pytest.approx(float((lengths**2 / 2).sum() / lengths.sum()), rel=0.02)


def test_cached_tokens_are_attended_to_and_not_computed() -> None:
    shape = RequestShape(isl=1000, isl_cv2=0.0, kv_hit_rate=0.6)
    assert shape.fresh_isl == pytest.approx(400)
    assert shape.fresh_isl * shape.pairs_per_token == pytest.approx(400 * 600 + 400**2 / 2)


def test_a_decode_engine_carries_the_batch_within_the_itl_by_littles_law() -> None:
    got = carries(Role.DECODE, itl_ms=30)
    per_request_ms = 0.1 + 1e-4 * SHAPE.context
    pass_ms = 10 + got.batch * per_request_ms
    seen = got.batch + pass_ms / 10  # larger batches are seen more often: by Var(n)/n = 1/(1 - elasticity)
    assert seen == pytest.approx((30 - 10) / per_request_ms, rel=0.01)
    assert got.rps == pytest.approx(got.batch / (200 * pass_ms / 1e3), rel=0.01)
    assert got.binding == "itl"


@pytest.mark.parametrize(
    ("changes", "binding", "most"),
    [({"max_kv_tokens": 22_000}, "kv", 20), ({"max_num_seqs": 7}, "max_num_seqs", 7)],
)
def test_memory_and_seats_bound_a_batch_with_room_for_its_fluctuations(
    changes: dict[str, int], binding: str, most: int
) -> None:
    spec = attrs.evolve(SPEC, **changes)
    mean, p95, p99 = (carries(Role.DECODE, itl_ms=1e6, spec=spec, quantile=q) for q in (None, 0.95, 0.99))
    assert mean.binding == p95.binding == p99.binding == binding
    assert most / 4 < p99.batch < p95.batch < mean.batch < most


def test_the_context_of_a_running_request_is_longer_where_outputs_vary() -> None:
    # Long outputs are under way more often than short ones: E[o²]/(2·E[o]).
    dice = np.random.default_rng(3)
    outputs = dice.exponential(200, 100_000)
    shape = RequestShape(isl=1000, osl=float(outputs.mean()), osl_cv2=1.0)
    assert shape.context == pytest.approx(1000 + float((outputs**2).sum() / outputs.sum() / 2), rel=0.02)


def test_prompts_and_decodes_of_an_aggregated_engine_fit_into_a_pass() -> None:
    got = carries(
        Role.AGG,
        1e6,
        1e6,
        spec=attrs.evolve(SPEC, max_num_batched_tokens=100),
        shape=RequestShape(isl=100, osl=10),
    )
    assert got.binding == "max_num_batched_tokens"
    assert got.batch + got.batch / 9 * 100 <= 100


def test_a_prefill_engine_keeps_headroom_for_the_queue() -> None:
    lone_s = float(prefill_s(iteration, 1000.0, SHAPE, 8192.0))
    got = carries(Role.PREFILL, ttft_ms=500)
    assert got.rps is not None
    assert got.rps < 0.99 * curve_of(Role.PREFILL).saturated_rps  # type: ignore[operator]
    assert got.rps > 0.5 / lone_s


@pytest.mark.parametrize("role", ROLES)
@given(shapes, targets_ms, targets_ms, st.floats(0.01, 1), quantiles)
def test_a_tighter_sla_never_carries_more(
    role: Role, shape: RequestShape, ttft_ms: float, itl_ms: float, factor: float, quantile: float | None
) -> None:
    engine = curve_of(role, shape, quantile=quantile)
    loose, tight = (capacity(engine, f * ttft_ms, f * itl_ms) for f in (1.0, factor))
    # Where an idle engine misses a target nearly as often as may be, less load wouldn't help.
    most = None if quantile is None else 1 - (1 - quantile) / 4
    idle = fleet_latency(role, iteration, SPEC, shape, 1e-6, 1, most)
    pairs = ((idle.ttft_ms, factor * ttft_ms), (idle.itl_ms, factor * itl_ms))
    assume(all(latency_ms is None or 1.25 * latency_ms[0] <= target for latency_ms, target in pairs))
    assert tight.batch <= loose.batch
    assert (tight.rps or 0) <= (loose.rps or 0) * (1 + 1e-9)


@pytest.mark.parametrize("role", ROLES)
@given(shapes, targets_ms, targets_ms)
def test_a_promise_to_more_requests_never_carries_more(
    role: Role, shape: RequestShape, ttft_ms: float, itl_ms: float
) -> None:
    loose, strict = (capacity(curve_of(role, shape, quantile=q), ttft_ms, itl_ms) for q in (0.8, 0.99))
    if strict.unreachable is None:
        assert (strict.rps or 0) <= (loose.rps or 0) * (1 + 1e-9)


@pytest.mark.parametrize("role", ROLES)
@given(shapes, targets_ms, targets_ms, st.floats(1, 10))
def test_longer_requests_never_carry_more(
    role: Role, shape: RequestShape, ttft_ms: float, itl_ms: float, factor: float
) -> None:
    longer = attrs.evolve(shape, osl=shape.osl * factor)  # type: ignore[operator]
    one, other = (capacity(curve_of(role, s), ttft_ms, itl_ms) for s in (shape, longer))
    if role is not Role.AGG:  # where longer answers leave more of each pass to the decodes
        assert (other.rps or 0) <= (one.rps or 0) * (1 + 1e-9)


@pytest.mark.parametrize("role", ROLES)
@given(shapes, targets_ms, targets_ms, quantiles)
def test_a_capacity_is_positive_and_within_the_engines_limits(
    role: Role, shape: RequestShape, ttft_ms: float, itl_ms: float, quantile: float | None
) -> None:
    got = carries(role, ttft_ms, itl_ms, shape=shape, quantile=quantile)
    assert got.batch >= 1
    assert got.rps is not None
    assert got.rps > 0
    if role.decodes:
        assert got.batch <= 256
        assert got.batch == 1 or got.batch * shape.context <= 400_000 * (1 + 1e-9)


@pytest.mark.parametrize("role", ROLES)
@given(shapes, targets_ms, targets_ms)
def test_an_sla_is_unreachable_exactly_if_a_lone_request_misses_it(
    role: Role, shape: RequestShape, ttft_ms: float, itl_ms: float
) -> None:
    got = capacity(curve_of(role, shape), ttft_ms, itl_ms)
    lone_ms = {}
    if role.prefills:
        lengths = shape.fresh_lengths
        own_s = prompt_s(iteration, lengths.tokens, shape, 8192.0)
        lone_ms["ttft"] = float(lengths.share @ own_s) * 1e3, ttft_ms
    if role.decodes:
        lone_ms["itl"] = (10.1 + 1e-4 * shape.context) / shape.accept_length, itl_ms
    unsure = 1.5 if role is Role.AGG else 1 + 1e-6  # beside a decode, a prompt takes a little longer
    if any(lone > unsure * target for lone, target in lone_ms.values()):
        assert got.unreachable is not None
        assert got.best_ms is not None
        assert got.best_ms > lone_ms[got.unreachable][1]
    elif all(unsure * lone < target for lone, target in lone_ms.values()):
        assert got.unreachable is None


def test_an_engine_that_misses_the_sla_alone_is_sized_a_little_above_its_best() -> None:
    got = carries(Role.DECODE, itl_ms=1)
    assert got.unreachable == "itl"
    assert got.itl_ms is not None
    assert got.best_ms is not None
    assert got.itl_ms <= 1.01 * MOST_SLACK * got.best_ms


@pytest.mark.parametrize("role", [Role.DECODE, Role.AGG])
def test_without_an_output_length_there_is_a_batch_and_no_rate(role: Role) -> None:
    got = carries(role, shape=RequestShape(isl=1000))
    assert got.rps is None
    assert got.batch > 1


def test_accepted_drafts_carry_more() -> None:
    one, other = (carries(Role.DECODE, shape=attrs.evolve(SHAPE, accept_length=a)) for a in (1.0, 2.0))
    assert (other.rps or 0) > 1.9 * (one.rps or 0)
