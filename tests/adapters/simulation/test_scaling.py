from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner_adapters.simulation.scaling import scaled
from planner_adapters.simulation.workload import Workload

ARRIVALS = np.arange(3000) / 3.0
TRACE = Workload(
    name="trace",
    arrival_s=ARRIVALS,
    input_tokens=np.arange(1, 3001),
    output_tokens=np.arange(1, 3001) % 7 + 1,
    prefix_hit_tokens=np.arange(3000) // 2,
)


@given(st.floats(0.05, 4.0), st.integers(0, 100))
def test_the_number_of_requests_is_scaled_and_their_lengths_stay_together(factor: float, seed: int) -> None:
    more = scaled(TRACE, factor, seed=seed)
    assert len(more.arrival_s) == pytest.approx(3000 * factor, abs=5 * np.sqrt(3000 * factor))
    assert np.all(np.diff(more.arrival_s) >= 0)
    assert np.array_equal(more.output_tokens, more.input_tokens % 7 + 1)
    assert np.array_equal(more.prefix_hit_tokens, (more.input_tokens - 1) // 2)
    origin_s = ARRIVALS[more.input_tokens - 1]
    assert np.all((more.arrival_s >= origin_s) & (more.arrival_s <= origin_s + 20))


def test_a_factor_of_one_changes_nothing() -> None:
    assert scaled(TRACE, 1.0) == TRACE


@pytest.mark.parametrize("factor", [0.0, -1.0, float("nan"), float("inf"), 1e-9])
def test_a_factor_that_leaves_nothing_is_refused(factor: float) -> None:
    with pytest.raises(ValueError, match="factor = "):
        scaled(TRACE, factor)
