from __future__ import annotations

import math
from typing import Any

import attrs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner_adapters.simulation import PRESETS, PoolSpec
from planner_adapters.simulation.baselines import static
from planner_adapters.simulation.oracle import (
    Plan,
    PlanPolicy,
    Survey,
    find_oracle,
    lower_bound,
    num_windows,
    survey,
)
from planner_adapters.simulation.outcome import ReplayResult
from planner_adapters.simulation.replay import replay
from planner_adapters.simulation.workload import Workload
from planner_core import PlannerConfig, Role

ENGINE = attrs.evolve(PRESETS["llama-3.1-70b-fp8-h100"], num_gpus=1)
ROLES = {"agg": (Role.AGG,), "disagg": (Role.PREFILL, Role.DECODE)}
EVERY_MODE = pytest.mark.parametrize("mode", ROLES)
STARTUP_S = 40.0
WINDOW_S = 20.0


def config_for(mode: str, **keys: Any) -> PlannerConfig:
    engine = {"max_kv_tokens": ENGINE.max_kv_tokens, "startup_s": STARTUP_S}
    engines = {str(role): engine for role in ROLES[mode]}
    promised = {"ttft_ms": 1000, "itl_ms": 50, "max_gpu_budget": -1}
    return PlannerConfig.from_mapping({"mode": mode, "engines": engines} | promised | keys)


def pools(mode: str, replicas: int) -> dict[Role, PoolSpec]:
    return {role: PoolSpec(engine=ENGINE, replicas=replicas, startup_s=STARTUP_S) for role in ROLES[mode]}


def load_of(*stretches: tuple[float, float], seed: int = 0) -> Workload:
    """Poisson arrivals: (requests per second, seconds) one after the other."""
    rng = np.random.default_rng(seed)
    arrivals: list[float] = []
    begin_s = 0.0
    for rps, seconds in stretches:
        arrivals += (begin_s + np.sort(rng.uniform(0, seconds, rng.poisson(rps * seconds)))).tolist()
        begin_s += seconds
    number = max(len(arrivals), 1)
    return Workload(
        name="stretches",
        arrival_s=arrivals or [0.0],
        input_tokens=rng.integers(200, 1500, number),
        output_tokens=rng.integers(1, 150, number),
    )


def fixed(workload: Workload, mode: str, replicas: int) -> ReplayResult:
    config = config_for(mode)
    fleet = dict.fromkeys(ROLES[mode], replicas)
    return replay(workload, config, pools(mode, replicas), policy=static(config, fleet))


def surveyed(workload: Workload, mode: str) -> Survey:
    return survey(workload, pools(mode, 1), config_for(mode).sla, window_s=WINDOW_S)


# Plans


@given(
    needs=st.lists(st.integers(1, 6), min_size=1, max_size=12),
    startup_s=st.sampled_from([0.0, 7.0, 20.0, 50.0]),
)
@settings(max_examples=25)
def test_a_plan_has_its_replicas_ready_when_they_are_needed(needs: list[int], startup_s: float) -> None:
    unhurried = [needs[0]] * math.ceil(startup_s / WINDOW_S) + needs
    plan = Plan(window_s=WINDOW_S, replicas={Role.AGG: np.array(unhurried)})
    roles = {Role.AGG: PoolSpec(engine=ENGINE, replicas=needs[0], startup_s=startup_s)}
    load = load_of((0.5, WINDOW_S * len(unhurried)), seed=1)
    result = replay(load, config_for("agg"), roles, policy=PlanPolicy(plan, {Role.AGG: startup_s}))
    timeline = result.timeline
    window = np.minimum(timeline.at_s // WINDOW_S, len(unhurried) - 1).astype(int)
    later = timeline.at_s % WINDOW_S > 0  # the row of a window's first moment was taken before its order
    assert np.all(timeline.ready[Role.AGG][later] >= np.array(unhurried)[window][later])


def test_a_valley_shorter_than_a_start_is_not_left() -> None:
    plan = Plan(window_s=20.0, replicas={Role.AGG: np.array([3, 1, 3, 1, 1, 1, 3])})
    assert plan.orders(Role.AGG, 40.0) == [(0.0, 3), (60.0, 1), (80.0, 3)]


# Surveys


@EVERY_MODE
def test_more_replicas_miss_fewer_requests(mode: str) -> None:
    for curves in surveyed(load_of((20, 60)), mode).curves.values():
        for curve in curves:
            assert curve.misses[-1] <= curve.misses[0]
            assert curve.at(np.array([curve.enough]))[0] == min(curve.misses)
            if curve.replicas[0] > 1:
                assert curve.at(np.array([curve.replicas[0] - 1]))[0] == curve.requests


def test_a_window_without_requests_needs_nobody() -> None:
    found = surveyed(load_of((5, 20), (0, 40), (5, 20)), "agg")
    assert [curve.enough > 0 for curve in found.curves[Role.AGG]] == [True, False, False, True]


def test_a_trace_of_days_is_surveyed_to_its_end() -> None:
    days = Workload(name="days", arrival_s=[0.0, 2e5, 2.5e5], input_tokens=[1000] * 3, output_tokens=[10] * 3)
    last = num_windows(days, WINDOW_S) - 1
    found = survey(
        days, pools("agg", 1), config_for("agg").sla, window_s=WINDOW_S, windows=range(last, last + 1)
    )
    assert [(c.requests, c.enough) for c in found.curves[Role.AGG]] == [(1, 1)]


def test_a_survey_in_parts_says_the_same_where_both_have_looked() -> None:
    load = load_of((10, 60), (25, 60))
    config, roles = config_for("agg"), pools("agg", 1)
    whole = survey(load, roles, config.sla, window_s=WINDOW_S)
    half = num_windows(load, WINDOW_S) // 2
    parts = survey(load, roles, config.sla, window_s=WINDOW_S, windows=range(half)) + survey(
        load, roles, config.sla, window_s=WINDOW_S, windows=range(half, num_windows(load, WINDOW_S))
    )
    for one, other in zip(whole.curves[Role.AGG], parts.curves[Role.AGG], strict=True):
        seen = [dict(zip(curve.replicas, curve.misses, strict=True)) for curve in (one, other)]
        assert all(seen[0][n] == seen[1][n] for n in seen[0].keys() & seen[1].keys())
        assert one.enough == other.enough


def test_a_survey_foretells_what_a_fixed_fleet_misses() -> None:
    load = load_of((16, 200))
    curves = surveyed(load, "agg").curves[Role.AGG]
    for replicas in (1, 2, 3):
        foretold = sum(curve.at(np.array([replicas]))[0] for curve in curves) / len(load)
        assert foretold == pytest.approx(1 - fixed(load, "agg", replicas).sla_attainment, abs=0.03)


# The oracle


@EVERY_MODE
def test_the_oracle_is_cheaper_than_every_fixed_fleet_that_keeps_the_promise(mode: str) -> None:
    load = load_of((8, 60), (50, 60), (8, 120), seed=2)
    fleets = [fixed(load, mode, replicas) for replicas in range(1, 9)]
    config, start = config_for(mode), 3
    oracle = find_oracle(load, config, pools(mode, start), surveyed(load, mode), attainment=0.99)
    assert oracle.reached
    assert oracle.result.sla_attainment >= 0.99
    cheapest = min(fleet.gpu_hours for fleet in fleets if fleet.sla_attainment >= 0.99)
    assert oracle.result.gpu_hours < cheapest
    bound = lower_bound(load, config, pools(mode, start), attainment=0.99, window_s=WINDOW_S)
    assert 0.2 * oracle.result.gpu_hours < bound <= oracle.result.gpu_hours


def test_a_lesser_promise_is_cheaper() -> None:
    load = load_of((4, 80), (25, 60), (4, 100), seed=3)
    found = surveyed(load, "agg")
    config, roles = config_for("agg"), pools("agg", 2)
    hours = [
        find_oracle(load, config, roles, found, attainment=share).result.gpu_hours
        for share in (0.7, 0.9, 0.99)
    ]
    assert hours == sorted(hours)
    assert hours[0] < hours[-1]


def test_the_oracle_obeys_the_startup_time() -> None:
    """All there is comes before a replica could have started."""
    load = load_of((40, STARTUP_S * 0.9))
    oracle = find_oracle(load, config_for("agg"), pools("agg", 1), surveyed(load, "agg"), attainment=0.99)
    assert not oracle.reached
    assert oracle.result.sla_attainment < 0.5
    assert np.all(oracle.plan.replicas[Role.AGG] == 1)


def test_the_oracle_keeps_within_the_roles_maximum() -> None:
    load = load_of((4, 80), (40, 60), (4, 60))
    config = config_for("agg", **{"engines.agg.max_replicas": 3})
    oracle = find_oracle(load, config, pools("agg", 1), surveyed(load, "agg"), attainment=0.999)
    assert oracle.plan.replicas[Role.AGG].max() <= 3


def test_equal_searches_find_the_same() -> None:
    load = load_of((10, 100), (20, 60))
    config, roles = config_for("agg"), pools("agg", 2)
    one, other = (find_oracle(load, config, roles, surveyed(load, "agg"), attainment=0.95) for _ in "ab")
    assert np.array_equal(one.plan.replicas[Role.AGG], other.plan.replicas[Role.AGG])
    assert one.result.gpu_hours == other.result.gpu_hours


# The bound


@EVERY_MODE
@given(
    stretches=st.lists(st.tuples(st.floats(0.5, 30), st.floats(10, 60)), min_size=1, max_size=3),
    replicas=st.integers(1, 6),
    seed=st.integers(0, 99),
)
@settings(max_examples=15)
def test_no_fleet_stays_below_the_bound_of_what_it_attains(
    mode: str, stretches: list[tuple[float, float]], replicas: int, seed: int
) -> None:
    load = load_of(*stretches, seed=seed)
    result = fixed(load, mode, replicas)
    bound = lower_bound(
        load, config_for(mode), pools(mode, replicas), attainment=result.sla_attainment, window_s=5.0
    )
    assert bound <= result.gpu_hours * (1 + 1e-6)


def test_the_bound_of_a_measured_engine_holds(shared_data: Any) -> None:
    from planner_adapters.simulation.deployment import engine_of

    engine = engine_of(profile=shared_data / "profiles" / "dynamo_H200_Llama-3.1-8B-FP8_vllm_tp1.npz").model
    load, config = load_of((30, 120)), config_for("disagg")
    for replicas in (1, 2, 3):
        roles = {
            role: PoolSpec(engine=engine, replicas=replicas, startup_s=STARTUP_S) for role in ROLES["disagg"]
        }
        fleet = dict.fromkeys(roles, replicas)
        result = replay(load, config, roles, policy=static(config, fleet))
        assert lower_bound(load, config, roles, attainment=result.sla_attainment) <= result.gpu_hours


def test_a_larger_promise_and_a_tighter_sla_have_higher_bounds() -> None:
    load, roles = load_of((30, 200)), pools("agg", 5)

    def bound(itl_ms: float, attainment: float) -> float:
        return lower_bound(load, config_for("agg", itl_ms=itl_ms), roles, attainment=attainment)

    assert bound(50, 0.5) <= bound(50, 0.9) <= bound(50, 0.99)
    assert bound(50, 0.99) < bound(14, 0.99)


def test_what_no_policy_can_reach_is_proven_to_be_so() -> None:
    """A second in which a fleet of one would have to do the work of twenty."""
    load = load_of((1000, 5))
    assert lower_bound(load, config_for("agg"), pools("agg", 1), attainment=0.99, window_s=5.0) == math.inf


def test_without_load_the_minimum_is_the_bound() -> None:
    load = load_of((0.05, 600))
    bound = lower_bound(load, config_for("agg", min_endpoint=2), pools("agg", 2))
    assert bound == pytest.approx(2 * load.arrival_s[-1] / 3600, rel=0.1)
