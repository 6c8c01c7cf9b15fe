from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner_core.maths.in_turn import one_by_one, pool_of

ENGINES = st.floats(1, 1e5)


def test_one_engine_is_dealt_prompts_by_chance_and_one_of_many_regularly() -> None:
    per_pass = np.array([0.1, 0.5, 0.9])
    assert one_by_one(np.ones(3), per_pass)[0] == pytest.approx(np.exp(-per_pass))
    assert one_by_one(np.full(3, 1e6), per_pass)[0] == pytest.approx(1 - per_pass, abs=1e-3)


def test_prompts_come_to_an_engine_as_often_as_dealing_them_shows() -> None:
    dice, engines, per_pass = np.random.default_rng(0), 5, 0.6
    dealt = np.cumsum(dice.poisson(engines * per_pass, 200_000))
    turns = dealt // engines  # how often the first engine's turn has come
    none = np.mean(np.diff(turns) == 0)
    assert one_by_one(np.array([5.0]), np.array([per_pass]))[0] == pytest.approx(none, abs=0.005)


@given(ENGINES, st.floats(1e-6, 50))
def test_more_prompts_leave_fewer_passes_without(engines: float, per_pass: float) -> None:
    none, slope = one_by_one(np.full(2, engines), np.array([per_pass, per_pass * 1.01]))
    assert 0 <= none[1] <= none[0] <= 1
    least, most = slope[::-1] * 0.01 * per_pass
    assert least * 0.99 - 1e-12 <= none[0] - none[1] <= most * 1.01 + 1e-12


@given(ENGINES, st.floats(0, 1))
def test_engines_that_are_dealt_to_in_turn_share_the_luck_of_less_than_two(
    engines: float, dealt: float
) -> None:
    none, some, all_of_them = (float(pool_of(np.array([engines]), share)[0]) for share in (0, dealt, 1))
    assert none == pytest.approx(engines)
    assert 1 - 1e-9 <= all_of_them <= some * (1 + 1e-9) <= none * (1 + 2e-9)
    assert all_of_them < 2
