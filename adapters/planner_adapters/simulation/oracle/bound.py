"""GPU-hours that no policy can stay below, whatever it knows: a proof, not a plan.

What a request costs at least is the first half of it (``cost``). The second half: the work of a request that keeps
the SLA is done between its arrival and its latest end within the SLA. Over any row of windows, the replicas that
serve have at least the time of the work that lies inside it. Windows in which more serve than in an earlier one
need starts, each of which costs ``startup_s``, and none ends sooner than that; ready and starting replicas are
never fewer than the minimum. The requests that may miss are chosen as if they were those with the most work. All
this is linear in the time that replicas serve and start, and so is the cost: its least, by linear programming, is
below every policy's GPU-hours.

The bound counts work, and lets an engine arrange it as it likes. Where a latency is missed because requests come in
clumps, or because prefill interrupts short outputs, what is possible lies well above it.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import numpy as np

from planner_adapters.simulation.oracle.cost import request_cost_s
from planner_adapters.simulation.pool import PoolSpec
from planner_adapters.simulation.results import Floats
from planner_adapters.simulation.workload import Workload
from planner_core import PlannerConfig, Role

MAX_WINDOWS = 240
"""More of them make the bound hardly tighter, and the linear program slow."""


def lower_bound(
    workload: Workload,
    config: PlannerConfig,
    roles: Mapping[Role, PoolSpec],
    *,
    attainment: float = 0.99,
    window_s: float = 5.0,
) -> float:
    """GPU-hours below which no policy reaches ``attainment`` on the simulator, from this fleet at the start."""
    window_s = max(window_s, float(workload.arrival_s[-1]) / MAX_WINDOWS)
    may_miss = int((1 - attainment) * len(workload) + 1e-9)
    hours = 0.0
    for role, spec in roles.items():
        cost_s = request_cost_s(workload, role, spec.engine, config.sla)
        replica_s = _fleet_s(workload, role, spec, config, cost_s, may_miss, window_s)
        hours += replica_s * spec.engine.num_gpus / 3600
    return hours


def _fleet_s(
    workload: Workload,
    role: Role,
    spec: PoolSpec,
    config: PlannerConfig,
    cost_s: Floats,
    may_miss: int,
    window_s: float,
) -> float:
    """Replica-seconds at least; infinite where that many requests can't keep the SLA from this fleet at the start."""
    first = (workload.arrival_s // window_s).astype(np.int64)
    last = ((workload.arrival_s + _longest_s(workload, role, config)) // window_s).astype(np.int64)
    windows = int(last.max()) + 1
    work_s = np.zeros((windows, windows))  # by the first and the last window in which it may be done
    np.add.at(work_s, (first, last), cost_s)
    inside_s = np.cumsum(np.cumsum(work_s[::-1], axis=0)[::-1], axis=1)  # from a window to a window
    program = _Program(windows)
    serving, starting, ended, missed = program.blocks
    arrived_s = work_s.sum(axis=1)
    for i, j in pairwise(range(windows + 1)):
        for block in program.blocks:
            program.at_least({block[j]: 1, block[i]: -1}, 0.0)
        program.at_least({missed[i]: 1, missed[j]: -1}, -arrived_s[i])
        program.at_least({starting[j]: 1, ended[j]: -spec.startup_s}, 0.0)
        program.at_least({serving[i]: 1, serving[j]: -1, ended[j]: window_s}, -spec.replicas * window_s)
        if j * window_s < spec.startup_s:
            program.at_least({ended[j]: -1}, 0.0)
        if j * window_s <= workload.arrival_s[-1]:
            in_use = {serving[j]: 1, serving[i]: -1, starting[j]: 1, starting[i]: -1}
            program.at_least(in_use, config.engines[role].min_replicas * window_s)
    saved_s = float(np.sort(cost_s)[len(cost_s) - may_miss :].sum()) if may_miss else 0.0
    program.at_least({missed[windows]: -1}, -saved_s)
    for length in _lengths(windows):
        for begin in range(windows - length + 1):
            end = begin + length
            done = {serving[end]: 1, serving[begin]: -1, missed[end]: 1, missed[begin]: -1}
            program.at_least(done, float(inside_s[begin, end - 1]))
            if end < windows and length > 1:
                rise = {serving[begin + 1]: 1, serving[begin]: -1, serving[end + 1]: -1, serving[end]: 1}
                program.at_least(rise | {ended[end + 1]: window_s, ended[begin]: -window_s}, 0.0)
    return program.least([serving[windows], starting[windows]])


def _longest_s(workload: Workload, role: Role, config: PlannerConfig) -> Floats:
    """From arrival to the latest end of what the role does for a request that keeps the SLA."""
    longest_s = np.zeros(len(workload))
    if config.mode != "decode":
        longest_s += config.sla.ttft_ms / 1e3
    if role is not Role.PREFILL:
        longest_s += config.sla.itl_ms / 1e3 * (workload.output_tokens - 1)
    return longest_s


def _lengths(windows: int) -> list[int]:
    """Rows of windows that are looked at: 1, 2, 3, 4, 6, 8, 12, 16, …"""
    powers = [2**power for power in range(windows.bit_length())]
    return sorted({length for power in powers for length in (power, power * 3 // 2) if length <= windows})


class _Program:
    """A sparse linear program over running sums by window: seconds in which replicas serve, seconds in which they
    start, starts that have ended, and work of requests that miss.
    """

    def __init__(self, windows: int) -> None:
        self._size = windows + 1
        self.blocks = [range(block * self._size, (block + 1) * self._size) for block in range(4)]
        self._rows: list[Mapping[int, float]] = []
        self._least: list[float] = []

    def at_least(self, terms: Mapping[int, float], least: float) -> None:
        """Σ factor × variable ≥ least."""
        self._rows.append(terms)
        self._least.append(least)

    def least(self, variables: list[int]) -> float:
        """The least sum of these variables; infinite if nothing fulfils the program."""
        from scipy.optimize import linprog
        from scipy.sparse import csr_matrix

        factors = [-factor for row in self._rows for factor in row.values()]
        places = [[number, variable] for number, row in enumerate(self._rows) for variable in row]
        shape = (len(self._rows), 4 * self._size)
        matrix = csr_matrix((factors, np.array(places).T), shape=shape)
        goal = np.zeros(shape[1])
        goal[variables] = 1.0
        bounds = [(0.0, 0.0 if variable % self._size == 0 else None) for variable in range(shape[1])]
        found = linprog(goal, A_ub=matrix, b_ub=-np.array(self._least), bounds=bounds, method="highs")
        if found.status == 2:  # infeasible
            return float("inf")
        return float(found.fun) if found.success else 0.0
