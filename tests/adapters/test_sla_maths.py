"""The mathematics of an SLA against the simulator; `benchmarks/sla_maths.py` has the whole grid."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from planner_adapters.simulation import PRESETS, Cluster, PoolSpec
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


def simulated(role: Role, rate_rps: float, replicas: int, number: int = 12_000) -> tuple[Any, Any]:
    """(TTFT, ITL) in ms of a fixed fleet's requests, without the first quarter."""
    dice = np.random.default_rng(4)
    sigma = np.sqrt(np.log1p(0.5))
    lengths = [
        np.maximum(np.rint(mean * dice.lognormal(-sigma * sigma / 2, sigma, number)), 1).astype(np.int64)
        for mean in (1000, 100)
    ]
    arrival_s = np.cumsum(dice.exponential(1 / rate_rps, number))
    cluster = Cluster(roles={role: PoolSpec(engine=MODEL, replicas=replicas)}, routing="least_loaded")
    cluster.submit(arrival_s=arrival_s, input_tokens=lengths[0], output_tokens=lengths[1])
    cluster.advance(float(arrival_s[-1]) + 300)
    results = cluster.results()
    return results.ttft_ms[number // 4 :], results.itl_ms[number // 4 :]


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
