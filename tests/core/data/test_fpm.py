from __future__ import annotations

import math
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner_core import ForwardPassMetrics, FpmBatch, ObservationError
from planner_core.testing import forward_pass_metrics, fpm_batches


def passes(*engines: str, **numbers: float) -> list[ForwardPassMetrics]:
    return [ForwardPassMetrics(worker_id=engine, wall_time_s=0.1, **numbers) for engine in engines]


def test_columns_come_from_arrays_from_records_or_from_a_mapping_alike() -> None:
    records = passes("a", "b", prefill_tokens=100)
    arrays = FpmBatch(
        worker_id=np.array(["a", "b"]), wall_time_s=np.full(2, 0.1), prefill_tokens=np.full(2, 100.0)
    )
    assert FpmBatch.of(records) == arrays
    assert FpmBatch.of({("a", 0): records[0], ("b", 0): records[1]}) == arrays
    assert FpmBatch.of(arrays) is arrays


def test_the_key_of_a_mapping_says_which_engine_it_is() -> None:
    (record,) = passes("whoever")
    batch = FpmBatch.of({("b", 3): record})
    assert (batch.worker_id.tolist(), batch.dp_rank.tolist()) == (["b"], [3])


def test_a_column_that_is_left_out_is_zero_in_every_row() -> None:
    batch = FpmBatch.of(passes("a", "b"))
    assert batch.queued_decode_kv_tokens.tolist() == [0.0, 0.0]
    assert len(batch) == 2


def test_no_record_is_an_empty_batch() -> None:
    assert len(FpmBatch.of([])) == 0
    assert FpmBatch.of([]) == FpmBatch.of({})
    assert FpmBatch.of([]).num_workers == 0


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, -1.0])
def test_a_number_that_cannot_be_true_is_not_known_and_hides_no_other_row(number: float) -> None:
    batch = FpmBatch.of([*passes("a", prefill_tokens=number), *passes("b", prefill_tokens=5)])
    assert math.isnan(batch.prefill_tokens[0])
    assert batch.prefill_tokens[1] == 5


def test_columns_of_different_lengths_are_refused_by_name() -> None:
    with pytest.raises(ObservationError, match=r"wall_time_s.*3.*2"):
        FpmBatch(worker_id=np.array(["a", "b"]), wall_time_s=np.full(3, 0.1))


def test_columns_are_read_only() -> None:
    batch = FpmBatch.of(passes("a"))
    with pytest.raises(ValueError, match="read-only"):
        batch.prefill_tokens[0] = 5.0


def test_columns_are_copies_of_what_they_are_built_from() -> None:
    mine = np.full(1, 0.1)
    batch = FpmBatch(worker_id=np.array(["a"]), wall_time_s=mine)
    mine[0] = 9.0
    assert batch.wall_time_s[0] == 0.1


def test_the_latest_pass_of_each_engine_is_found_whatever_the_order() -> None:
    batch = FpmBatch.of(passes("a", "b", "a", "c", "b"))
    assert sorted(batch.latest.tolist()) == [2, 3, 4]
    assert batch.num_workers == 3


def test_ranks_of_one_worker_are_engines_of_their_own_and_one_replica() -> None:
    records = [ForwardPassMetrics(worker_id="a", dp_rank=rank, wall_time_s=0.1) for rank in (0, 1, 0)]
    batch = FpmBatch.of(records)
    assert sorted(batch.latest.tolist()) == [1, 2]
    assert batch.num_workers == 1


def test_a_pass_with_unknown_loads_is_not_an_engine_s_latest() -> None:
    batch = FpmBatch.of(
        [*passes("a"), *passes("a", decode_kv_tokens=math.nan), *passes("b", num_decode=math.nan)]
    )
    assert batch.latest.tolist() == [0]


def test_a_pass_with_an_unknown_duration_still_tells_its_queue() -> None:
    batch = FpmBatch.of([ForwardPassMetrics(worker_id="a", wall_time_s=math.nan, queued_prefill_tokens=5000)])
    assert batch.latest.tolist() == [0]


@given(st.lists(forward_pass_metrics(), max_size=8))
def test_a_batch_has_a_row_for_every_record(records: list[ForwardPassMetrics]) -> None:
    batch = FpmBatch.of(records)
    assert len(batch) == len(records)
    assert batch.dp_rank.tolist() == [record.dp_rank for record in records]
    for row, record in enumerate(records):
        seen = batch.prefill_tokens[row]
        assert seen == pytest.approx(record.prefill_tokens, abs=1e-9) or math.isnan(seen)


@given(fpm_batches())
def test_a_batch_is_a_value(batch: FpmBatch) -> None:
    copied: Any = pickle.loads(pickle.dumps(batch))
    assert copied == batch
    assert copied.latest.tolist() == batch.latest.tolist()


def test_batches_that_differ_in_one_number_are_not_equal() -> None:
    assert FpmBatch.of(passes("a", num_decode=1)) != FpmBatch.of(passes("a", num_decode=2))
    assert FpmBatch.of(passes("a")) != FpmBatch.of(passes("b"))
