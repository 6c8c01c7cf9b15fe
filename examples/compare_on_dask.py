"""The comparison of policies on a Dask cluster: the same call as with processes, another executor.

`python examples/compare_on_dask.py [SCHEDULER]` runs on the cluster of that address (tcp://scheduler:8786), or, without
one, on two workers in this process. It needs `pip install distributed`.
"""

from __future__ import annotations

import sys

from planner_adapters.compare import case_of, compare
from planner_adapters.config_file import Settings
from planner_adapters.simulation.deployment import engine_of, plan_deployment
from planner_adapters.simulation.synthetic import working_day

try:
    from dask.distributed import Client
except ImportError:
    print("this example needs Dask: pip install distributed")
    sys.exit(0)

keys = {"mode": "agg", "optimization_target": "sla", "enable_load_scaling": True, "max_gpu_budget": -1}
deployment = plan_deployment(Settings(values=keys), engine_of(name="llama-3.1-70b-fp8-h100"), startup_s=60.0)
cases = [case_of(working_day(seed=seed, hours=0.1, mean_rps=6.0), deployment) for seed in range(2)]
for number, case in enumerate(cases):  # a name of its own for each
    cases[number] = case.named(f"working day {number}")

if len(sys.argv) > 1:
    client = Client(sys.argv[1])
else:
    client = Client(processes=False, n_workers=2, threads_per_worker=1, dashboard_address=None)
with client, client.get_executor() as executor:
    most_waiting = 2 * sum(client.nthreads().values())
    outcomes = compare(
        cases, executor, policies=["planner", "hpa-queue", "oracle"], most_waiting=most_waiting
    )

for outcome in outcomes:
    candidate = outcome.candidate
    if candidate.is_default:
        print(
            f"{outcome.trace}: {candidate.policy:9} {outcome.attainment:6.1%} of requests within the SLA, "
            f"{outcome.gpu_hours:.2f} GPU-hours"
        )
