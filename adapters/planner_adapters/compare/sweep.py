"""Runs every candidate on every case through any executor; what comes out doesn't depend on which.

Three stages, each a set of independent jobs of plain data and module-level functions: the windows of each trace are
surveyed; what they ask for at the start is the fleet that every policy finds; then policies, oracles and bounds run.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from functools import reduce
from typing import TypeVar

import attrs

from planner_adapters.compare.case import Case
from planner_adapters.compare.outcome import Outcome, outcome_of
from planner_adapters.compare.policies import ORACLE, Candidate, all_policies, candidates
from planner_adapters.simulation.baselines import fit
from planner_adapters.simulation.oracle import Survey, find_oracle, lower_bound, num_windows, survey
from planner_adapters.simulation.replay import replay
from planner_core import Role

MOST_WAITING = 32
CHUNK_WINDOWS = 40
"""Windows that one job surveys. Part of the result: the first guess of a chunk is its own."""
MAY_MISS_AT_FIRST = 0.01

Job = TypeVar("Job")
Result = TypeVar("Result")


def compare(
    cases: Sequence[Case],
    executor: Executor,
    *,
    policies: Sequence[str] | None = None,
    most_waiting: int = MOST_WAITING,
    on_progress: Callable[[float], None] = lambda share: None,
) -> list[Outcome]:
    """Every policy on every case, by case, policy and parameters; an oracle's figures have ``lower_bound_gpu_hours``.

    ``executor`` is any of ``concurrent.futures``, or what acts like one (``dask.distributed``'s
    ``client.get_executor()``), which holds up to ``most_waiting`` jobs at a time: more than it has workers, and not so
    many that their copies of the trace fill its memory. ``on_progress`` gets the share of the work that is done.
    """
    policies = tuple(all_policies()) if policies is None else policies
    twice = [name for name, number in Counter(case.name for case in cases).items() if number > 1]
    if twice:
        raise ValueError(f"compare: several cases have the name {', '.join(twice)}; Case.named gives others")
    chunks = [
        _Chunk(case=case, windows=range(first, min(first + CHUNK_WINDOWS, number)))
        for case in cases
        for number in [num_windows(case.workload, case.window_s)]
        for first in range(0, number, CHUNK_WINDOWS)
    ]
    looked = run_all(
        executor, _survey, chunks, most_waiting, lambda done: on_progress(0.1 * done / len(chunks))
    )
    runs = []
    for case in cases:
        parts = [found for chunk, found in zip(chunks, looked, strict=True) if chunk.case is case]
        whole = reduce(Survey.__add__, parts)
        ready = case if case.replicas_given else case.starting_with(first_fleet(case, whole))
        for candidate in candidates(ready, whole, policies):
            runs.append(
                _Run(case=ready, candidate=candidate, survey=whole if candidate.policy == ORACLE else None)
            )
    return run_all(executor, _run, runs, most_waiting, lambda done: on_progress(0.1 + 0.9 * done / len(runs)))


def first_fleet(case: Case, survey: Survey) -> dict[Role, int]:
    """The fewest replicas of each role with which hardly a request misses, until one ordered at the start is ready;
    within the limits.
    """
    fleet = {}
    for role, curves in survey.curves.items():
        number = max(1, math.ceil(case.roles[role].startup_s / survey.window_s))
        needs = [
            next(
                (
                    n
                    for n, misses in zip(curve.replicas, curve.misses, strict=True)
                    if misses <= max(min(curve.misses), MAY_MISS_AT_FIRST * curve.requests)
                ),
                0,
            )
            for curve in curves[:number]
        ]
        fleet[role] = max(1, *needs)
    return fit(case.config, fleet)


def run_all(
    executor: Executor,
    function: Callable[[Job], Result],
    jobs: Sequence[Job],
    most_waiting: int = MOST_WAITING,
    on_done: Callable[[int], None] = lambda done: None,
) -> list[Result]:
    """``function`` of each job, in their order, whatever the order in which they end."""
    results: dict[int, Result] = {}
    waiting: dict[Future[Result], int] = {}
    todo = iter(enumerate(jobs))
    try:
        while len(results) < len(jobs):
            while len(waiting) < most_waiting and (job := next(todo, None)) is not None:
                waiting[executor.submit(function, job[1])] = job[0]
            for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                results[waiting.pop(future)] = future.result()
            on_done(len(results))
    finally:
        for future in waiting:
            future.cancel()
    return [results[number] for number in range(len(jobs))]


@attrs.frozen(kw_only=True, eq=False)
class _Chunk:
    case: Case
    windows: range


def _survey(chunk: _Chunk) -> Survey:
    case = chunk.case
    return survey(
        case.workload,
        case.roles,
        case.config.sla,
        window_s=case.window_s,
        windows=chunk.windows,
        routing=case.routing,
        seed=case.seed,
    )


@attrs.frozen(kw_only=True, eq=False)
class _Run:
    case: Case
    candidate: Candidate
    survey: Survey | None


def _run(run: _Run) -> Outcome:
    if run.survey is not None:
        return _run_oracle(run.case, run.candidate, run.survey)
    case, policy = run.candidate.start(run.case)
    result = replay(
        case.workload, case.config, case.roles, policy=policy, routing=case.routing, seed=case.seed
    )
    return outcome_of(case.name, run.candidate, result)


def _run_oracle(case: Case, candidate: Candidate, survey: Survey) -> Outcome:
    attainment = candidate.params["attainment"]
    oracle = find_oracle(
        case.workload,
        case.config,
        case.roles,
        survey,
        attainment=attainment,
        routing=case.routing,
        seed=case.seed,
    )
    least = lower_bound(case.workload, case.config, case.roles, attainment=attainment)
    more = {
        "lower_bound_gpu_hours": least if math.isfinite(least) else None,
        "reached": oracle.reached,
        "trials": oracle.trials,
    }
    return outcome_of(case.name, candidate, oracle.result, **more)
