from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner_core import Role
from planner_core.maths.shape import RequestShape
from planner_core.maths.work import Work
from planner_core.stages.routing import LEAST_WORK, dealt, learn

SHAPE = RequestShape(isl=1000, osl=200, isl_cv2=0.5, osl_cv2=0.5)
TICK_S = 5.0
PROMPTS = st.lists(st.floats(1, 1e7), min_size=1, max_size=50)


def work(role: Role, tokens: np.ndarray) -> Work[np.ndarray]:
    """Engines with so many tokens each, in the cache or, of prefill engines, waiting."""
    nothing = np.zeros_like(tokens)
    if role.decodes:
        return Work(nothing, nothing, nothing, tokens / SHAPE.context, tokens)
    return Work(tokens, tokens / SHAPE.isl, nothing, nothing, nothing)


def watched(role: Role, engines: int, requests: float, *, balanced: bool, seconds: float = 600) -> float:
    """What is known after watching engines with so many requests each, dealt by chance or to the least loaded."""
    dice = np.random.default_rng(1)
    uneven = 1.0 if balanced else 0.0
    for _ in range(int(seconds / TICK_S)):
        length = SHAPE.context if role.decodes else SHAPE.isl
        tokens = np.zeros(engines)
        for tokens_of_one in dice.gamma(2.0, length / 2, dice.poisson(requests * engines)):
            tokens[tokens.argmin() if balanced else dice.integers(engines)] += tokens_of_one
        uneven = learn(uneven, role, work(role, tokens), SHAPE, TICK_S)
    return uneven


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("engines", [4, 20])
def test_even_work_tells_of_a_router_that_balances(role: Role, engines: int) -> None:
    assert dealt(watched(role, engines, 6, balanced=True)) == 0


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("engines", [4, 20])
def test_work_that_varies_as_by_chance_tells_of_one_that_does_not(role: Role, engines: int) -> None:
    assert dealt(watched(role, engines, 6, balanced=False)) >= 0.7


@pytest.mark.parametrize("role", list(Role))
def test_two_engines_or_hardly_any_work_tell_nothing(role: Role) -> None:
    length = SHAPE.context if role.decodes else SHAPE.isl
    few = np.array([0.0, 9.0]) * length
    little = np.array([0.0, 0.0, 3 * LEAST_WORK - 0.1]) * length
    for tokens in (few, little):
        assert learn(0.7, role, work(role, tokens), SHAPE, TICK_S) == 0.7


@given(PROMPTS, st.sampled_from(list(Role)), st.floats(0, 1), st.floats(0, 1e6))
def test_what_is_known_stays_between_even_and_by_chance(
    tokens: list[float], role: Role, uneven: float, elapsed_s: float
) -> None:
    after = learn(uneven, role, work(role, np.array(tokens)), SHAPE, elapsed_s)
    assert 0 <= after <= 1
    assert 0 <= dealt(after) <= 1
