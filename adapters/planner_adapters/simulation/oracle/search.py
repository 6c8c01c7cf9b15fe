"""The cheapest plan that keeps a promised attainment, by one who knows every request.

It is planned on a survey, exactly: dynamic programming over the windows, in which a replica costs its time, its
start and its draining, and a missed request costs a price, which is raised until few enough miss. The simulator
then tells what really happens. That corrects the survey where the plan went, and it is planned again. The cheapest
plan that kept the promise *on the simulator* is the oracle's. It is the best that was found, not the best there is:
windows of another length may find one that is some percent cheaper.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs
import numpy as np

from planner_adapters.simulation.baselines import fit
from planner_adapters.simulation.oracle.plan import Plan, PlanPolicy
from planner_adapters.simulation.oracle.table import MissTable
from planner_adapters.simulation.oracle.windows import Survey
from planner_adapters.simulation.outcome import ReplayResult
from planner_adapters.simulation.pool import PoolSpec, Routing
from planner_adapters.simulation.replay import replay
from planner_adapters.simulation.results import Floats, Ints
from planner_adapters.simulation.workload import Workload
from planner_core import PlannerConfig, Role

MAX_TRIALS = 20
PATIENCE = 6
"""Plans in a row that were tried before, after which the search ends."""
PRICES_S = (1e-3, 1e9)
"""GPU-seconds for a missed request between which the price is sought."""


@attrs.frozen(kw_only=True, eq=False)
class Oracle:
    """What the oracle found."""

    plan: Plan
    result: ReplayResult
    """Of the plan, on the simulator."""
    reached: bool
    """Whether it keeps the promise; if not, it is the plan with the highest attainment."""
    trials: int
    """Plans that were tried on the simulator."""


def find_oracle(
    workload: Workload,
    config: PlannerConfig,
    roles: Mapping[Role, PoolSpec],
    survey: Survey,
    *,
    attainment: float = 0.99,
    max_trials: int = MAX_TRIALS,
    routing: Routing = "round_robin",
    seed: int = 0,
) -> Oracle:
    """The least GPU-hours found for ``attainment``, with the fleet of ``roles`` at the start and their startup times.

    Deterministic. A better plan may exist; how much better at most, is said by
    :func:`~planner_adapters.simulation.oracle.lower_bound`.
    """
    tables = {role: MissTable.of(survey, role, spec, config) for role, spec in roles.items()}
    startup_s = {role: spec.startup_s for role, spec in roles.items()}
    allowed = aim = (1 - attainment) * len(workload)
    tried: dict[bytes, tuple[float, dict[Role, Floats]]] = {}  # what missed: in all, and by role and window
    best: Oracle | None = None
    repeats = 0
    while len(tried) < max_trials and repeats < PATIENCE:
        plan = Plan(window_s=survey.window_s, replicas=_within_budget(config, _cheapest(tables, aim)))
        key = b"".join(plan.replicas[role].tobytes() for role in roles)
        repeats = repeats + 1 if key in tried else 0
        if key not in tried:
            policy = PlanPolicy(plan, startup_s)
            result = replay(workload, config, roles, policy=policy, routing=routing, seed=seed)
            missed = len(workload) * (1 - result.sla_attainment)
            tried[key] = missed, {role: _missed(result, role, survey) for role in roles}
            found = Oracle(plan=plan, result=result, reached=missed <= allowed + 1e-6, trials=len(tried))
            best = found if best is None or _better(found, best) else best
        missed, by_window = tried[key]
        for role, table in tables.items():
            table.correct(plan.replicas[role], by_window[role])
        # The survey is a little wrong everywhere: aim where that lands right.
        aim = max(0.0, aim + 0.5 * (allowed - missed))
    assert best is not None
    return attrs.evolve(best, trials=len(tried))


def _better(one: Oracle, other: Oracle) -> bool:
    if one.reached and other.reached:
        return one.result.gpu_hours < other.result.gpu_hours
    if one.reached or other.reached:
        return one.reached
    return one.result.sla_attainment > other.result.sla_attainment


def _cheapest(tables: Mapping[Role, MissTable], aim: float) -> dict[Role, Ints]:
    """At the lowest price of a miss at which no more than ``aim`` are expected; then what can still be cut is cut."""
    low, high = PRICES_S
    best = {role: table.plan(high) for role, table in tables.items()}
    while high / low > 1.02:
        price_s = (low * high) ** 0.5
        plans = {role: table.plan(price_s) for role, table in tables.items()}
        if _expected(tables, plans) <= aim:
            high, best = price_s, plans
        else:
            low = price_s
    for role, table in tables.items():
        best[role] = table.cut(best[role], aim - _expected(tables, best))
    return best


def _within_budget(config: PlannerConfig, plans: Mapping[Role, Ints]) -> dict[Role, Ints]:
    fitted = [
        fit(config, dict(zip(plans, map(int, row), strict=True))) for row in zip(*plans.values(), strict=True)
    ]
    return {role: np.array([row[role] for row in fitted], dtype=np.int64) for role in plans}


def _expected(tables: Mapping[Role, MissTable], plans: Mapping[Role, Ints]) -> float:
    return sum(table.expected(plans[role]) for role, table in tables.items())


def _missed(result: ReplayResult, role: Role, survey: Survey) -> Floats:
    """Requests of each window of arrival that missed what this role answers for."""
    requests, sla = result.requests, result.sla
    in_time = np.ones(len(requests.status), dtype=np.bool_)
    if role is not Role.DECODE:
        in_time &= requests.met_ttft(sla.ttft_ms)
    if role is not Role.PREFILL:
        in_time &= requests.met_itl(sla.itl_ms)
    window = (requests.arrival_s // survey.window_s).astype(np.int64)
    number = len(survey.curves[role])
    return np.bincount(window[~in_time], minlength=number).astype(np.float64)
