"""The mathematics of an SLA against the simulator; `benchmarks/sla_maths.py` has the whole grid."""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np
import pytest

from planner_adapters.simulation import PRESETS, Cluster, PoolSpec
from planner_adapters.simulation.pool import Routing
from planner_core import EngineSpec, Role
from planner_core.maths.fleet import Fleet, fleet_latency
from planner_core.maths.shape import RequestShape
from planner_core.perf import BatchLoad

MODEL = PRESETS["llama-3.1-70b-fp8-h100"]
SPEC = EngineSpec(
    max_kv_tokens=MODEL.max_kv_tokens,
    max_num_batched_tokens=MODEL.max_num_batched_tokens,
    max_num_seqs=MODEL.max_num_seqs,
)
SHAPE = RequestShape(isl=1000, osl=100, isl_cv2=0.5, osl_cv2=0.5)


def iteration(load: BatchLoad) -> Any:
    """The preset's coefficients; a mixed pass reads the weights once."""
    prompts = 40.7e-6 * load.prefill_tokens + 1.02e-9 * load.prefill_pairs
    return 11.02e-3 + prompts + 59.3e-6 * load.num_decode + 27.1e-9 * load.decode_kv_tokens


def simulated(
    role: Role,
    rate_rps: float,
    replicas: int,
    number: int = 12_000,
    routing: Routing = "least_loaded",
    osl: int = 100,
) -> tuple[Any, Any]:
    """(TTFT, ITL) in ms of a fixed fleet's requests, without the first quarter."""
    dice = np.random.default_rng(4)
    sigma = np.sqrt(np.log1p(0.5))
    lengths = [
        np.maximum(np.rint(mean * dice.lognormal(-sigma * sigma / 2, sigma, number)), 1).astype(np.int64)
        for mean in (1000, osl)
    ]
    arrival_s = np.cumsum(dice.exponential(1 / rate_rps, number))
    cluster = Cluster(roles={role: PoolSpec(engine=MODEL, replicas=replicas)}, routing=routing)
    cluster.submit(arrival_s=arrival_s, input_tokens=lengths[0], output_tokens=lengths[1])
    cluster.advance(float(arrival_s[-1]) + 300)
    results = cluster.results()
    return results.ttft_ms[number // 4 :], results.itl_ms[number // 4 :]


@pytest.mark.parametrize("replicas", [1, 6])
def test_a_decode_fleet_s_mean_itl_is_known_nearly_exactly(replicas: int) -> None:
    # Requests see the larger batches more often, and the first token is computed once more.
    rate_rps = 0.6 * replicas * Fleet.of(Role.DECODE, iteration, SPEC, SHAPE).saturated_rps
    _, itl_ms = simulated(Role.DECODE, rate_rps, replicas, 25_000)
    offered = fleet_latency(Role.DECODE, iteration, SPEC, SHAPE, rate_rps, replicas, None)
    assert offered.itl_ms is not None
    assert float(offered.itl_ms[0]) == pytest.approx(float(np.nanmean(itl_ms)), rel=0.008)


@pytest.mark.parametrize("replicas", [1, 4])
@pytest.mark.parametrize("role", list(Role))
def test_a_simulated_fleet_is_as_fast_as_foretold(role: Role, replicas: int) -> None:
    rate_rps = 0.6 * replicas * Fleet.of(role, iteration, SPEC, SHAPE).saturated_rps
    ttft_ms, itl_ms = simulated(role, rate_rps, replicas)
    for quantile in (0.5, 0.95):
        offered = fleet_latency(role, iteration, SPEC, SHAPE, rate_rps, replicas, quantile)
        for foretold, seen in ((offered.ttft_ms, ttft_ms), (offered.itl_ms, itl_ms)):
            if foretold is not None:
                assert float(foretold[0]) == pytest.approx(float(np.nanquantile(seen, quantile)), rel=0.2)


@pytest.mark.parametrize("role", list(Role))
def test_what_is_dealt_in_turn_is_as_late_as_foretold_and_later_than_a_pool(role: Role) -> None:
    dealt = attrs.evolve(SHAPE, dealt=1.0)
    rate_rps = 0.8 * 8 * Fleet.of(role, iteration, SPEC, SHAPE).saturated_rps
    seen = simulated(role, rate_rps, 8, 40_000, "round_robin")
    in_turn, pool = (
        fleet_latency(role, iteration, SPEC, shape, rate_rps, 8, 0.99) for shape in (dealt, SHAPE)
    )
    for foretold, of_pool, ms in zip(
        (in_turn.ttft_ms, in_turn.itl_ms), (pool.ttft_ms, pool.itl_ms), seen, strict=True
    ):
        if foretold is not None and of_pool is not None:
            assert float(foretold[0]) == pytest.approx(float(np.nanquantile(ms, 0.99)), rel=0.2)
            assert float(foretold[0]) > float(of_pool[0])


def test_short_outputs_that_come_in_turn_meet_few_prompts_of_others() -> None:
    # The next prompt comes to an engine when all others have had one: mostly too late to delay a short output.
    shape = attrs.evolve(SHAPE, osl=15, dealt=1.0)
    rate_rps = 0.5 * 8 * Fleet.of(Role.AGG, iteration, SPEC, shape).saturated_rps
    _, itl_ms = simulated(Role.AGG, rate_rps, 8, 20_000, "round_robin", osl=15)
    for quantile in (0.9, 0.99):
        offered = fleet_latency(Role.AGG, iteration, SPEC, shape, rate_rps, 8, quantile)
        assert offered.itl_ms is not None
        assert float(offered.itl_ms[0]) == pytest.approx(float(np.nanquantile(itl_ms, quantile)), rel=0.12)
