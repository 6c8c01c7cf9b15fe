from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner_core.maths.delays import Delay, GammaWait, UniformWait

times_s = st.floats(0, 20)


def tail(wait: GammaWait | UniformWait, t_s: float) -> float:
    return float(np.asarray(wait.beyond(np.array([[t_s]]))).ravel()[0])


@given(st.floats(0.01, 10), times_s)
def test_a_gamma_wait_with_the_variance_of_an_exponential_is_one(mean_s: float, t_s: float) -> None:
    assert tail(GammaWait(0.0, mean_s, mean_s**2), t_s) == pytest.approx(np.exp(-t_s / mean_s), abs=1e-9)


@given(st.floats(0.01, 10), st.floats(0, 10), times_s)
def test_a_wait_below_its_least_never_happens(mean_s: float, least_s: float, t_s: float) -> None:
    wait = GammaWait(least_s, mean_s, mean_s**2)
    assert tail(wait, least_s * 0.99) == pytest.approx(1.0, abs=1e-6)
    assert tail(wait, least_s + t_s) == pytest.approx(np.exp(-t_s / mean_s), abs=1e-6)


def test_a_uniform_wait_and_an_exponential_one_add_up() -> None:
    dice = np.random.default_rng(2)
    sample = dice.uniform(1.0, 3.0, 400_000) + dice.exponential(0.7, 400_000)
    wait = UniformWait(1.0, 3.0, 0.7)
    assert wait.mean_s == pytest.approx(float(sample.mean()), rel=0.01)
    for t_s in (0.5, 1.2, 2.5, 3.0, 4.0, 6.0):
        assert tail(wait, t_s) == pytest.approx(float(np.mean(sample > t_s)), abs=0.005)


def test_without_more_a_uniform_wait_is_uniform() -> None:
    assert [tail(UniformWait(1.0, 3.0, None), t) for t in (0.0, 1.0, 2.5, 3.0, 9.0)] == [1, 1, 0.25, 0, 0]


@given(st.floats(0.05, 0.95), st.floats(0.02, 0.98))
def test_a_quantile_is_where_the_tail_is_what_is_left(waiting: float, quantile: float) -> None:
    """M/M/1: a share ρ of the requests waits for an exponential time (Kleinrock, Queueing Systems I, section 3.2)."""
    nothing = np.zeros(1)
    delay = Delay(
        share=np.ones(1),
        own_s=nothing,
        low_s=nothing,
        high_s=nothing,
        waits=((np.array([[waiting]]), GammaWait(0.0, 1 / (1 - waiting), (1 - waiting) ** -2)),),
    )
    exact = max(0.0, np.log(waiting / (1 - quantile)) / (1 - waiting))
    assert float(delay.quantile_s(quantile)[0]) == pytest.approx(exact, abs=1e-6)
    assert float(delay.mean_s[0]) == pytest.approx(waiting / (1 - waiting))


def test_classes_are_weighed_by_their_share() -> None:
    own = np.array([1.0, 3.0])
    delay = Delay(share=np.array([0.75, 0.25]), own_s=own, low_s=own, high_s=own, waits=())
    assert delay.mean_s.tolist() == [1.5]
    assert [float(delay.beyond(t)[0]) for t in (0.5, 2.0, 4.0)] == [1.0, 0.25, 0.0]
    assert float(delay.quantile_s(0.95)[0]) == pytest.approx(3.0)
