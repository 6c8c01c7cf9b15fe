"""What ``closed_loop.py`` runs: traces, engines, starts and simulators, and the case that each combination makes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import attrs
import numpy as np

from planner_adapters.compare import Case, case_of
from planner_adapters.config_file import Settings
from planner_adapters.dynamo.mocker_files import as_the_mocker_reckons
from planner_adapters.simulation.deployment import engine_of, plan_deployment
from planner_adapters.simulation.oracle.cost import request_cost_s
from planner_adapters.simulation.scaling import scaled
from planner_adapters.simulation.traces import load_workload
from planner_adapters.simulation.workload import Workload

DATA = Path(__file__).parents[2] / "shared" / "data"
TRACES = (
    "azure23_conv",
    "azure23_code",
    "azure24_code_ramp3h_full",
    "servegen_m_mid_day_thinned",
    "servegen_mm_image_24h",
)
SYNTHETIC = ("bursts", "mixed")
PROFILES = ("dynamo_H200_Llama-3.1-8B-FP8_vllm_tp1", "aic_Qwen3-32B-FP8_h200_sxm_trtllm_tp2")
QUICK_PROFILE = "aic_Llama-3.1-8B_a100_sxm_vllm_tp1"
"""A slow engine: few requests need several of it."""
MEAN_ENGINES, QUICK_MEAN_ENGINES = 4.0, 2.0
"""Replicas of work on average, at the least cost of each request: oracles then need some 4 to 20, or 2 to 8."""
WHOLE_S, QUICK_MINUTES = 86_400.0, 12.0


@attrs.frozen(kw_only=True)
class Cell:
    """One row of the table."""

    trace: str
    mode: str
    profile: str
    startup_s: float
    simulator: str
    minutes: float | None
    """From the start of the trace; ``None``: all of it."""

    def case(self, data: Path) -> Case:
        """Default configuration: the promise of 500 ms and 50 ms, no budget, and the engine. On the mocker, engines
        have its arithmetic, so that what our simulator plays beside it (oracle, baselines over their grids) is played
        alike.
        """
        keys = {
            "mode": self.mode,
            "optimization_target": "sla",
            "enable_load_scaling": True,
            "max_gpu_budget": -1,
        }
        engine = engine_of(profile=data / "profiles" / f"{self.profile}.npz")
        plan = plan_deployment(Settings(values=keys), engine, startup_s=self.startup_s)
        workload = workload_of(self.trace, data)
        seconds = WHOLE_S if self.minutes is None else self.minutes * 60
        workload = workload[workload.arrival_s < seconds]
        costs_s = [
            request_cost_s(workload, role, spec.engine, plan.config.sla).sum()
            for role, spec in plan.roles.items()
        ]
        engines = float(sum(costs_s) / workload.arrival_s[-1])
        wanted = MEAN_ENGINES if self.minutes is None else QUICK_MEAN_ENGINES
        workload = scaled(workload, float(f"{wanted / engines:.2g}"))
        if self.simulator == "mocker":
            roles = {
                role: attrs.evolve(spec, engine=as_the_mocker_reckons(spec.engine))
                for role, spec in plan.roles.items()
            }
            plan = attrs.evolve(plan, roles=roles)
        return case_of(workload, plan)


def cells(*, quick: bool, simulators: tuple[str, ...]) -> Iterator[Cell]:
    """All of the table, or a part that takes an hour instead of days."""
    for trace in (*TRACES[:3], *SYNTHETIC) if quick else (*TRACES, *SYNTHETIC):
        for profile in (QUICK_PROFILE,) if quick else PROFILES:
            for startup_s in (60.0,) if quick else (60.0, 180.0):
                for mode in ("agg", "disagg"):
                    for simulator in simulators:
                        yield Cell(
                            trace=trace,
                            mode=mode,
                            profile=profile,
                            startup_s=startup_s,
                            simulator=simulator,
                            minutes=QUICK_MINUTES if quick else None,
                        )


def workload_of(trace: str, data: Path) -> Workload:
    """A recorded trace, or one of the two synthetic hours: steady load with two minutes of four times as much every
    ten; a slow wave with smaller bursts and noise.
    """
    if trace not in SYNTHETIC:
        return load_workload(data / "traces" / f"{trace}.csv.gz")
    dice = np.random.default_rng(20 if trace == "bursts" else 23)
    at_s = np.arange(3600.0)
    if trace == "bursts":
        rate = np.where((at_s % 600 >= 420) & (at_s % 600 < 540), 20.0, 5.0)
    else:
        burst = np.where((at_s % 900 >= 600) & (at_s % 900 < 720), 6.0, 0.0)
        rate = 2 + 7 * (1 - np.cos(2 * np.pi * at_s / 3600)) + burst
        rate = rate * np.exp(0.1 * np.repeat(dice.standard_normal(60), 60))
    counts = dice.poisson(rate)
    arrival_s = np.sort(np.repeat(at_s, counts) + dice.random(counts.sum()))

    def lengths(median: float, sigma: float, most: int) -> np.ndarray:
        drawn = median * np.exp(sigma * dice.standard_normal(len(arrival_s)))
        return np.clip(np.rint(drawn), 2, most).astype(np.int64)

    return Workload(
        name=trace,
        arrival_s=arrival_s,
        input_tokens=lengths(1500, 0.7, 12_000),
        output_tokens=lengths(150, 0.7, 2_000),
    )
