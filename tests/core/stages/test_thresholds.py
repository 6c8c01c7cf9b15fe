from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner_core import FpmBatch, LoadReason, PlannerConfig, QueueThresholds, Role, WorkerCounts
from planner_core.data.wish import Wish
from planner_core.stages import thresholds

PREFILL, DECODE, AGG = Role.PREFILL, Role.DECODE, Role.AGG
TARGETS = ("throughput", "latency", "load")
MINE = QueueThresholds(
    prefill_scale_up_queue_tokens=5000,
    prefill_scale_down_queue_tokens=400,
    decode_scale_up_kv_rate=0.75,
    decode_scale_down_kv_rate=0.25,
)
LONG, KV = 16_384, 400_000  # context length and KV tokens of the engine

# target, role, tokens of use at which to grow, tokens below which to shrink
TABLE = [
    ("throughput", PREFILL, 1.0 * LONG, 0.1 * LONG),
    ("latency", PREFILL, 0.1 * LONG, 0.0),
    ("load", PREFILL, 5000.0, 400.0),
    *[
        (target, role, up * KV, down * KV)
        for role in (DECODE, AGG)
        for target, up, down in (("throughput", 1.0, 0.6), ("latency", 0.4, 0.1), ("load", 0.75, 0.25))
    ],
]


def config_for(lab: Any, target: str, role: Role) -> PlannerConfig:
    config: PlannerConfig = lab.config(role, target, thresholds=MINE)
    return config


def engines(role: Role, *use_tokens: float) -> FpmBatch:
    """Engines whose passes are short of work but for their queue (prefill) or KV cache (decode, agg)."""
    tokens = list(use_tokens)
    names = [f"w{n}" for n in range(len(tokens))]
    return (
        FpmBatch(worker_id=names, wall_time_s=0.0, queued_prefill_tokens=tokens)
        if role is PREFILL
        else FpmBatch(worker_id=names, wall_time_s=0.01, num_decode=1.0, decode_kv_tokens=tokens)
    )


def wish(lab: Any, target: str, role: Role, *use_tokens: float, **more: Any) -> Wish:
    batch = engines(role, *use_tokens)
    values: dict[str, Any] = {"total": batch.num_workers, "coverage": 1.0, "starting": 0, "unit_step": False}
    return thresholds.wish(role, config_for(lab, target, role), batch, **values | more)


@pytest.mark.parametrize(("target", "role", "up", "down"), TABLE)
def test_the_fleet_grows_from_its_upper_threshold_on(
    lab: Any, target: str, role: Role, up: float, down: float
) -> None:
    # A queue at the threshold is enough; a KV cache has to be above it.
    below, above = (math.nextafter(up, 0), up) if role is PREFILL else (up, math.nextafter(up, math.inf))
    assert wish(lab, target, role, below, below).need == 2
    grown = wish(lab, target, role, above, above)
    assert grown.need is not None
    assert grown.need > 2
    assert grown.reason is LoadReason.SCALE_UP


@pytest.mark.parametrize(("target", "role", "up", "down"), TABLE)
def test_the_fleet_shrinks_below_its_lower_threshold(
    lab: Any, target: str, role: Role, up: float, down: float
) -> None:
    # "= 0" is the lower threshold of the latency target: there, at it is enough.
    below, at = (0.0, 1.0) if down == 0 else (down * (1 - 1e-9), down)
    eight = [below] * 8
    shrunk = wish(lab, target, role, *eight)
    assert shrunk.need is not None
    assert shrunk.need < 8
    assert shrunk.reason is LoadReason.SCALE_DOWN
    assert wish(lab, target, role, *eight[1:], at).need == 8
    assert wish(lab, target, role, below).need == 1


@pytest.mark.parametrize(("target", "role", "up", "down"), TABLE)
def test_one_engine_over_is_enough_to_grow_and_one_not_under_to_stay(
    lab: Any, target: str, role: Role, up: float, down: float
) -> None:
    over, between = up * 1.01, (up + down) / 2
    assert (wish(lab, target, role, over, between, between).need or 0) > 3
    assert wish(lab, target, role, 0.0, 0.0, between).need == 3


@given(
    st.sampled_from([(t, r) for t, r, *_ in TABLE]),
    st.lists(st.floats(0, 2e6), min_size=1, max_size=6),
    st.floats(1, 20),
    st.integers(0, 4),
    st.booleans(),
)
def test_more_use_never_gives_fewer_replicas(
    lab: Any, kind: tuple[str, Role], use: list[float], factor: float, starting: int, unit_step: bool
) -> None:
    target, role = kind
    more = {"starting": starting, "total": len(use) + starting, "unit_step": unit_step}
    one, other = (wish(lab, target, role, *[f * u for u in use], **more).need for f in (1.0, factor))
    assert one is not None
    assert other is not None
    assert one <= other


@given(
    st.sampled_from([(t, r) for t, r, *_ in TABLE]),
    st.lists(st.floats(0, 2e6), min_size=1, max_size=6),
    st.booleans(),
)
def test_no_fleet_is_wished_below_one(
    lab: Any, kind: tuple[str, Role], use: list[float], unit_step: bool
) -> None:
    assert (wish(lab, *kind, *use, unit_step=unit_step).need or 0) >= 1


@given(st.sampled_from([(t, r) for t, r, *_ in TABLE]), st.lists(st.floats(0, 2e6), min_size=2, max_size=6))
def test_unit_steps_move_by_one(lab: Any, kind: tuple[str, Role], use: list[float]) -> None:
    assert abs((wish(lab, *kind, *use, unit_step=True).need or 0) - len(use)) <= 1


@given(
    st.sampled_from([(t, r, up) for t, r, up, _ in TABLE]), st.lists(st.floats(0, 1), min_size=2, max_size=12)
)
def test_a_shrunken_fleet_would_not_grow_again(
    lab: Any, kind: tuple[str, Role, float], shares: list[float]
) -> None:
    target, role, up = kind
    use = [share * up / 4 for share in shares]
    need = wish(lab, target, role, *use).need
    assert need is not None
    if need < len(use):
        assert (wish(lab, target, role, *[sum(use) / need] * need).need or 0) <= need


@pytest.mark.parametrize("target", TARGETS)
def test_nothing_is_added_or_removed_on_top_of_what_starts(lab: Any, target: str) -> None:
    up = {t: up for t, role, up, _ in TABLE if role is DECODE}[target]
    for use in (up * 1.01, 0.0):
        wished = wish(lab, target, DECODE, use, use, starting=2, total=4)
        assert wished.need == 4
        assert wished.reason is LoadReason.SCALING_IN_PROGRESS


def test_silent_engines_are_taken_to_carry_as_much_as_the_others(lab: Any) -> None:
    alone = wish(lab, "throughput", DECODE, KV * 1.5, KV * 1.5)
    with_silent = wish(lab, "throughput", DECODE, KV * 1.5, KV * 1.5, total=4, coverage=2.0)
    assert alone.need == 3
    assert with_silent.need == 6


def test_engines_of_one_replica_are_one_replica(lab: Any) -> None:
    config = config_for(lab, "throughput", DECODE)
    ranks = FpmBatch(
        worker_id=["w0", "w0", "w1", "w1"],
        dp_rank=[0, 1, 0, 1],
        wall_time_s=0.01,
        num_decode=1,
        decode_kv_tokens=1.5 * KV,
    )
    replicas = thresholds.wish(DECODE, config, ranks, total=2, coverage=1.0, starting=0, unit_step=False)
    assert replicas.need == 3


def test_one_hot_engine_of_an_idle_fleet_is_named_and_not_multiplied(lab: Any) -> None:
    wished = wish(lab, "throughput", DECODE, KV * 1.5, *[0.0] * 7)
    assert wished.need == 8
    assert wished.notes == ("one engine carries far more than the others: more replicas can't cure that",)


def test_a_busy_prefill_fleet_with_empty_queues_stays(lab: Any) -> None:
    batch = FpmBatch(
        worker_id=["w0", "w1", "w2"], wall_time_s=0.1, num_prefill=1, prefill_tokens=[4000, 4000, 4000]
    )
    for target in TARGETS:
        config = config_for(lab, target, PREFILL)
        wished = thresholds.wish(PREFILL, config, batch, total=3, coverage=1.0, starting=0, unit_step=False)
        assert wished.need == 3
        assert wished.reason is LoadReason.SCALE_DOWN_REFUSED_CONSOLIDATION


def test_survivors_have_seats_for_all_requests(lab: Any) -> None:
    batch = FpmBatch(worker_id=["w0", "w1", "w2"], wall_time_s=0.1, num_decode=100, decode_kv_tokens=1000.0)
    config = config_for(lab, "throughput", DECODE)  # 256 seats each, of which 70 % are planned for
    wished = thresholds.wish(DECODE, config, batch, total=3, coverage=1.0, starting=0, unit_step=False)
    assert wished.need == 2


@pytest.mark.parametrize(
    ("role", "field"), [(PREFILL, "context_length"), (DECODE, "max_kv_tokens"), (AGG, "max_kv_tokens")]
)
def test_an_engine_whose_size_is_not_known_gets_no_wish_but_the_name_of_what_is_missing(
    lab: Any, role: Role, field: str
) -> None:
    config = lab.config(role, "throughput", spec={field: None})
    wished = thresholds.wish(
        role, config, engines(role, 1.0), total=1, coverage=1.0, starting=0, unit_step=False
    )
    assert wished.need is None
    assert wished.reason is LoadReason.INSUFFICIENT_DATA
    assert wished.notes == (f"set engines.{role}.{field} for its threshold",)


def test_a_queue_without_end_asks_for_what_drains_it_and_for_no_more(lab: Any) -> None:
    config = config_for(lab, "latency", PREFILL)
    needs = []
    for queued in (1e5, 1e6, 1e7):
        batch = FpmBatch.of([lab.prefill_pass(w, 8000, queued=queued) for w in ("w0", "w1")])
        decision = lab.once(config, workers={PREFILL: WorkerCounts(ready=2)}, fpm={PREFILL: batch})
        needs.append(decision.replicas[PREFILL])
    drained_by = 2 * 1e7 * (0.01 + 2e-5 * 8192) / (8192 * 30)  # engines that compute all of it in 30 s
    assert needs == sorted(needs)
    assert needs[-1] == pytest.approx(2 + drained_by, rel=0.1)
