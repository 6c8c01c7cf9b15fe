from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ["statsmodels", "prophet", "filterpy", "pandas", "scipy.stats"]


def python(code: str) -> str:
    """Run code in a fresh interpreter that sees the installed packages and not the working directory."""
    run = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


def test_importing_the_core_loads_nothing_heavy() -> None:
    loaded = python("import planner_core, sys; print(*sys.modules)").split()
    assert not set(HEAVY) & set(loaded)


def test_importing_the_core_loads_no_shell() -> None:
    loaded = python("import planner_core, sys; print(*sys.modules)").split()
    assert not [name for name in loaded if name.startswith("planner_adapters")]


@pytest.mark.parametrize("guest", ["statsmodels", "prophet", "filterpy", "pandas"])
def test_the_core_imports_where_a_heavy_guest_is_absent(guest: str) -> None:
    python(f"import sys; sys.modules[{guest!r}] = None; import planner_core")


TICKS_UNDER_AUDIT = """
import sys
from planner_core import *

def play(target, mode):
    keys = {"mode": mode, "optimization_target": target, "enable_load_scaling": True}
    engine = {"context_length": 8192, "max_kv_tokens": 400_000}
    roles = [Role.AGG] if mode == "agg" else [Role.PREFILL, Role.DECODE]
    config = PlannerConfig.from_mapping({**keys, "engines": {role: engine for role in roles}})
    state, upcoming = initial_state(config, now_s=0.0), first_tick(config, now_s=0.0)
    for n in range(60):
        load = {"prefill_tokens": 500.0 * (n % 9), "num_decode": n % 7, "decode_kv_tokens": 3000.0 * (n % 7)}
        batch = FpmBatch(worker_id=["a", "b"], wall_time_s=[0.02 + n % 9 / 100, 0.03], **load)
        decision = tick(TickInput(
            config=config, state=state, now_s=upcoming.at_s,
            workers={role: WorkerCounts(ready=2) for role in roles},
            fpm={role: batch for role in roles},
            traffic=TrafficObservation(duration_s=5, num_requests=9.0 * (n % 4), isl=900, osl=90),
        ))
        state, upcoming = decision.state, decision.next_tick

def play_all():
    for target in ("throughput", "latency", "sla"):
        for mode in ("agg", "disagg"):
            play(target, mode)

play_all()  # what is imported at its first use is imported now
events = set()
sys.addaudithook(lambda event, args: events.add(event))
play_all()
print(*sorted(events))
"""


def test_a_tick_touches_nothing_of_the_world() -> None:
    """No file, socket, process, clock or environment: Python's audit hook hears of none."""
    assert python(TICKS_UNDER_AUDIT) == ""
