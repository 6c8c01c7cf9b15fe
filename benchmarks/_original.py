"""The original planner (``ai-dynamo`` 1.1.1) as a policy of our loop: a black box that is asked, and never looked into.

Runs in a virtual environment of its own, which has it and ``ai-dynamo-runtime`` 1.6.1, with this project on its path:
``python _original.py DATA`` reads one job as JSON and prints its row.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from planner_adapters.compare import Candidate, Case
from planner_adapters.compare.outcome import outcome_of
from planner_adapters.dynamo.mocker import replay_on_mocker
from planner_adapters.environment import Measured
from planner_adapters.simulation.model import EngineModel
from planner_adapters.simulation.policy import PlainOrder
from planner_adapters.simulation.replay import replay
from planner_adapters.simulation.timing import PassTimer
from planner_core import NextTick, Role

PREDICTORS = ("constant", "arima", "kalman", "prophet")
CONFIGS: tuple[dict[str, Any], ...] = (
    {"optimization_target": "throughput"},
    {"optimization_target": "latency"},
    *({"optimization_target": "sla", "load_predictor": name} for name in PREDICTORS),
)
QUICK_CONFIGS = tuple(params for params in CONFIGS if params.get("load_predictor", "constant") == "constant")
NEEDS = frozenset({"workers", "fpm", "traffic"})

_SCHEDULED = {
    "num_prefill_requests": "num_prefill",
    "sum_prefill_tokens": "prefill_tokens",
    "var_prefill_length": "var_prefill_length",
    "sum_prefill_kv_tokens": "prefill_kv_tokens",
    "num_decode_requests": "num_decode",
    "sum_decode_kv_tokens": "decode_kv_tokens",
    "var_decode_kv_tokens": "var_decode_kv_tokens",
}
_QUEUED = {name: f"queued_{ours}" for name, ours in _SCHEDULED.items() if ours != "prefill_kv_tokens"}


def message(worker_id: str, wall_time_s: float, **columns: float) -> SimpleNamespace:
    """A ForwardPassMetrics message; columns have our names."""
    return SimpleNamespace(
        version=1,
        worker_id=worker_id,
        dp_rank=0,
        counter_id=0,
        wall_time=wall_time_s,
        scheduled_requests=SimpleNamespace(**{t: columns.get(o, 0) for t, o in _SCHEDULED.items()}),
        queued_requests=SimpleNamespace(**{t: columns.get(o, 0) for t, o in _QUEUED.items()}),
    )


class Original:
    """Its state machine, bootstrapped with passes of the engine's profile, behind our policy's two questions."""

    def __init__(self, case: Case, params: Mapping[str, Any]) -> None:
        from dynamo.planner.config.planner_config import PlannerConfig
        from dynamo.planner.core import types
        from dynamo.planner.core.state_machine import PlannerStateMachine

        logging.disable(logging.CRITICAL)
        self._roles = tuple(case.roles)
        is_agg = case.config.mode == "agg"
        config = {
            "mode": case.config.mode,
            "ttft": case.config.sla.ttft_ms,
            "itl": case.config.sla.itl_ms,
            "max_gpu_budget": -1,
            "enable_load_scaling": True,
            "enable_throughput_scaling": params["optimization_target"] == "sla",
            **params,
        }
        capabilities = {
            str(Role.DECODE if role is Role.AGG else role): types.EngineCapabilities(
                num_gpu=spec.engine.num_gpus,
                max_num_batched_tokens=spec.engine.max_num_batched_tokens,
                max_num_seqs=spec.engine.max_num_seqs,
                context_length=spec.engine.longest_request_tokens,
                max_kv_tokens=spec.engine.max_kv_tokens,
            )
            for role, spec in case.roles.items()
        }
        self._machine = PlannerStateMachine(
            PlannerConfig.model_validate(config),
            types.WorkerCapabilities(prefill=capabilities.get("prefill"), decode=capabilities.get("decode")),
        )
        if params["optimization_target"] == "sla":
            passes = {role: benchmark_passes(spec.engine) for role, spec in case.roles.items()}
            if is_agg:
                self._machine.load_benchmark_fpms(agg_fpms=[m for half in passes[Role.AGG] for m in half])
            else:
                self._machine.load_benchmark_fpms(
                    prefill_fpms=passes[Role.PREFILL][0], decode_fpms=passes[Role.DECODE][1]
                )

    def begin(self, now_s: float) -> NextTick:
        """Its first tick."""
        self._tick = self._machine.initial_tick(now_s)
        return self._next()

    def decide(self, now_s: float, measured: Measured) -> PlainOrder:
        """One tick, with all it asks for."""
        workers = measured["workers"]
        seen = {
            self._slot(role): (
                counts.ready,
                counts.expected if counts.expected is not None else counts.ready,
                self._messages(measured, role),
            )
            for role, counts in workers.items()
        }
        nothing = (None, None, None)
        prefill, decode = seen.get("prefill", nothing), seen.get("decode", nothing)
        traffic = measured.get("traffic")
        wants_traffic = getattr(self._tick, "need_traffic_metrics", True)
        effects = self._machine.on_tick(
            self._tick,
            SimpleNamespace(
                now_s=now_s,
                traffic=_traffic(traffic) if traffic is not None and wants_traffic else None,
                worker_counts=SimpleNamespace(
                    ready_num_prefill=prefill[0],
                    expected_num_prefill=prefill[1],
                    ready_num_decode=decode[0],
                    expected_num_decode=decode[1],
                ),
                fpm_observations=SimpleNamespace(prefill=prefill[2], decode=decode[2]),
            ),
        )
        self._tick = effects.next_tick
        replicas: dict[Role, int] = {}
        for role in self._roles:
            wish = getattr(effects.scale_to, f"num_{self._slot(role)}", None)
            if wish is not None:
                replicas[role] = int(wish)
        return PlainOrder(replicas=replicas, next_tick=self._next())

    def _next(self) -> NextTick:
        needs = NEEDS if getattr(self._tick, "need_traffic_metrics", True) else NEEDS - {"traffic"}
        return NextTick(
            at_s=self._tick.at_s, load=True, throughput=False, needs=needs, traffic_window_s=180.0
        )

    @staticmethod
    def _slot(role: Role) -> str:
        return "prefill" if role is Role.PREFILL else "decode"

    @staticmethod
    def _messages(measured: Measured, role: Role) -> dict[tuple[str, int], SimpleNamespace] | None:
        batch = measured["fpm"].get(role)
        if batch is None or not len(batch):
            return None
        names = [*_SCHEDULED.values(), *_QUEUED.values()]
        columns = {name: np.asarray(getattr(batch, name)).tolist() for name in names}
        rows = enumerate(zip(map(str, batch.worker_id), batch.wall_time_s, strict=True))
        return {  # of several passes of an engine the last one stays
            (worker, 0): message(worker, float(wall_s), **{name: columns[name][row] for name in names})
            for row, (worker, wall_s) in rows
        }


def _traffic(traffic: Any) -> SimpleNamespace:
    return SimpleNamespace(
        duration_s=traffic.duration_s,
        num_req=traffic.num_requests,
        isl=traffic.isl or 0.0,
        osl=traffic.osl or 0.0,
        kv_hit_rate=None,
        accept_length=None,
    )


def benchmark_passes(engine: EngineModel) -> tuple[list[SimpleNamespace], list[SimpleNamespace]]:
    """(prefill, decode) passes as a sweep before deployment would have measured them."""
    timer = PassTimer(engine.timing)
    prompts = np.unique(np.linspace(64, engine.max_num_batched_tokens, 12).astype(int)).tolist()
    prefill = [
        message("sweep", timer.pass_s(t, t * t / 2, 0, 0), num_prefill=1, prefill_tokens=t) for t in prompts
    ]
    decode = [
        message("sweep", timer.pass_s(0, 0.0, n, n * c), num_decode=n, decode_kv_tokens=n * c)
        for c in (512, 1024, 2048, 4096, 8192)
        for n in (1, 2, 4, 8, 16, 32, 64, 128, 256)
        if n <= engine.max_num_seqs and n * c <= engine.max_kv_tokens
    ]
    return prefill, decode


def main() -> None:
    """One job: a cell, the fleet at the start, and the parameters."""
    from _cells import Cell

    job = json.load(sys.stdin)
    cell = Cell(**job["cell"])
    case = cell.case(Path(sys.argv[1])).starting_with({Role(r): n for r, n in job["fleet"].items()})
    play = replay_on_mocker if cell.simulator == "mocker" else replay
    policy = Original(case, job["params"])
    result = play(case.workload, case.config, case.roles, policy=policy)
    candidate = Candidate(policy="original", params=job["params"], is_default=job["params"] == CONFIGS[0])
    print(json.dumps(outcome_of(cell.trace, candidate, result).row()))


if __name__ == "__main__":
    main()
