"""ForwardPassMetrics: what engines say of their forward passes, as records and as columns.

A tick works on columns, so its cost hardly grows with the number of engines. A number that can't be true
(negative, infinite, absurdly large) becomes NaN, the columns' word for "not known": one broken row among thousands must
neither raise nor hide the others.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from operator import attrgetter
from typing import Any, TypeAlias, cast

import attrs
import numpy as np
import numpy.typing as npt

from planner_core.data.errors import ObservationError

Floats: TypeAlias = npt.NDArray[np.float64]
Ints: TypeAlias = npt.NDArray[np.int64]
Bools: TypeAlias = npt.NDArray[np.bool_]

_same = attrs.cmp_using(eq=np.array_equal)
_same_with_nan = attrs.cmp_using(eq=lambda a, b: np.array_equal(a, b, equal_nan=True))


@attrs.frozen(kw_only=True)
class ForwardPassMetrics:
    """One forward pass of one engine, and the queue behind it."""

    worker_id: str
    dp_rank: int = 0
    wall_time_s: float
    """Duration of the pass; 0 is the heartbeat of an idle engine."""
    num_prefill: float = 0
    """Requests with prefill tokens in this pass."""
    prefill_tokens: float = 0
    """Prompt tokens computed in this pass: without cached ones, without earlier chunks."""
    prefill_kv_tokens: float = 0
    """Prompt tokens of the same requests that were read from the KV cache."""
    var_prefill_length: float = 0
    num_decode: float = 0
    """Requests that generated a token in this pass."""
    decode_kv_tokens: float = 0
    """KV-cache tokens of these requests: the sum of their contexts."""
    var_decode_kv_tokens: float = 0
    queued_num_prefill: float = 0
    queued_prefill_tokens: float = 0
    """Prompt tokens that wait: raw, since nobody knows yet what the cache will serve."""
    queued_var_prefill_length: float = 0
    queued_num_decode: float = 0
    """Requests that wait for decode: preempted ones, or transferred ones without room."""
    queued_decode_kv_tokens: float = 0
    queued_var_decode_kv_tokens: float = 0


NUMBERS = tuple(f.name for f in attrs.fields(ForwardPassMetrics) if f.name not in ("worker_id", "dp_rank"))
"""The names of the numeric columns, in the order of :attr:`FpmBatch.table`."""
ROW_OF = {name: row for row, name in enumerate(NUMBERS)}
_LOADS = [row for name, row in ROW_OF.items() if name != "wall_time_s" and "var" not in name]
_WORK = [ROW_OF["prefill_tokens"], ROW_OF["num_decode"]]
_record = attrgetter("worker_id", "dp_rank", *NUMBERS)


def _ids(values: Any) -> npt.NDArray[np.str_]:
    ids = np.array(values, dtype=np.str_, ndmin=1)
    ids.flags.writeable = False
    return ids


LARGEST = 1e15
"""More than this of anything (a thousand years of tokens) is no measurement, and its square would still be finite."""
SMALLEST = 1e-9
"""Less than this of anything is nothing; dividing by it would overflow."""
SHORTEST_S = 1e-6
"""No pass is shorter; what says it was teaches nothing."""
_ZERO: Any = 0


def _as_given(values: Any) -> Any:
    """For type checkers: a column may be given as anything that numpy turns into one."""
    return values


def _derived() -> Any:
    return attrs.field(init=False, eq=False, repr=False)


@attrs.frozen(kw_only=True)
class FpmBatch:
    """Forward passes as columns of equal length, oldest first; any number of passes per engine.

    A column that is left out is 0 in every row. Columns are float64 (``worker_id``: str, ``dp_rank``: int64)
    and read-only. :class:`~planner_core.ObservationError` if lengths differ.
    """

    worker_id: npt.NDArray[np.str_] = attrs.field(converter=_ids, eq=_same)
    dp_rank: Ints = attrs.field(default=_ZERO, converter=_as_given, eq=_same)
    wall_time_s: Floats = attrs.field(converter=_as_given, eq=_same_with_nan)
    num_prefill: Floats = attrs.field(default=_ZERO, converter=_as_given, eq=_same_with_nan)
    prefill_tokens: Floats = attrs.field(default=_ZERO, converter=_as_given, eq=_same_with_nan)
    prefill_kv_tokens: Floats = attrs.field(default=_ZERO, converter=_as_given, eq=_same_with_nan)
    var_prefill_length: Floats = attrs.field(default=_ZERO, converter=_as_given, eq=_same_with_nan)
    num_decode: Floats = attrs.field(default=_ZERO, converter=_as_given, eq=_same_with_nan)
    decode_kv_tokens: Floats = attrs.field(default=_ZERO, converter=_as_given, eq=_same_with_nan)
    var_decode_kv_tokens: Floats = attrs.field(default=_ZERO, converter=_as_given, eq=_same_with_nan)
    queued_num_prefill: Floats = attrs.field(default=_ZERO, converter=_as_given, eq=_same_with_nan)
    queued_prefill_tokens: Floats = attrs.field(default=_ZERO, converter=_as_given, eq=_same_with_nan)
    queued_var_prefill_length: Floats = attrs.field(default=_ZERO, converter=_as_given, eq=_same_with_nan)
    queued_num_decode: Floats = attrs.field(default=_ZERO, converter=_as_given, eq=_same_with_nan)
    queued_decode_kv_tokens: Floats = attrs.field(default=_ZERO, converter=_as_given, eq=_same_with_nan)
    queued_var_decode_kv_tokens: Floats = attrs.field(default=_ZERO, converter=_as_given, eq=_same_with_nan)

    table: Floats = _derived()
    """All numeric columns, shape (columns, rows), in the order of ``NUMBERS``."""
    learnable: Bools = _derived()
    """Passes that say how long work takes: known work, some of it, and a positive duration."""
    engine: Ints = _derived()
    """Number of each row's engine, 0, 1, 2, … by first appearance; −1 where the row's loads aren't known."""
    latest: Ints = _derived()
    """Row of each engine's latest pass whose loads are known, by the engine's number."""
    worker: Ints = _derived()
    """Number of each engine's worker, 0, 1, 2, …: ranks of one worker share it."""
    num_workers: int = _derived()
    """Replicas that report."""

    def __attrs_post_init__(self) -> None:
        set_field = functools.partial(object.__setattr__, self)
        rows = len(self.worker_id)
        table = np.empty((len(NUMBERS), rows))
        ranks = np.empty(rows, np.int64)
        for name, target in (("dp_rank", ranks), *zip(NUMBERS, table, strict=True)):
            try:
                target[:] = getattr(self, name)
            except ValueError:
                shape = np.shape(getattr(self, name))
                raise ObservationError(
                    f"FpmBatch.{name} has shape {shape}, worker_id has {rows} rows: columns must be of equal length"
                ) from None
            set_field(name, target)
        impossible = ~((table >= 0) & (table <= LARGEST))
        table[impossible] = np.nan
        table[table < SMALLEST] = 0.0
        known: Bools = ~np.any(impossible[_LOADS], axis=0)
        long_enough: Bools = table[ROW_OF["wall_time_s"]] >= SHORTEST_S
        work: Floats = table[_WORK].sum(axis=0)
        learnable: Bools = known & long_enough & (work > 0)
        engines: dict[tuple[str, int], int] = {}
        workers: dict[str, int] = {}
        number, latest, worker = [-1] * rows, [0] * rows, [0] * rows
        for row, engine in enumerate(zip(self.worker_id.tolist(), ranks.tolist(), strict=True)):
            if known[row]:
                n = number[row] = engines.setdefault(engine, len(engines))
                latest[n] = row
                worker[n] = workers.setdefault(engine[0], len(workers))
        derived = {
            "table": table,
            "learnable": learnable,
            "engine": np.array(number, np.int64),
            "latest": np.array(latest[: len(engines)], np.int64),
            "worker": np.array(worker[: len(engines)], np.int64),
        }
        for name, column in derived.items():
            column.flags.writeable = False
            set_field(name, column)
        for name in ("dp_rank", *NUMBERS):
            getattr(self, name).flags.writeable = False
        set_field("num_workers", len(workers))

    @classmethod
    def of(
        cls, records: Iterable[ForwardPassMetrics] | Mapping[tuple[str, int], ForwardPassMetrics] | FpmBatch
    ) -> FpmBatch:
        """Columns from records (oldest first) or from a mapping of (worker_id, dp_rank) to the latest record."""
        if isinstance(records, FpmBatch):
            return records
        if isinstance(records, Mapping):
            by_engine = cast("Mapping[tuple[str, int], ForwardPassMetrics]", records)
            rows = [(*engine, *_record(record)[2:]) for engine, record in by_engine.items()]
        else:
            rows = list(map(_record, records))
        if not rows:
            return EMPTY_BATCH
        ids, ranks, *columns = zip(*rows, strict=True)
        numbers: dict[str, Any] = dict(zip(NUMBERS, columns, strict=True))
        return cls(worker_id=ids, dp_rank=ranks, **numbers)

    def __len__(self) -> int:
        return len(self.worker_id)


EMPTY_BATCH = FpmBatch(worker_id=np.empty(0, np.str_), wall_time_s=np.empty(0))
"""No pass at all."""
