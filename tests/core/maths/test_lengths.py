from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner_core.maths.lengths import Lengths


@given(st.floats(1, 1e6), st.none() | st.floats(0, 9))
def test_classes_have_the_mean_of_all(mean: float, cv2: float | None) -> None:
    lengths = Lengths.of(mean, cv2)
    assert lengths.share.sum() == pytest.approx(1)
    assert float(lengths.share @ lengths.tokens) == pytest.approx(mean)
    assert (np.diff(lengths.tokens) > 0).all()
    assert (lengths.low <= lengths.tokens).all()
    assert (lengths.tokens <= lengths.high).all()


@pytest.mark.parametrize("cv2", [0.25, 1.0, 4.0])
def test_classes_are_those_of_a_log_normal_sample(cv2: float) -> None:
    sigma = np.sqrt(np.log1p(cv2))
    sample = np.sort(np.random.default_rng(5).lognormal(-sigma * sigma / 2, sigma, 400_000))
    lengths = Lengths.of(1.0, cv2)
    ends = np.rint(np.cumsum(lengths.share) * len(sample)).astype(int)
    means = [float(part.mean()) for part in np.split(sample, ends[:-1])]
    assert lengths.tokens == pytest.approx(means, rel=0.03)


@given(st.floats(1, 1e6), st.floats(0, 30))
def test_outputs_that_vary_much_are_alike_but_for_a_few(mean: float, cv2: float) -> None:
    lengths = Lengths.with_tail(mean, cv2)
    assert float(lengths.share @ lengths.tokens) == pytest.approx(mean)
    assert (np.diff(lengths.tokens) > 0).all()
    shortest = lengths.tokens[0]
    assert (
        shortest >= 0.05 * mean
    )  # a log-normal distribution that varies by 5 has a tenth below 0.03 of the mean
    assert shortest >= Lengths.of(mean, cv2).tokens[0] or cv2 <= 1.1


@pytest.mark.parametrize("cv2", [1.0, 1.5, 4.5, 9.0])
def test_classes_with_a_tail_vary_as_much_as_was_said(cv2: float) -> None:
    lengths = Lengths.with_tail(1.0, cv2)
    assert float(lengths.share @ lengths.tokens**2) - 1 == pytest.approx(cv2, rel=0.06)


def test_equal_lengths_are_one_class() -> None:
    lengths = Lengths.of(700, 0.0)
    assert (lengths.share.tolist(), lengths.tokens.tolist()) == ([1.0], [700.0])


def test_a_mix_of_kinds_has_the_classes_of_each() -> None:
    lengths = Lengths.of(0.0, None, ((3.0, 500.0, 0.0), (1.0, 4000.0, 0.0)))
    assert lengths.share.tolist() == [0.75, 0.25]
    assert lengths.tokens.tolist() == [500.0, 4000.0]
    assert float(lengths.share @ lengths.times(2.0).tokens) == pytest.approx(2 * 1375)
