from __future__ import annotations

from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner_core import EngineSpec, Role
from planner_core.maths.fleet import Fleet, Promise, size
from planner_core.maths.nearby import FINE, look_nearby
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


@pytest.mark.parametrize("role", list(Role))
@given(st.integers(1, 3000), st.floats(0.01, 2.5))
def test_a_quick_look_grows_when_a_search_among_all_sizes_would(
    role: Role, engines: int, load: float
) -> None:
    fleet = FLEETS[role]
    rate_rps = load * engines * fleet.saturated_rps
    look = look_nearby(fleet, rate_rps, engines, PROMISE, TIGHTER)
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
    look = look_nearby(fleet, rate_rps, engines, PROMISE, TIGHTER)
    assert look.with_room >= min(engines, size(fleet, TIGHTER, rate_rps).engines)


@pytest.mark.parametrize("role", list(Role))
@given(st.integers(1, 3000), st.floats(0.01, 1.2), st.floats(1, 1.5))
def test_a_quick_look_at_a_higher_rate_never_finds_fewer(
    role: Role, engines: int, load: float, more: float
) -> None:
    fleet = FLEETS[role]
    rate_rps = load * engines * fleet.saturated_rps
    one, other = (look_nearby(fleet, rate, engines, PROMISE, TIGHTER) for rate in (rate_rps, rate_rps * more))
    assert one.needed <= other.needed
    assert one.with_room <= other.with_room


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("engines", [1, 7, 400])
def test_what_the_present_engines_carry_is_where_they_begin_to_be_too_few(role: Role, engines: int) -> None:
    fleet = FLEETS[role]
    look = look_nearby(fleet, fleet.saturated_rps * engines / 2, engines, PROMISE, TIGHTER)
    assert size(fleet, PROMISE, look.most_rps).engines <= engines
    assert size(fleet, PROMISE, look.too_much_rps * 1.001).engines > engines
