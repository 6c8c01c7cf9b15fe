"""How long a replay takes, and whether its time grows linearly with the requests.

Replays the conversation trace in ../shared/data (without it, the built-in working day, cut to as many
requests): the whole, the first half and the first quarter. Linear means that the time per request stays the
same.
"""

from __future__ import annotations

from pathlib import Path

from planner_adapters.config_file import Settings
from planner_adapters.simulation.deployment import engine_of, plan_deployment
from planner_adapters.simulation.replay import replay
from planner_adapters.simulation.synthetic import working_day
from planner_adapters.simulation.traces import load_workload
from planner_adapters.simulation.workload import Workload

TRACE = Path(__file__).parents[2] / "shared/data/traces/azure23_conv.csv.gz"
REQUESTS = 19_366
GOAL_S = 10.0


def main() -> None:
    """Print one line per mode and length."""
    workload = load_workload(TRACE) if TRACE.exists() else working_day()[:REQUESTS]
    print(f"{workload.name}: {len(workload):,} requests; goal: all of them in {GOAL_S:g} s")
    for mode in ("agg", "disagg"):
        whole_us = None
        for quarters in (4, 2, 1):
            part = workload[: len(workload) * quarters // 4]
            wall_s, planner_s = time_of(part, mode)
            per_request_us = wall_s / len(part) * 1e6
            whole_us = whole_us or per_request_us
            print(
                f"{mode:>6}  {len(part):>6,} requests  {wall_s:6.2f} s (planner {planner_s:.2f} s)  "
                f"{per_request_us:6.0f} µs each, {per_request_us / whole_us:.2f} × that of all"
            )


def time_of(workload: Workload, mode: str) -> tuple[float, float]:
    """The faster of two replays under the target ``sla``: seconds, and seconds in the planner."""
    settings = Settings(values={"mode": mode, "optimization_target": "sla", "enable_load_scaling": True})
    deployment = plan_deployment(settings, engine_of())
    results = [replay(workload, deployment.config, deployment.roles) for _ in range(2)]
    return min((result.wall_s, result.planner_s) for result in results)


if __name__ == "__main__":
    main()
