"""The planner as a loop that survives faults: :func:`run`, its synchronous twin, and the process around it."""

from __future__ import annotations

from planner_adapters.runner.clock import Clock, SteadyClock
from planner_adapters.runner.health import Health
from planner_adapters.runner.health_server import serve_health
from planner_adapters.runner.live import Fault, Live, TimeLimits
from planner_adapters.runner.loop import Watcher, run, run_sync
from planner_adapters.runner.records import Records, remembered
from planner_adapters.runner.reload import ConfigFile, carry_over, check_reload
from planner_adapters.runner.service import Service, serve
from planner_adapters.runner.sole_writer import InUseError, sole_writer
from planner_adapters.runner.state_file import Saved, StateError, read_state, write_state

__all__ = [
    "Clock",
    "ConfigFile",
    "Fault",
    "Health",
    "InUseError",
    "Live",
    "Records",
    "Saved",
    "Service",
    "StateError",
    "SteadyClock",
    "TimeLimits",
    "Watcher",
    "carry_over",
    "check_reload",
    "read_state",
    "remembered",
    "run",
    "run_sync",
    "serve",
    "serve_health",
    "sole_writer",
    "write_state",
]
