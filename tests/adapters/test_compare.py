from __future__ import annotations

import json
import pickle
import random
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from html.parser import HTMLParser
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner_adapters.compare import FAMILIES, Case, Outcome, case_of, compare, front, write_page
from planner_adapters.compare.policies import ORACLE, all_policies
from planner_adapters.compare.sweep import run_all
from planner_adapters.config_file import Settings
from planner_adapters.simulation.deployment import engine_of, plan_deployment
from planner_adapters.simulation.workload import Workload


def workload(name: str = "bump", seed: int = 0) -> Workload:
    """Two minutes at 4, one at 16, one at 4 requests a second."""
    rng = np.random.default_rng(seed)
    arrival_s = np.sort(np.concatenate([rng.uniform(0, 240, 960), rng.uniform(120, 180, 720)]))
    number = len(arrival_s)
    return Workload(
        name=name,
        arrival_s=arrival_s,
        input_tokens=rng.integers(200, 3000, number),
        output_tokens=rng.integers(1, 100, number),
    )


def case(mode: str = "agg", *, name: str = "bump", replicas: int | None = None, **keys: Any) -> Case:
    settings = Settings(
        values={
            "mode": mode,
            "optimization_target": "sla",
            "enable_load_scaling": True,
            "max_gpu_budget": -1,
            "itl_ms": 40,
        }
        | keys
    )
    deployment = plan_deployment(
        settings, engine_of(name="llama-3.1-70b-fp8-h100"), startup_s=30.0, replicas=replicas
    )
    return case_of(workload(name), deployment, replicas_given=replicas is not None)


class Backwards(Executor):
    """Runs jobs by sevens, the last one first."""

    def __init__(self) -> None:
        self._jobs: list[tuple[Future[Any], Any, Any]] = []

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self._jobs.append((future, fn, args))
        while len(self._jobs) == 7:
            for waiting, function, arguments in reversed(self._jobs):
                waiting.set_result(function(*arguments))
            self._jobs.clear()
        return future


@pytest.fixture(scope="module")
def threads() -> Iterator[Executor]:
    with ThreadPoolExecutor(2) as executor:
        yield executor


@pytest.fixture(scope="module")
def outcomes(threads: Executor) -> list[Outcome]:
    return compare([case(), case(name="other", replicas=2)], threads)


def rows(outcomes: list[Outcome]) -> str:
    return json.dumps([outcome.row() for outcome in outcomes])


# What comes out


def test_every_policy_runs_on_every_trace(outcomes: list[Outcome]) -> None:
    for trace in ("bump", "other"):
        policies = [o.candidate.policy for o in outcomes if o.trace == trace]
        assert list(dict.fromkeys(policies)) == list(all_policies())


def test_a_row_is_json_with_the_promised_keys_first(outcomes: list[Outcome]) -> None:
    for row in json.loads(rows(outcomes)):
        assert list(row)[:7] == [
            *("trace", "policy", "params", "is_default"),
            *("sla_attainment", "gpu_hours", "direction_changes"),
        ]
        assert row["completed"] == row["requests"] == 1680


def test_each_policy_has_one_usual_set_of_parameters(outcomes: list[Outcome]) -> None:
    for trace in ("bump", "other"):
        usual = [o.candidate.policy for o in outcomes if o.trace == trace and o.candidate.is_default]
        assert sorted(usual) == sorted(set(all_policies()) - {"static"})


def test_no_parameters_run_twice(outcomes: list[Outcome]) -> None:
    keys = [(o.trace, o.candidate.policy, json.dumps(o.candidate.params)) for o in outcomes]
    assert len(keys) == len(set(keys))


def test_all_policies_find_the_same_fleet_at_the_start(outcomes: list[Outcome]) -> None:
    for trace in ("bump", "other"):
        assert (
            len({o.steps[1][0] for o in outcomes if o.trace == trace and o.candidate.policy != "static"}) == 1
        )
    assert {o.steps[1][0] for o in outcomes if o.trace == "other" and o.candidate.policy == "kpa"} == {2}


def test_the_fleet_at_the_start_is_enough_for_the_first_minute(outcomes: list[Outcome]) -> None:
    """So that nobody is judged by requests that no policy could have saved."""
    for outcome in outcomes:
        if outcome.trace == "bump" and outcome.candidate.params == {"attainment": 0.999}:
            assert outcome.figures["reached"]


def test_the_steps_end_with_the_last_request_and_start_at_zero(outcomes: list[Outcome]) -> None:
    for outcome in outcomes:
        at_s, replicas = outcome.steps
        assert at_s[0] == 0
        assert at_s[-1] == outcome.figures["simulated_s"]
        assert np.all(np.diff(at_s) > 0)
        assert replicas.max() == outcome.figures["peak_replicas"]


def test_the_oracle_is_cheapest_for_what_it_promises(outcomes: list[Outcome]) -> None:
    """No other run with at least its attainment costs noticeably less; and the bound is below them all."""
    for oracle in (o for o in outcomes if o.candidate.policy == ORACLE):
        others = [
            o
            for o in outcomes
            if o.trace == oracle.trace and o.attainment >= oracle.candidate.params["attainment"]
        ]
        assert oracle.figures["reached"]
        assert oracle.figures["lower_bound_gpu_hours"] <= min(o.gpu_hours for o in others)
        assert oracle.gpu_hours <= 1.03 * min(o.gpu_hours for o in others)


# Whatever the executor


def test_results_do_not_depend_on_the_executor_or_the_order(
    outcomes: list[Outcome], threads: Executor
) -> None:
    few = ("planner", "kpa", ORACLE)
    one = rows(compare([case()], threads, policies=few))
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as processes:
        assert rows(compare([case()], processes, policies=few)) == one
    assert one == rows([o for o in outcomes if o.trace == "bump" and o.candidate.policy in few])


def test_results_come_in_the_order_of_the_jobs() -> None:
    numbers = list(range(21))
    random.Random(0).shuffle(numbers)
    seen: list[int] = []
    assert run_all(Backwards(), abs, numbers, on_done=seen.append) == numbers
    assert seen[-1] == len(numbers)


def test_what_a_job_raises_reaches_the_caller(threads: Executor) -> None:
    with pytest.raises(ZeroDivisionError):
        run_all(threads, (1).__truediv__, [1, 0, 2])


def test_a_case_and_its_candidates_travel() -> None:
    there = pickle.loads(pickle.dumps(case()))
    assert there.workload == case().workload
    assert there.config == case().config


@pytest.mark.parametrize("mode", ["disagg", "prefill", "decode"])
def test_other_modes_are_compared_too(mode: str, threads: Executor) -> None:
    few = ("planner", "static", "hpa-queue", ORACLE)
    small = attrs.evolve(case(mode), workload=workload()[::2])
    found = compare([small], threads, policies=few)
    assert {o.candidate.policy for o in found} == set(few)
    for outcome in found:
        if outcome.candidate.policy == "hpa-queue":
            assert set(outcome.candidate.params) == {str(role) for role in small.roles}


def test_the_planner_of_another_target_has_no_quantiles_to_try(threads: Executor) -> None:
    small = attrs.evolve(case(optimization_target="latency"), workload=workload()[::4])
    assert len(compare([small], threads, policies=["planner"])) == 1


# The front


points = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 100)), min_size=1, max_size=30)


@given(points=points)
def test_nobody_beats_a_member_of_the_front_and_someone_beats_every_other(
    points: list[tuple[float, float]],
) -> None:
    made = [
        Outcome(
            trace="t",
            candidate=next(iter(_CANDIDATES)),
            figures={"sla_attainment": share, "gpu_hours": hours},
            steps=(np.zeros(1), np.ones(1)),
        )
        for share, hours in points
    ]
    best = front(made)
    for outcome in made:
        beaten = any(
            other.attainment >= outcome.attainment
            and other.gpu_hours <= outcome.gpu_hours
            and (other.attainment, other.gpu_hours) != (outcome.attainment, outcome.gpu_hours)
            for other in made
        )
        twin = any((o.attainment, o.gpu_hours) == (outcome.attainment, outcome.gpu_hours) for o in best)
        assert twin is not beaten


def _candidates() -> list[Any]:
    from planner_adapters.compare import Candidate

    return [Candidate(policy="planner", params={}, is_default=True)]


_CANDIDATES = _candidates()


# The page


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.headings: list[str] = []
        self._heading = False

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for name, value in attributes if name in ("src", "href")]
        self._heading = tag == "h2"

    def handle_data(self, data: str) -> None:
        if self._heading:
            self.headings.append(data)
            self._heading = False


def test_the_page_opens_without_a_network(outcomes: list[Outcome], tmp_path: Path) -> None:
    cases = [case(), case(name="other", replicas=2)]
    write_page(tmp_path / "page.html", cases, outcomes)
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    links = _Links()
    links.feed(page)
    assert [link for link in links.found if not link.startswith("data:")] == []
    assert links.headings == ["bump", "other"]
    assert page.count("Attainment against GPU-hours") == 2
    assert len(page) < 2_000_000
    for policy in FAMILIES:
        assert policy in page


def test_a_name_of_a_trace_is_no_html(outcomes: list[Outcome], tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    mine = [attrs.evolve(outcome, trace=evil) for outcome in outcomes if outcome.trace == "bump"]
    write_page(tmp_path / "page.html", [case(name=evil)], mine)
    assert evil not in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_two_cases_of_one_name_are_refused(threads: Executor) -> None:
    with pytest.raises(ValueError, match="several cases have the name bump"):
        compare([case(), case()], threads)
