"""Does our simulator agree with Dynamo's Rust mocker? Fixed fleets, from half to twice the size that is needed.

Each trace is played in two modes on two engines. The mocker reckons a pass in its own way (one prompt of as many
tokens, plus the decode batch), so ours is run twice: with that arithmetic, to compare the schedulers alone, and with
its own, to see what the arithmetic is worth. Needs ``pip install 'planner-core[mocker]'``.

    python benchmarks/simulators_agree.py
    python benchmarks/simulators_agree.py --minutes 15 --json agreement.json

Exit code 1 where a latency differs by more than 15 % or the attainment by more than 3 points, with equal arithmetic.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs

from planner_adapters.config_file import Settings
from planner_adapters.dynamo.mocker import replay_on_mocker
from planner_adapters.dynamo.mocker_files import as_the_mocker_reckons
from planner_adapters.simulation.baselines import static
from planner_adapters.simulation.deployment import Deployment, engine_of, plan_deployment
from planner_adapters.simulation.outcome import ReplayResult
from planner_adapters.simulation.replay import replay
from planner_adapters.simulation.scaling import scaled
from planner_adapters.simulation.traces import load_workload
from planner_adapters.simulation.workload import Workload
from planner_core import Role

DATA = Path(__file__).parents[2] / "shared" / "data"
TRACES = {"azure23_conv": 4.0, "azure23_code": 1.0}
"""And the factor of their rates, with which some four to twelve engines are needed."""
PROFILES = ("aic_Llama-3.1-8B_a100_sxm_vllm_tp1.npz", "dynamo_H200_Llama-3.1-8B-FP8_vllm_tp1.npz")
SHARES = (0.5, 0.75, 1.0, 1.5, 2.0)
"""Of the needed size."""
ENOUGH, AMPLE = 0.99, 64
WITHIN, WITHIN_POINTS = 0.15, 0.03


def deployment(mode: str, profile: Path, fleet: Mapping[Role, int]) -> Deployment:
    """Engines as profiled under the usual promise; nobody scales them."""
    keys = {"mode": mode, "optimization_target": "sla", "enable_load_scaling": True, "max_gpu_budget": -1}
    return plan_deployment(Settings(values=keys), engine_of(profile=profile), replicas=dict(fleet))


def played(play: Any, workload: Workload, plan: Deployment) -> ReplayResult:
    """With the fleet of the plan from start to end."""
    fleet = {role: spec.replicas for role, spec in plan.roles.items()}
    result: ReplayResult = play(workload, plan.config, plan.roles, policy=static(plan.config, fleet))
    return result


def needed(workload: Workload, mode: str, profile: Path) -> dict[Role, int]:
    """The fewest replicas of each role with which it keeps its part of the promise about as well as many would, the
    other role being ample.
    """
    roles = (Role.AGG,) if mode == "agg" else (Role.PREFILL, Role.DECODE)
    fleet = dict.fromkeys(roles, AMPLE)

    def kept(role: Role, replicas: int) -> float:
        result = played(replay, workload, deployment(mode, profile, fleet | {role: replicas}))
        parts = {Role.PREFILL: result.ttft_attainment, Role.DECODE: result.itl_attainment}
        return parts.get(role, result.sla_attainment)

    for role in roles:
        enough = min(ENOUGH, kept(role, AMPLE) - 0.001)
        low, high = 0, AMPLE
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if kept(role, middle) >= enough else (middle, high)
        fleet[role] = high
    return fleet


def figures(result: ReplayResult) -> dict[str, float]:
    """What is compared."""
    return {
        "attainment": result.sla_attainment,
        **{f"ttft_{p}_ms": result.ttft_ms[p] or 0.0 for p in ("p50", "p95")},
        **{f"itl_{p}_ms": result.itl_ms[p] or 0.0 for p in ("p50", "p95")},
    }


def rows(data: Path, minutes: float) -> Iterator[dict[str, Any]]:
    """One per trace, mode, engine and fleet."""
    for trace, factor in TRACES.items():
        workload = scaled(load_workload(data / "traces" / f"{trace}.csv.gz"), factor)
        workload = workload[workload.arrival_s < minutes * 60]
        for mode in ("agg", "disagg"):
            for name in PROFILES:
                profile = data / "profiles" / name
                enough = needed(workload, mode, profile)
                fleets = [{role: max(1, round(n * share)) for role, n in enough.items()} for share in SHARES]
                for fleet in [f for i, f in enumerate(fleets) if f not in fleets[:i]]:
                    plan = deployment(mode, profile, fleet)
                    theirs = {
                        role: attrs.evolve(spec, engine=as_the_mocker_reckons(spec.engine))
                        for role, spec in plan.roles.items()
                    }
                    yield {
                        "trace": trace,
                        "mode": mode,
                        "profile": name,
                        "fleet": {str(role): number for role, number in fleet.items()},
                        "needed": {str(role): number for role, number in enough.items()},
                        "mocker": figures(played(replay_on_mocker, workload, plan)),
                        "ours": figures(played(replay, workload, attrs.evolve(plan, roles=theirs))),
                        "ours_own_arithmetic": figures(played(replay, workload, plan)),
                    }


def off(row: Mapping[str, Any], ours: str) -> tuple[float, float]:
    """(largest relative difference of a latency, difference of attainment) from the mocker."""
    theirs = row["mocker"]
    latencies = [key for key in theirs if key.endswith("_ms")]
    return (
        max(abs(row[ours][key] / theirs[key] - 1) for key in latencies),
        abs(row[ours]["attainment"] - theirs["attainment"]),
    )


def agree(row: Mapping[str, Any]) -> bool:
    """With equal arithmetic."""
    latency, points = off(row, "ours")
    return latency <= WITHIN and points <= WITHIN_POINTS


def main() -> int:
    """Print the table; 1 where the simulators disagree."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=DATA, help="folder with traces/ and profiles/")
    parser.add_argument(
        "--minutes", type=float, default=60.0, help="of each trace (default: all of the hour)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure as JSON")
    arguments = parser.parse_args()
    print(
        "trace         mode    engine         fleet    attainment     latencies  attainment off  (own arithmetic)"
    )
    found = []
    for row in rows(arguments.data, arguments.minutes):
        found.append(row)
        latency, points = off(row, "ours")
        own = off(row, "ours_own_arithmetic")
        fleet = "+".join(str(number) for number in row["fleet"].values())
        kept = f"{row['ours']['attainment']:.3f} / {row['mocker']['attainment']:.3f}"
        print(
            f"{row['trace']:<13} {row['mode']:<7} {row['profile'][:14]:<14} {fleet:<8} {kept}"
            f"  {latency:>8.1%} {points * 100:>8.2f} points  ({own[0]:.1%}, {own[1] * 100:.2f})"
            f"{'' if agree(row) else '  DISAGREE'}",
            flush=True,
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1), encoding="utf-8")
    bad = sum(not agree(row) for row in found)
    print(f"{len(found) - bad} of {len(found)} fleets agree")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
