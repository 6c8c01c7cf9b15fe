"""How batches fill and empty between steady states."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner_core import EngineSpec, Role
from planner_core.maths.batch_fleet import BatchFleet
from planner_core.maths.shape import RequestShape
from planner_core.maths.transient import batch_after, steady_rps
from planner_core.perf import BatchLoad

SPEC = EngineSpec(max_num_batched_tokens=8192, max_num_seqs=256, max_kv_tokens=400_000)
SHAPE = RequestShape(isl=1000, osl=200, isl_cv2=1.0, osl_cv2=1.0)
ROLES = [Role.DECODE, Role.AGG]
BATCHES, LOADS, SECONDS = st.floats(0, 600), st.floats(0, 3), st.floats(0.01, 1e6)


def iteration(load: BatchLoad) -> Any:
    prompts = 2e-5 * load.prefill_tokens + 1e-9 * load.prefill_pairs
    return 0.01 + prompts + 1e-4 * load.num_decode + 1e-7 * load.decode_kv_tokens


FLEETS = {role: BatchFleet.of(role, iteration, SPEC, SHAPE) for role in ROLES}


def after(fleet: BatchFleet, batch: float, load: float, seconds: float) -> float:
    rate_rps = np.array([load * fleet.saturated_rps])
    return float(batch_after(fleet, np.array([batch]), rate_rps, seconds)[0])


@pytest.mark.parametrize("role", ROLES)
@given(BATCHES, LOADS, SECONDS)
def test_no_request_comes_from_nowhere_and_none_leaves_faster_than_engines_decode(
    role: Role, batch: float, load: float, seconds: float
) -> None:
    fleet = FLEETS[role]
    came, most_left = load * fleet.saturated_rps * seconds, fleet.saturated_rps * seconds
    now = after(fleet, batch, load, seconds)
    close = 1e-9 * (batch + came)
    assert max(batch + came - most_left, 0.0) - close <= now <= batch + came + close


@pytest.mark.parametrize("role", ROLES)
@given(BATCHES, st.floats(0, 0.99), SECONDS)
def test_a_batch_nears_its_steady_state_and_never_passes_it(
    role: Role, batch: float, load: float, seconds: float
) -> None:
    fleet = FLEETS[role]
    steady = float(fleet.steady(np.array([load * fleet.saturated_rps])).batch[0])
    now = after(fleet, batch, load, seconds)
    close = 1e-6 * (batch + steady + 1)
    assert min(batch, steady) - close <= now <= max(batch, steady) + close
    assert after(fleet, batch, load, 1e9) == pytest.approx(steady, rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("role", ROLES)
@given(st.floats(0, 0.99))
def test_the_rate_of_a_steady_batch_is_the_rate_that_keeps_it(role: Role, load: float) -> None:
    fleet = FLEETS[role]
    rate_rps = np.array([load * fleet.saturated_rps])
    assert steady_rps(fleet, fleet.steady(rate_rps).batch) == pytest.approx(rate_rps, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("role", ROLES)
@given(BATCHES, LOADS, SECONDS, st.floats(0, 100))
def test_more_in_flight_before_is_more_after(
    role: Role, batch: float, load: float, seconds: float, more: float
) -> None:
    fleet = FLEETS[role]
    now = after(fleet, batch, load, seconds)
    assert now <= after(fleet, batch + more, load, seconds) * (1 + 1e-9) + 1e-9
