from __future__ import annotations

from typing import Any

import attrs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner_core import EngineSpec, Role
from planner_core.maths.fleet import BEST_SLACK, Fleet, Promise, size
from planner_core.maths.nearby import FINE, Ask, Nearby, look_nearby, share_missed
from planner_core.maths.shape import RequestShape
from planner_core.perf import BatchLoad

SPEC = EngineSpec(max_num_batched_tokens=8192, max_num_seqs=256, max_kv_tokens=400_000)
SHAPE = RequestShape(isl=1000, osl=200, isl_cv2=1.0, osl_cv2=1.0)
PROMISE = Promise(ttft_ms=500, itl_ms=30, quantile=0.99)
TIGHTER = attrs.evolve(PROMISE, ttft_ms=400, itl_ms=24)


def iteration(load: BatchLoad) -> Any:
    prompts = 2e-5 * load.prefill_tokens + 1e-9 * load.prefill_pairs
    return 0.01 + prompts + 1e-4 * load.num_decode + 1e-7 * load.decode_kv_tokens


FLEETS = {role: Fleet.of(role, iteration, SPEC, SHAPE) for role in Role}
VARIED = {
    (role, isl_cv2): Fleet.of(role, iteration, SPEC, attrs.evolve(SHAPE, isl_cv2=isl_cv2))
    for role in (Role.PREFILL, Role.AGG)
    for isl_cv2 in (0.5, 4.0)
}


def look_once(fleet: Fleet, rate_rps: float, engines: int, promise: Promise, tighter: Promise) -> Nearby:
    return look_nearby(fleet, engines, [Ask(rate_rps, promise, tighter)])[0]


@pytest.mark.parametrize("role", list(Role))
@given(st.integers(1, 3000), st.floats(0.01, 2.5))
def test_a_quick_look_grows_when_a_search_among_all_sizes_would(
    role: Role, engines: int, load: float
) -> None:
    fleet = FLEETS[role]
    rate_rps = load * engines * fleet.saturated_rps
    look = look_once(fleet, rate_rps, engines, PROMISE, TIGHTER)
    if size(fleet, PROMISE, rate_rps).engines > engines:
        assert look.needed > engines
    if look.needed > engines:
        assert size(fleet, PROMISE, rate_rps * (1 + 2 * FINE)).engines > engines


@pytest.mark.parametrize("role", list(Role))
@given(st.integers(1, 3000), st.floats(0.01, 1.2))
def test_a_quick_look_never_shrinks_below_what_keeps_the_tighter_promise(
    role: Role, engines: int, load: float
) -> None:
    fleet = FLEETS[role]
    rate_rps = load * engines * fleet.saturated_rps
    look = look_once(fleet, rate_rps, engines, PROMISE, TIGHTER)
    assert look.with_room >= min(engines, size(fleet, TIGHTER, rate_rps).engines)


def missed(fleet: Fleet, promise: Promise, rate_rps: float, engines: int) -> float:
    """Share of the requests that miss the TTFT or the ITL."""
    sizes = np.array([float(engines)])
    offer = fleet.offers(rate_rps / sizes, sizes)
    targets = ((offer.ttft, promise.ttft_ms), (offer.itl, promise.itl_ms))
    return sum(float(delay.beyond(ms / 1e3)[0]) for delay, ms in targets if delay is not None)


@pytest.mark.parametrize("role", [Role.PREFILL, Role.AGG])
@pytest.mark.parametrize("isl_cv2", [0.5, 4.0])
@given(st.integers(2, 300), st.floats(0.01, 0.9), st.sampled_from([0.9, 0.95, 0.99]))
def test_engines_are_given_up_only_for_a_fleet_that_keeps_the_promise_or_hardly_could(
    role: Role, isl_cv2: float, engines: int, load: float, quantile: float
) -> None:
    fleet = VARIED[role, isl_cv2]
    rate_rps = load * engines * fleet.saturated_rps
    promise, tighter = (attrs.evolve(p, itl_ms=2 * p.itl_ms, quantile=quantile) for p in (PROMISE, TIGHTER))
    left = look_once(fleet, rate_rps, engines, promise, tighter).with_room
    if left < engines:
        unmended = BEST_SLACK * missed(fleet, promise, rate_rps * (1 + 2 * FINE), 2 * left)
        assert missed(fleet, promise, rate_rps, left) <= max(1 - quantile, unmended) + 1e-3


def test_prompts_that_are_long_for_the_target_keep_engines_that_would_not_be_asked_for() -> None:
    # One prompt in five is six times as long as the others and takes 230 ms by itself.
    kinds = ((0.8, 1500.0, 0.0), (0.2, 9000.0, 0.0))
    fleet = Fleet.of(Role.AGG, iteration, SPEC, attrs.evolve(SHAPE, isl=3000, isl_mix=kinds))
    promise = Promise(ttft_ms=300, itl_ms=100, quantile=0.95)
    rate_rps = 6 * fleet.saturated_rps
    look = look_once(fleet, rate_rps, 16, promise, attrs.evolve(promise, ttft_ms=240, itl_ms=80))
    assert look.needed < look.with_room < 16
    assert missed(fleet, promise, rate_rps, look.with_room) <= 0.05
    assert missed(fleet, promise, rate_rps, look.needed) > 0.05


@pytest.mark.parametrize("role", list(Role))
@given(st.integers(1, 3000), st.floats(0.01, 1.2), st.floats(1, 1.5))
def test_a_quick_look_at_a_higher_rate_never_finds_fewer(
    role: Role, engines: int, load: float, more: float
) -> None:
    fleet = FLEETS[role]
    rate_rps = load * engines * fleet.saturated_rps
    one, other = (look_once(fleet, rate, engines, PROMISE, TIGHTER) for rate in (rate_rps, rate_rps * more))
    assert one.needed <= other.needed
    assert one.with_room <= other.with_room


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("engines", [1, 7, 400])
def test_what_the_present_engines_carry_is_where_they_begin_to_be_too_few(role: Role, engines: int) -> None:
    fleet = FLEETS[role]
    look = look_once(fleet, fleet.saturated_rps * engines / 2, engines, PROMISE, TIGHTER)
    assert size(fleet, PROMISE, look.most_rps).engines <= engines
    assert size(fleet, PROMISE, look.too_much_rps * 1.001).engines > engines


@pytest.mark.parametrize("role", list(Role))
@given(st.integers(1, 300), st.floats(0.01, 1.2), st.floats(1, 1.5))
def test_several_promises_are_looked_at_together_as_each_by_itself(
    role: Role, engines: int, load: float, more: float
) -> None:
    fleet = FLEETS[role]
    rate_rps = load * engines * fleet.saturated_rps
    rarely = tuple(attrs.evolve(each, quantile=0.8) for each in (PROMISE, TIGHTER))
    asks = [Ask(rate_rps, PROMISE, TIGHTER), Ask(rate_rps * more, *rarely)]
    assert look_nearby(fleet, engines, asks) == [look_once(fleet, ask[0], engines, *ask[1:]) for ask in asks]


@pytest.mark.parametrize("role", list(Role))
@given(st.integers(1, 3000), st.floats(0.01, 2.5))
def test_no_more_miss_than_are_promised_where_a_quick_look_finds_engines_enough(
    role: Role, engines: int, load: float
) -> None:
    fleet = FLEETS[role]
    rate_rps = load * engines * fleet.saturated_rps
    enough = look_once(fleet, rate_rps, engines, PROMISE, TIGHTER).needed
    sizes = [enough, max(enough / 4, 1), max(enough / 1000, 1)]
    shares = share_missed(fleet, [rate_rps / (1 + FINE)] * 3, sizes, PROMISE)
    assert all(0 <= share <= 1 for share in shares)
    assert shares[0] <= 2 * PROMISE.miss + 1e-9  # of each target, and of room
    if rate_rps > 2 * fleet.saturated_rps and enough > 1000:
        assert shares[2] == 1


@pytest.mark.parametrize("role", list(Role))
def test_of_a_fleet_of_which_the_formulas_can_say_nothing_all_requests_miss(role: Role) -> None:
    absurd = Fleet.of(role, iteration, SPEC, attrs.evolve(SHAPE, isl=1e15))
    assert share_missed(absurd, [1e6, 1e6], [1, 1e6], PROMISE)[0] == 1
