"""What Dynamo's mocker reads: the engine's times as an NPZ of grids, the requests as JSON lines.

The mocker has an arithmetic of its own. A pass takes the time of *one* prompt of as many tokens as it prefills, and
that of its decode batch on top, looked up over KV tokens and mean context. :func:`as_the_mocker_reckons` gives an
:class:`~planner_adapters.simulation.EngineTiming` that does the same, for comparing schedulers alone.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from planner_adapters.simulation.model import EngineModel
from planner_adapters.simulation.results import Floats, Ints
from planner_adapters.simulation.timing import Curve, EngineTiming, PassTimer
from planner_adapters.simulation.workload import Workload

PREFILL_POINTS, KV_POINTS, CONTEXT_POINTS = 512, 240, 160
BLOCK_TOKENS = 1 << 20
"""Of the trace's prompt hashes: one to a prompt, so that none shares a prefix with another."""
TICK_MS = 1e-3
"""Least distance of two arrivals: of equal ones, the mocker takes now this one first, now that."""


def write_profile(path: Path, engine: EngineModel) -> None:
    """The times of an engine as the mocker's grids."""
    timer = PassTimer(engine.timing)
    tokens = _prefill_tokens(engine)
    context = np.unique(np.rint(np.geomspace(1, engine.longest_request_tokens, CONTEXT_POINTS)))
    kv = np.concatenate([[0.0], np.geomspace(1, engine.max_kv_tokens, KV_POINTS)])
    itl_s = np.array([[_decode_s(timer, engine, k, c) for c in context.tolist()] for k in kv.tolist()])
    np.savez(
        path,
        prefill_isl=tokens,
        prefill_ttft_ms=_alone_s(timer, tokens) * 1e3,
        decode_active_kv_tokens=kv,
        decode_context_length=context,
        decode_itl=itl_s * 1e3,
    )


def write_trace(path: Path, workload: Workload) -> None:
    """Requests by their time since the first one, each with a prompt of its own."""
    with path.open("w", encoding="utf-8") as file:
        rows = (
            arrivals_ms(workload).tolist(),
            workload.input_tokens.tolist(),
            workload.output_tokens.tolist(),
        )
        for number, (at_ms, input_tokens, output_tokens) in enumerate(zip(*rows, strict=True)):
            line = {
                "timestamp": at_ms,
                "input_length": input_tokens,
                "output_length": output_tokens,
                "hash_ids": [number],
            }
            file.write(json.dumps(line) + "\n")


def arrivals_ms(workload: Workload) -> Floats:
    """Since the first one, each later than the one before."""
    ticks = np.rint((workload.arrival_s - workload.arrival_s[0]) * 1e3 / TICK_MS)
    places = np.arange(len(ticks))
    distinct = np.maximum.accumulate(ticks - places) + places
    return np.asarray(distinct * TICK_MS, dtype=np.float64)


def engine_arguments(engine: EngineModel, profile: Path, kind: str, startup_s: float) -> dict[str, Any]:
    """The mocker's description of an engine; ``kind`` is aggregated, prefill or decode."""
    return {
        "engine": {
            "backend": "vllm",
            "worker_type": kind,
            "num_gpu_blocks": engine.kv_blocks,
            "block_size": engine.kv_block_tokens,
            "max_num_seqs": engine.max_num_seqs,
            "max_num_batched_tokens": engine.max_num_batched_tokens,
            "enable_prefix_caching": False,
            # Only their quotient counts, bytes a second; the bandwidth is in GB/s.
            "kv_transfer_bytes_per_token": 1_000_000,
            "kv_transfer_bandwidth": engine.kv_transfer_tokens_per_s / 1e3,
            "timing_model": {
                "type": "external",
                "provider": "dynamo_profile",
                "config": {"path": str(profile)},
            },
        },
        "startup_time": startup_s,
        "tensor_parallel_size": engine.num_gpus,
    }


def as_the_mocker_reckons(engine: EngineModel) -> EngineModel:
    """The engine with the mocker's arithmetic instead of ours."""
    tokens = _prefill_tokens(engine)
    alone = Curve(x=tokens, y=np.maximum.accumulate(_alone_s(PassTimer(engine.timing), tokens)))
    timing = EngineTiming(
        dense=alone,
        attention_s_per_pair=0.0,
        decode=engine.timing.decode,
        mixed_pass_reads_weights_once=False,
    )
    return attrs.evolve(engine, timing=timing)


def _prefill_tokens(engine: EngineModel) -> Floats:
    return np.unique(np.rint(np.linspace(1, engine.max_num_batched_tokens, PREFILL_POINTS)))


def _alone_s(timer: PassTimer, tokens: Floats | Ints) -> Floats:
    """A pass over one prompt and nothing else."""
    return np.array([timer.pass_s(t, t * t / 2, 0, 0) for t in tokens.astype(np.int64).tolist()])


def _decode_s(timer: PassTimer, engine: EngineModel, kv_tokens: float, context: float) -> float:
    """A pass over a batch of so many KV tokens with this mean context; between whole batches a straight line."""
    requests = min(max(kv_tokens / context, 1.0), float(engine.max_num_seqs))
    low = int(requests)
    seconds = [timer.pass_s(0, 0.0, number, int(kv_tokens)) for number in (low, low + 1)]
    return seconds[0] + (requests - low) * (seconds[1] - seconds[0])
