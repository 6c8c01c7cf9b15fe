from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import attrs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner_adapters.environment import Measured
from planner_adapters.simulation import PRESETS, Cluster, PoolSpec
from planner_adapters.simulation.baselines import (
    Hpa,
    Keda,
    Kpa,
    RoleScaler,
    RoleSignals,
    autoscaled,
    fit,
    role_signals,
    static,
)
from planner_adapters.simulation.environment import SimulatedEnvironment
from planner_adapters.simulation.replay import replay
from planner_adapters.simulation.workload import Workload
from planner_core import NextTick, PlannerConfig, Role

ENGINE = attrs.evolve(PRESETS["llama-3.1-70b-fp8-h100"], num_gpus=1)
ROLES = {"agg": (Role.AGG,), "disagg": (Role.PREFILL, Role.DECODE)}
SCALERS: dict[str, Callable[[], RoleScaler]] = {
    "hpa-queue": lambda: Hpa(target=2),
    "hpa-kv": lambda: Hpa(target=0.02, metric="kv"),
    "keda": lambda: Keda(target=2),
    "kpa": lambda: Kpa(target=20),
}


def seen(
    ready: int = 1, starting: int = 0, waiting: float = 0, in_flight: float = 0, kv_use: float = 0
) -> RoleSignals:
    return RoleSignals(ready=ready, starting=starting, waiting=waiting, in_flight=in_flight, kv_use=kv_use)


def config_for(mode: str, **keys: Any) -> PlannerConfig:
    engine = {"max_kv_tokens": ENGINE.max_kv_tokens}
    engines = {str(role): engine for role in ROLES[mode]}
    return PlannerConfig.from_mapping({"mode": mode, "engines": engines, "max_gpu_budget": -1} | keys)


def pools(mode: str, replicas: int = 1, startup_s: float = 20.0) -> dict[Role, PoolSpec]:
    return {role: PoolSpec(engine=ENGINE, replicas=replicas, startup_s=startup_s) for role in ROLES[mode]}


def steady(rps: float, seconds: float) -> Workload:
    arrival_s = np.arange(0, seconds, 1 / rps)
    full = np.ones(len(arrival_s), dtype=np.int64)
    return Workload(name="steady", arrival_s=arrival_s, input_tokens=2000 * full, output_tokens=100 * full)


# What they see


def test_the_signals_count_every_request_in_the_engines_once() -> None:
    cluster = Cluster(roles=pools("agg", replicas=2))
    load = steady(40, 20)
    cluster.submit(arrival_s=load.arrival_s, input_tokens=load.input_tokens, output_tokens=load.output_tokens)
    environment = SimulatedEnvironment(cluster)
    environment.wait_until(20.0)
    needs = NextTick(
        at_s=20.0, load=True, throughput=False, needs=frozenset({"workers", "fpm"}), traffic_window_s=20.0
    )
    found = role_signals(environment.observe(needs), Role.AGG, ENGINE.max_kv_tokens)
    assert found is not None
    assert found.ready == found.replicas == 2
    assert found.waiting > 0
    # What joined since the last passes ended is not told yet.
    assert found.in_flight == pytest.approx(cluster.num_unfinished, rel=0.1)
    assert found.kv_use > 0


def test_engines_that_tell_nothing_leave_the_role_as_it_is() -> None:
    cluster = Cluster(roles=pools("agg", replicas=3))
    measured = Measured(workers=dict(cluster.observe().workers))
    for make in SCALERS.values():
        policy = autoscaled(config_for("agg"), {Role.AGG: make()})
        assert policy.decide(15.0, measured).replicas == {Role.AGG: 3}


# HPA


def test_hpa_follows_the_ratio_rule() -> None:
    hpa = Hpa(target=5, stabilisation_s=0)
    assert hpa(0, seen(ready=4, waiting=30)) == 6
    assert hpa(15, seen(ready=6, waiting=12)) == 3


@pytest.mark.parametrize("waiting", [46, 50, 54])
def test_hpa_holds_within_ten_percent_of_the_target(waiting: float) -> None:
    assert Hpa(target=5)(0, seen(ready=10, waiting=waiting)) == 10


def test_hpa_waits_for_what_it_has_ordered() -> None:
    assert Hpa(target=5)(0, seen(ready=2, starting=4, waiting=30)) == 6
    assert Hpa(target=5)(0, seen(ready=2, starting=4, waiting=50)) == 10
    hasty = Hpa(target=5, stabilisation_s=0)
    assert hasty(0, seen(ready=6, starting=4, waiting=10)) == 6


def test_hpa_grows_to_the_double_or_by_four_at_most() -> None:
    assert Hpa(target=1)(0, seen(ready=1, waiting=1000)) == 5
    assert Hpa(target=1)(0, seen(ready=10, waiting=1000)) == 20


def test_hpa_shrinks_to_the_highest_desire_of_five_minutes() -> None:
    hpa = Hpa(target=1)
    assert hpa(0, seen(ready=10, waiting=10)) == 10
    for at_s in range(15, 300, 15):
        assert hpa(at_s, seen(ready=10, waiting=3)) == 10
    assert hpa(300, seen(ready=10, waiting=2)) == 3


def test_hpa_counts_kv_use_per_replica() -> None:
    assert Hpa(target=0.5, metric="kv")(0, seen(ready=4, kv_use=0.9)) == 8


# KEDA


def test_keda_asks_for_the_queue_over_its_threshold() -> None:
    assert Keda(target=5)(0, seen(ready=2, waiting=14)) == 3
    assert Keda(target=5, stabilisation_s=0)(0, seen(ready=2, waiting=0)) == 0


# KPA


def tell(kpa: Kpa, seconds: range, in_flight: float, ready: int) -> list[int]:
    return [kpa(at_s, seen(ready=ready, in_flight=in_flight)) for at_s in seconds]


def test_kpa_holds_the_target_concurrency_on_the_mean_of_a_minute() -> None:
    kpa = Kpa(target=10)
    assert tell(kpa, range(0, 60, 2), 35, ready=5)[-1] == 5
    after = tell(kpa, range(60, 120, 2), 14, ready=5)
    assert after[:5] == [5] * 5
    assert after[-1] == 2
    assert after == sorted(after, reverse=True)


def test_kpa_panics_when_six_seconds_ask_for_the_double() -> None:
    kpa = Kpa(target=10)
    tell(kpa, range(0, 60, 2), 14, ready=2)
    assert tell(kpa, range(60, 68, 2), 70, ready=2)[-1] == 10


def test_kpa_in_panic_shrinks_only_when_a_minute_is_over() -> None:
    kpa = Kpa(target=10)
    tell(kpa, range(0, 60, 2), 14, ready=2)
    tell(kpa, range(60, 66, 2), 140, ready=2)
    calm = tell(kpa, range(66, 140, 2), 14, ready=20)
    assert set(calm[:20]) == {20}
    assert calm[-1] == 10


def test_kpa_at_most_halves_the_ready_replicas() -> None:
    kpa = Kpa(target=10)
    assert tell(kpa, range(0, 120, 2), 0, ready=9)[-1] == 4


# All of them


signals = st.builds(
    seen,
    ready=st.integers(1, 30),
    starting=st.integers(0, 30),
    waiting=st.floats(0, 1e4),
    in_flight=st.floats(0, 1e4),
    kv_use=st.floats(0, 2),
)


@pytest.mark.parametrize("name", SCALERS)
@given(history=st.lists(signals, min_size=1, max_size=20))
def test_no_scaler_asks_for_the_impossible(name: str, history: list[RoleSignals]) -> None:
    scaler = SCALERS[name]()
    for number, what in enumerate(history):
        wish = scaler(number * scaler.interval_s, what)
        assert isinstance(wish, int)
        assert wish >= 0


@given(
    prefill=st.integers(0, 50),
    decode=st.integers(0, 50),
    budget=st.integers(4, 20),
    minimum=st.integers(1, 2),
)
def test_limits_are_the_planners(prefill: int, decode: int, budget: int, minimum: int) -> None:
    config = config_for("disagg", max_gpu_budget=budget, min_endpoint=minimum)
    wishes = {Role.PREFILL: prefill, Role.DECODE: decode}
    fitted = fit(config, wishes)
    assert sum(fitted.values()) <= budget
    assert all(minimum <= fitted[role] <= max(minimum, wishes[role]) for role in wishes)
    if prefill + decode <= budget and min(prefill, decode) >= minimum:
        assert fitted == wishes


@pytest.mark.parametrize("mode", ROLES)
@pytest.mark.parametrize("name", SCALERS)
def test_an_overloaded_fleet_grows_and_every_request_ends(name: str, mode: str) -> None:
    config = config_for(mode)
    scalers = {role: SCALERS[name]() for role in ROLES[mode]}
    load = steady(25, 240)
    result = replay(load, config, pools(mode), policy=autoscaled(config, scalers))
    alone = replay(load, config, pools(mode), policy=static(config, dict.fromkeys(ROLES[mode], 1)))
    assert result.completed == alone.completed == len(load)
    assert result.scale_ups > 0
    assert result.sla_attainment >= alone.sla_attainment
    assert alone.scale_ups == alone.scale_downs == 0


def test_each_role_has_an_autoscaler_of_its_own() -> None:
    """Long prompts with one token out: prefill grows, decode has nothing to do."""
    load = steady(25, 240)
    load = attrs.evolve(load, output_tokens=np.ones(len(load), dtype=np.int64))
    config = config_for("disagg")
    scalers: Mapping[Role, RoleScaler] = {role: Hpa(target=2) for role in ROLES["disagg"]}
    result = replay(load, config, pools("disagg"), policy=autoscaled(config, scalers))
    assert result.peak_replicas_by_role[Role.PREFILL] > 1
    assert result.peak_replicas_by_role[Role.DECODE] == 1


def test_idle_comes_to_rest_at_the_minimum() -> None:
    lonely = steady(1 / 1200, 1201)
    config = config_for("agg", min_endpoint=2)
    for name, make in SCALERS.items():
        result = replay(
            lonely, config, pools("agg", replicas=5), policy=autoscaled(config, {Role.AGG: make()})
        )
        assert (name, int(result.timeline.wanted[Role.AGG][-1])) == (name, 2)


def test_constants_are_those_of_the_documentation() -> None:
    hpa, keda, kpa = Hpa(target=1), Keda(target=1), Kpa()
    assert (hpa.interval_s, hpa.tolerance, hpa.stabilisation_s) == (15, 0.1, 300)
    assert (keda.interval_s, keda.stabilisation_s) == (30, 300)
    assert (kpa.interval_s, kpa.stable_window_s, kpa.panic_window_s, kpa.panic_threshold) == (2, 60, 6, 2)
    assert (kpa.max_scale_up_rate, kpa.max_scale_down_rate) == (1000, 2)
    assert math.isclose(kpa.target * kpa.utilisation, 70)
