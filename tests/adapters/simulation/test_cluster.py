from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner_adapters.simulation import (
    PRESETS,
    Cluster,
    EngineModel,
    EngineTiming,
    PoolSpec,
    RequestResults,
    Status,
)
from planner_core import Role

TIMING = EngineTiming.from_coefficients(
    prefill_base_s=0.016,
    prefill_s_per_token=50e-6,
    attention_s_per_pair=1e-9,
    decode_base_s=0.008,
    decode_s_per_request=100e-6,
    decode_s_per_kv_token=50e-9,
)
SMALL = EngineModel(
    timing=TIMING,
    num_gpus=2,
    max_kv_tokens=4_096,
    max_num_seqs=8,
    max_num_batched_tokens=512,
    kv_transfer_tokens_per_s=100_000.0,
)
H200 = PRESETS["llama-3.1-8b-fp8-h200"]
AGG, DISAGG = (Role.AGG,), (Role.PREFILL, Role.DECODE)
modes = st.sampled_from([AGG, DISAGG, (Role.PREFILL,), (Role.DECODE,)])

requests = st.lists(
    st.tuples(
        st.floats(0, 20).map(lambda s: round(s, 2)),
        st.integers(1, 5_000),
        st.integers(1, 300),
        st.integers(0, 2_000),
    ),
    min_size=1,
    max_size=40,
)
scalings = st.lists(st.tuples(st.floats(0, 30), st.integers(0, 4)), max_size=4).map(sorted)


def cluster_of(
    roles: Sequence[Role] = AGG, replicas: int = 1, model: EngineModel = SMALL, **kwargs: Any
) -> Cluster:
    startup_s = kwargs.pop("startup_s", 5.0)
    pool = PoolSpec(engine=model, replicas=replicas, startup_s=startup_s)
    return Cluster(roles=dict.fromkeys(roles, pool), **kwargs)


def submit(cluster: Cluster, rows: Sequence[tuple[float, int, int, int]]) -> None:
    arrival_s, input_tokens, output_tokens, prefix_hit_tokens = zip(*rows, strict=True)
    cluster.submit(
        arrival_s=arrival_s,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        prefix_hit_tokens=prefix_hit_tokens,
    )


def same(left: RequestResults, right: RequestResults) -> bool:
    names = ("arrival_s", "input_tokens", "output_tokens", "first_token_s", "finish_s", "status")
    return all(np.array_equal(getattr(left, n), getattr(right, n), equal_nan=True) for n in names)


@given(roles=modes, rows=requests, routing=st.sampled_from(["round_robin", "least_loaded", "power_of_two"]))
def test_every_request_is_served_or_too_long(roles: tuple[Role, ...], rows: list[Any], routing: Any) -> None:
    cluster = cluster_of(roles, replicas=2, routing=routing)
    submit(cluster, rows)
    cluster.advance(10_000)
    results = cluster.results()
    too_long = results.input_tokens >= SMALL.max_kv_tokens
    assert (results.status == np.where(too_long, Status.REJECTED, Status.COMPLETED)).all()
    assert cluster.num_unfinished == 0
    served = ~too_long
    assert (results.ttft_ms[served] >= 0).all()
    assert (results.finish_s[served] >= results.first_token_s[served]).all()
    asked = np.array([row[2] for row in rows]) if Role.PREFILL not in roles or len(roles) > 1 else 1
    room = SMALL.max_kv_tokens - results.input_tokens
    assert (results.output_tokens == np.minimum(asked, room))[served].all()


@given(
    roles=modes, rows=requests, steps=st.lists(st.floats(0, 60), max_size=20).map(sorted), changes=scalings
)
def test_the_steps_of_advancing_change_nothing(
    roles: tuple[Role, ...], rows: list[Any], steps: list[float], changes: list[Any]
) -> None:
    seen = []
    for looks in ([], steps):
        cluster = cluster_of(roles, replicas=2, routing="power_of_two", seed=7)
        submit(cluster, rows)
        events = sorted([(at, None) for at in looks] + changes, key=lambda event: event[0])
        for at_s, replicas in events:
            cluster.advance(at_s)
            if replicas is None:
                cluster.observe()
            else:
                cluster.scale(dict.fromkeys(roles, replicas))
        cluster.advance(60.0)
        cluster.scale(dict.fromkeys(roles, 1))
        cluster.advance(5_000.0)
        assert cluster.num_unfinished == 0
        seen.append((cluster.results(), cluster.gpu_seconds()))
    assert same(seen[0][0], seen[1][0])
    assert seen[0][1] == seen[1][1]


@given(rows=requests, late=requests)
def test_it_does_not_matter_when_requests_are_submitted(rows: list[Any], late: list[Any]) -> None:
    late = [(arrival_s + 10, *rest) for arrival_s, *rest in late]
    at_once, in_parts = cluster_of(replicas=2), cluster_of(replicas=2)
    submit(at_once, rows + late)
    submit(in_parts, rows)
    in_parts.advance(9.99)
    submit(in_parts, late)
    for cluster in (at_once, in_parts):
        cluster.advance(10_000)
    assert same(at_once.results(), in_parts.results())


@settings(max_examples=30)
@given(rows=requests, roles=st.sampled_from([AGG, DISAGG]))
def test_more_engines_complete_no_less(rows: list[Any], roles: tuple[Role, ...]) -> None:
    completed = []
    for replicas in (1, 2, 4):
        cluster = cluster_of(roles, replicas=replicas, routing="least_loaded")
        submit(cluster, rows)
        cluster.advance(200)
        completed.append(int((cluster.results().status == Status.COMPLETED).sum()))
    assert completed == sorted(completed)


def test_requests_wait_at_the_router_while_nobody_is_ready() -> None:
    cluster = cluster_of(replicas=0, startup_s=30.0)
    submit(cluster, [(1.0, 100, 10, 0), (2.0, 100, 10, 0)])
    cluster.advance(5.0)
    assert cluster.num_unfinished == 2
    cluster.scale({Role.AGG: 1})
    cluster.advance(34.0)
    assert cluster.observe().workers[Role.AGG].starting_ages_s == (29.0,)
    cluster.advance(60.0)
    assert (cluster.results().first_token_s > 35.0).all()
    assert cluster.num_unfinished == 0


def test_a_draining_replica_finishes_what_it_has_and_gets_nothing_new() -> None:
    cluster = cluster_of(replicas=2)
    submit(cluster, [(0.0, 500, 300, 0), (0.0, 500, 300, 0), (1.0, 500, 10, 0), (1.1, 500, 10, 0)])
    cluster.advance(0.5)
    cluster.scale({Role.AGG: 1}, drain=["agg-0"])
    workers = cluster.observe().workers[Role.AGG]
    assert (workers.ready, workers.expected, workers.draining) == (1, 1, 1)
    cluster.advance(2.0)
    assert set(cluster.observe().fpm[Role.AGG].worker_id) == {"agg-1"}
    cluster.advance(100.0)
    results = cluster.results()
    assert (results.status == Status.COMPLETED).all()
    assert cluster.observe().workers[Role.AGG].draining == 0
    gone_s = results.finish_s[0]
    assert cluster.gpu_seconds()[Role.AGG] == pytest.approx(SMALL.num_gpus * (100.0 + gone_s))


def test_shrinking_cancels_starts_first_then_drains_the_named_then_the_least_busy() -> None:
    cluster = cluster_of(replicas=3)
    submit(cluster, [(0.0, 500, 300, 0), (0.0, 500, 300, 0)])  # on agg-0 and agg-1
    cluster.advance(0.5)
    cluster.scale({Role.AGG: 4})
    cluster.scale({Role.AGG: 3}, drain=["agg-0"])
    assert cluster.observe().workers[Role.AGG].ready == 3
    cluster.scale({Role.AGG: 2}, drain=["agg-0"])
    assert sorted(cluster.observe().fpm[Role.AGG].worker_id) == ["agg-1", "agg-2"]
    cluster.scale({Role.AGG: 1})
    assert sorted(cluster.observe().fpm[Role.AGG].worker_id) == ["agg-1"]


def test_gpu_seconds_count_from_the_asking_to_the_going() -> None:
    cluster = cluster_of(replicas=1, startup_s=60.0)
    cluster.advance(10.0)
    cluster.scale({Role.AGG: 3})
    cluster.advance(40.0)
    cluster.scale({Role.AGG: 2})  # one start is cancelled after 30 s
    cluster.advance(100.0)
    cluster.scale({Role.AGG: 1})  # idle: gone at once
    cluster.advance(200.0)
    assert cluster.gpu_seconds() == {Role.AGG: 2 * (30.0 + 90.0 + 200.0)}


def test_a_disaggregated_request_pays_prefill_transfer_and_one_decode_pass_for_its_ttft() -> None:
    cluster = cluster_of(DISAGG)
    submit(cluster, [(1.0, 400, 11, 0)])
    cluster.advance(100.0)
    results = cluster.results()
    transfer_s = SMALL.kv_transfer_latency_s + 400 / SMALL.kv_transfer_tokens_per_s
    first, *others = (TIMING.pass_s(num_decode=1, decode_kv_tokens=kv) for kv in range(399, 410))
    assert results.ttft_ms[0] == pytest.approx((TIMING.pass_s(prefill_tokens=400) + transfer_s + first) * 1e3)
    assert results.itl_ms[0] == pytest.approx(sum(others) / 10 * 1e3)


def test_a_first_token_from_the_prefill_engine_leaves_the_transfer_to_the_itl() -> None:
    model = attrs.evolve(SMALL, prefill_emits_first_token=True)
    cluster = cluster_of(DISAGG, model=model)
    submit(cluster, [(1.0, 400, 11, 0)])
    cluster.advance(100.0)
    results = cluster.results()
    assert results.ttft_ms[0] == pytest.approx(TIMING.pass_s(prefill_tokens=400) * 1e3)
    transfer_s = SMALL.kv_transfer_latency_s + 400 / SMALL.kv_transfer_tokens_per_s
    decode_s = sum(TIMING.pass_s(num_decode=1, decode_kv_tokens=kv) for kv in range(400, 410))
    assert results.itl_ms[0] == pytest.approx((transfer_s + decode_s) / 10 * 1e3)


def test_a_single_token_too_comes_from_the_decode_engine() -> None:
    cluster = cluster_of(DISAGG)
    submit(cluster, [(1.0, 400, 1, 0)])
    cluster.advance(100.0)
    results = cluster.results()
    assert results.status[0] == Status.COMPLETED
    assert results.finish_s[0] == results.first_token_s[0] > 1.0 + TIMING.pass_s(prefill_tokens=400)


def test_a_decode_engine_alone_computes_the_first_token_as_behind_a_prefill_engine() -> None:
    cluster = cluster_of((Role.DECODE,))
    submit(cluster, [(1.0, 400, 11, 0)])
    cluster.advance(100.0)
    results = cluster.results()
    first, *others = (TIMING.pass_s(num_decode=1, decode_kv_tokens=kv) for kv in range(399, 410))
    assert results.ttft_ms[0] == pytest.approx(first * 1e3)
    assert results.itl_ms[0] == pytest.approx(sum(others) / 10 * 1e3)


def test_a_prefill_engine_holds_the_cache_until_a_decode_engine_takes_it() -> None:
    cluster = cluster_of(DISAGG, model=attrs.evolve(SMALL, prefill_emits_first_token=True))
    cluster.scale({Role.DECODE: 0})
    submit(cluster, [(0.0, 3_000, 5, 0), (0.0, 3_000, 5, 0)])  # both don't fit into 4 096
    cluster.advance(50.0)
    assert np.isfinite(cluster.results().first_token_s).tolist() == [True, False]
    cluster.scale({Role.DECODE: 1})
    cluster.advance(100.0)
    assert (cluster.results().status == Status.COMPLETED).all()


def test_traffic_counts_arrivals_and_completions_of_its_window() -> None:
    cluster = cluster_of()
    submit(cluster, [(1.0, 100, 5, 40), (2.0, 300, 7, 0), (19.99, 200, 200, 0), (25.0, 600, 9, 0)])
    cluster.advance(10.0)
    assert cluster.observe(traffic=False).traffic is None
    cluster.advance(20.0)
    traffic = cluster.observe().traffic
    assert traffic is not None
    assert (traffic.duration_s, traffic.num_requests, traffic.isl, traffic.osl) == (20.0, 3, 200.0, 6.0)
    assert traffic.kv_hit_rate == pytest.approx(40 / 600)
    cluster.advance(30.0)
    traffic = cluster.observe().traffic
    assert traffic is not None
    assert (traffic.num_requests, traffic.isl, traffic.osl) == (1, 600.0, 104.5)
    cluster.advance(40.0)
    idle = cluster.observe()
    assert idle.traffic is not None
    assert (idle.traffic.num_requests, idle.traffic.isl, idle.traffic.osl) == (0, None, None)
    assert idle.observed is not None
    assert idle.observed.ttft_ms is None


def test_the_metrics_of_passes_agree_with_the_timing() -> None:
    cluster = cluster_of(replicas=2)
    submit(cluster, [(n / 10, 300, 40, 0) for n in range(100)])
    rows = 0
    for second in range(1, 12):
        cluster.advance(float(second))
        batch = cluster.observe().fpm[Role.AGG]
        assert set(batch.worker_id) == {"agg-0", "agg-1"}
        assert max(np.unique(batch.worker_id, return_counts=True)[1]) <= 10
        for i in np.flatnonzero(
            (batch.wall_time_s > 0) & (batch.num_prefill <= 1) & (batch.prefill_kv_tokens == 0)
        ):
            rows += 1
            assert batch.wall_time_s[i] == pytest.approx(
                TIMING.pass_s(
                    prefill_tokens=int(batch.prefill_tokens[i]),
                    num_decode=int(batch.num_decode[i]),
                    decode_kv_tokens=int(batch.decode_kv_tokens[i]),
                )
            )
    assert rows > 50


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"arrival_s": [1.0, float("nan")]}, "row 1 has arrival_s = nan"),
        ({"arrival_s": [-1.0, 2.0]}, "row 0 has arrival_s = -1.0"),
        ({"input_tokens": [5, 0]}, "row 1 has input_tokens = 0"),
        ({"output_tokens": [-3, 5]}, "row 0 has output_tokens = -3"),
        ({"prefix_hit_tokens": [0, -1]}, "row 1 has prefix_hit_tokens = -1"),
        ({"input_tokens": [5]}, "input_tokens"),
    ],
)
def test_requests_that_cannot_be_are_refused_by_row(columns: dict[str, Any], words: str) -> None:
    cluster = cluster_of()
    with pytest.raises(ValueError, match=words):
        cluster.submit(
            **{"arrival_s": [1.0, 2.0], "input_tokens": [5, 5], "output_tokens": [5, 5], **columns}
        )
    assert cluster.num_unfinished == 0


def test_a_cluster_that_cannot_be_meant_is_refused() -> None:
    pool = PoolSpec(engine=SMALL)
    with pytest.raises(ValueError, match="agg, prefill"):
        Cluster(roles={Role.AGG: pool, Role.PREFILL: pool})
    with pytest.raises(ValueError, match="routing = 'best'"):
        Cluster(roles={Role.AGG: pool}, routing="best")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no role prefill"):
        Cluster(roles={Role.AGG: pool}).scale({Role.PREFILL: 1})
    with pytest.raises(ValueError, match=r"PoolSpec.replicas = -1"):
        PoolSpec(engine=SMALL, replicas=-1)


@pytest.mark.parametrize("roles", [AGG, DISAGG])
def test_a_real_hour_of_conversations_is_served_to_the_last_request(
    shared_data: Path, roles: tuple[Role, ...]
) -> None:
    trace = np.loadtxt(
        shared_data / "traces" / "azure23_conv.csv.gz", delimiter=",", skiprows=1, usecols=(0, 1, 2)
    )
    cluster = cluster_of(roles, replicas=2, model=H200)
    cluster.submit(arrival_s=trace[:, 0], input_tokens=trace[:, 1], output_tokens=trace[:, 2])
    cluster.advance(4_000.0)
    results = cluster.results()
    assert (results.status == Status.COMPLETED).all()
    assert len(results.status) == 19_366
    assert 20 < np.median(results.ttft_ms) < 60
    assert 4 < np.nanmedian(results.itl_ms) < 8


@pytest.mark.parametrize(
    ("gpu", "seconds_per_weight_read", "prompt_tokens_per_s", "seconds_per_kv_token", "kv_tokens"),
    [
        ("RTX4090", 17.2e-3, 10_800.0, 1.45e-7, 37_800),
        ("RTXPRO6000", 10.7e-3, 19_000.0, 0.75e-7, 500_000),
    ],
)
def test_a_saturated_vllm_engine_is_matched(
    shared_data: Path,
    gpu: str,
    seconds_per_weight_read: float,
    prompt_tokens_per_s: float,
    seconds_per_kv_token: float,
    kv_tokens: int,
) -> None:
    """Llama-3.1-8B in BF16, 10 sessions a second for 29 s. The coefficients are the GPU's data sheet (16 GB
    of weights and 128 KB per KV token over the memory bandwidth) and the prompt throughput in the run's log.
    """
    file = shared_data / "telemetry" / f"vllm_{gpu}_Llama-3.1-8B_requests.csv.gz"
    real = np.genfromtxt(file, delimiter=",", names=True, encoding="utf-8")
    timing = EngineTiming.from_coefficients(
        prefill_base_s=seconds_per_weight_read,
        prefill_s_per_token=1 / prompt_tokens_per_s,
        attention_s_per_pair=1e-9,
        decode_base_s=seconds_per_weight_read,
        decode_s_per_request=15e-6,
        decode_s_per_kv_token=seconds_per_kv_token,
    )
    model = EngineModel(
        timing=timing, max_kv_tokens=kv_tokens, max_num_seqs=128, max_num_batched_tokens=2_048
    )
    cluster = cluster_of(model=model)
    cluster.submit(
        arrival_s=real["arrival_s"], input_tokens=real["input_tokens"], output_tokens=real["output_tokens"]
    )
    cluster.advance(10_000.0)
    results = cluster.results()
    for quantile in (0.5, 0.9):
        assert np.quantile(results.ttft_ms, quantile) == pytest.approx(
            np.nanquantile(real["ttft_ms"], quantile), rel=0.25
        )
        assert np.nanquantile(results.itl_ms, quantile) == pytest.approx(
            np.nanquantile(real["tpot_ms"], quantile), rel=0.15
        )
