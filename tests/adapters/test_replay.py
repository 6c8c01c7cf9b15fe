from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest

from planner_adapters.environment import Environment, Measured
from planner_adapters.simulation import PRESETS, PoolSpec, Status
from planner_adapters.simulation.cluster import Cluster
from planner_adapters.simulation.environment import SimulatedEnvironment
from planner_adapters.simulation.outcome import ReplayResult
from planner_adapters.simulation.policy import Periodic, PlannerPolicy
from planner_adapters.simulation.replay import replay
from planner_adapters.simulation.synthetic import working_day
from planner_adapters.simulation.traces import load_workload
from planner_adapters.simulation.workload import Workload
from planner_core import (
    Decision,
    NextTick,
    PlannerConfig,
    PlannerState,
    Role,
    TickInput,
    first_tick,
    initial_state,
    tick,
)
from planner_core.codec import dumps, loads

ENGINE = attrs.evolve(PRESETS["llama-3.1-70b-fp8-h100"], num_gpus=1)
ROLES = {"agg": (Role.AGG,), "disagg": (Role.PREFILL, Role.DECODE)}
EVERYWHERE = pytest.mark.parametrize(
    ("mode", "target"), [(mode, target) for mode in ROLES for target in ("throughput", "latency", "sla")]
)


def pools(mode: str, replicas: int = 1, startup_s: float = 60.0, **engine: Any) -> dict[Role, PoolSpec]:
    model = attrs.evolve(ENGINE, **engine)
    return {role: PoolSpec(engine=model, replicas=replicas, startup_s=startup_s) for role in ROLES[mode]}


def config_for(mode: str, target: str, **keys: Any) -> PlannerConfig:
    engine = {
        "max_kv_tokens": ENGINE.max_kv_tokens,
        "max_num_batched_tokens": ENGINE.max_num_batched_tokens,
        "context_length": 16_384,
        "startup_s": 60,
    }
    engines = {str(role): engine for role in ROLES[mode]}
    mapping = {"mode": mode, "optimization_target": target, "enable_load_scaling": True, "engines": engines}
    return PlannerConfig.from_mapping(mapping | keys)


def constant_load(rps: float, seconds: float) -> Workload:
    arrival_s = np.arange(0, seconds, 1 / rps)
    full = np.ones(len(arrival_s), dtype=np.int64)
    return Workload(name="constant", arrival_s=arrival_s, input_tokens=2000 * full, output_tokens=100 * full)


def busy_quarter_hour() -> Workload:
    """The busiest part of a working day."""
    day = working_day(seed=3, hours=1.0, mean_rps=6)
    busy = day[(day.arrival_s > 1800) & (day.arrival_s < 2700)]
    return attrs.evolve(busy, arrival_s=busy.arrival_s - 1800)


def assert_accounted_for(result: ReplayResult, workload: Workload) -> None:
    assert len(result.requests.status) == len(workload)
    assert result.completed + result.rejected + result.unfinished == len(workload)
    assert result.unfinished == 0


# The main job


@pytest.mark.parametrize("trace", ["azure23_conv", "azure23_code"])
@EVERYWHERE
def test_a_real_trace_runs_to_its_end_with_every_request_accounted_for(
    shared_data: Path, trace: str, mode: str, target: str
) -> None:
    workload = load_workload(shared_data / "traces" / f"{trace}.csv.gz")
    workload = workload[workload.arrival_s < 600]
    result = replay(workload, config_for(mode, target), pools(mode))
    assert_accounted_for(result, workload)
    assert result.rejected == 0


@pytest.mark.nightly
@pytest.mark.parametrize("trace", ["azure23_conv", "azure23_code"])
@EVERYWHERE
def test_a_whole_real_trace_runs_to_its_end(shared_data: Path, trace: str, mode: str, target: str) -> None:
    workload = load_workload(shared_data / "traces" / f"{trace}.csv.gz")
    assert_accounted_for(replay(workload, config_for(mode, target), pools(mode)), workload)


@EVERYWHERE
def test_the_planner_grows_a_fleet_that_is_too_small(mode: str, target: str) -> None:
    workload = constant_load(30, 240)
    keys = {"max_gpu_budget": 16}
    result = replay(workload, config_for(mode, target, **keys), pools(mode, startup_s=10))
    fixed = replay(
        workload, config_for(mode, target, **keys), pools(mode), policy=Periodic(lambda now_s, seen: {})
    )
    assert result.scale_ups >= 1
    assert result.peak_replicas > fixed.peak_replicas == len(ROLES[mode])
    assert result.sla_attainment > fixed.sla_attainment


def test_equal_replays_are_equal_to_the_last_bit() -> None:
    workload = busy_quarter_hour()
    runs = [
        replay(workload, config_for("disagg", "sla"), pools("disagg"), routing="power_of_two") for _ in "ab"
    ]
    timeless = [run.summary() | {"wall_s": 0, "planner_s": 0} for run in runs]
    assert timeless[0] == timeless[1]


class Restarted:
    """A planner that is stopped, serialised and started anew before every tick."""

    def __init__(self, config: PlannerConfig) -> None:
        self.config = config
        self.saved = ""
        self.decisions: list[str] = []

    def begin(self, now_s: float) -> NextTick:
        self.saved = dumps(initial_state(self.config, now_s))
        return first_tick(self.config, now_s)

    def decide(self, now_s: float, measured: Measured) -> Decision:
        planner = PlannerPolicy(self.config)
        planner.state = loads(self.saved, PlannerState)
        decision = planner.decide(now_s, measured)
        self.saved = dumps(decision.state)
        self.decisions.append(dumps(decision))
        return decision


@pytest.mark.parametrize(("mode", "target"), [("disagg", "sla"), ("agg", "sla"), ("disagg", "latency")])
def test_a_replay_resumed_from_json_at_every_tick_decides_the_same_byte_for_byte(
    mode: str, target: str
) -> None:
    config = config_for(mode, target)
    workload = busy_quarter_hour()
    restarted = Restarted(config)
    result = replay(workload, config, pools(mode), policy=restarted)
    assert result.scale_ups > 0
    planner = PlannerPolicy(config)
    straight: list[str] = []

    def note(now_s: float) -> None:
        assert planner.last is not None
        straight.append(dumps(planner.last[1]))

    replay(workload, config, pools(mode), policy=planner, on_tick=note)
    assert len(straight) > 100
    assert restarted.decisions == straight


# The environment and other policies


def test_the_six_lines_of_the_protocol_drive_a_simulated_cluster() -> None:
    config = config_for("agg", "latency")
    cluster = Cluster(roles=pools("agg", startup_s=5))
    workload = constant_load(30, 60)
    cluster.submit(
        arrival_s=workload.arrival_s, input_tokens=workload.input_tokens, output_tokens=workload.output_tokens
    )
    environment: Environment = SimulatedEnvironment(cluster)
    state, upcoming = initial_state(config, 0.0), first_tick(config, 0.0)
    for _ in range(12):
        now_s = environment.wait_until(upcoming.at_s)
        measured = environment.observe(upcoming)
        decision = tick(TickInput(config=config, state=state, now_s=now_s, **measured))
        environment.scale(decision)
        state, upcoming = decision.state, decision.next_tick
    assert cluster.observe().workers[Role.AGG].ready > 1


def test_any_function_of_what_was_measured_is_a_policy() -> None:
    asked: list[float] = []

    def twice_as_many_at_half_time(now_s: float, measured: Measured) -> Mapping[Role, int]:
        asked.append(now_s)
        assert measured["traffic"] is not None
        assert measured["workers"][Role.AGG].ready >= 1
        return {Role.AGG: 2} if now_s < 60 else {Role.AGG: 1}

    policy = Periodic(twice_as_many_at_half_time, interval_s=10)
    result = replay(
        constant_load(5, 120), config_for("agg", "latency"), pools("agg", startup_s=15), policy=policy
    )
    assert asked == [10.0 * i for i in range(1, len(asked) + 1)]
    assert (result.scale_ups, result.scale_downs, result.direction_changes) == (1, 1, 1)
    assert result.peak_replicas == 2
    assert result.timeline.wanted[Role.AGG].tolist()[:6] == [2, 2, 2, 2, 2, 1]


def test_a_policy_that_does_not_let_time_go_on_is_refused() -> None:
    with pytest.raises(ValueError, match="wants to be asked next at"):
        replay(
            constant_load(5, 60),
            config_for("agg", "latency"),
            pools("agg"),
            policy=Periodic(lambda now_s, seen: {}, interval_s=0),
        )


# What is measured


def test_gpu_hours_count_what_runs_until_the_last_request_is_through() -> None:
    idle = Periodic(lambda now_s, seen: {}, interval_s=1000)
    result = replay(
        constant_load(5, 360), config_for("agg", "latency"), pools("agg", 3, num_gpus=2), policy=idle
    )
    assert result.end_s == pytest.approx(361, abs=2)
    assert result.gpu_hours == pytest.approx(6 * result.end_s / 3600)


def test_starting_and_draining_replicas_are_paid_for() -> None:
    up = Periodic(lambda now_s, seen: {Role.AGG: 2}, interval_s=10)
    result = replay(
        constant_load(5, 60), config_for("agg", "latency"), pools("agg", startup_s=1000), policy=up
    )
    assert result.gpu_hours == pytest.approx((2 * result.end_s - 10) / 3600)
    assert result.peak_replicas == 2


def test_a_request_that_never_finishes_misses_the_sla() -> None:
    workload = constant_load(5, 20)
    gone = Periodic(lambda now_s, seen: {Role.AGG: 0}, interval_s=10)
    result = replay(workload, config_for("agg", "latency"), pools("agg"), policy=gone, grace_s=60)
    assert 0 < result.unfinished < len(workload)
    assert result.completed + result.unfinished == len(workload)
    assert result.sla_attainment <= result.completed / len(workload)
    assert result.end_s == pytest.approx(20 + 60, abs=1)


def test_a_request_too_long_for_the_engine_is_rejected_and_misses_the_sla() -> None:
    workload = Workload(name="long", arrival_s=[0, 1], input_tokens=[100, 20_000], output_tokens=[10, 10])
    result = replay(workload, config_for("agg", "latency"), pools("agg", context_length=16_384))
    assert result.requests.status.tolist() == [Status.COMPLETED, Status.REJECTED]
    assert (result.rejected, result.sla_attainment) == (1, 0.5)


def test_a_single_output_token_has_no_itl_and_meets_it() -> None:
    workload = Workload(name="one token", arrival_s=[0, 1], input_tokens=[100, 100], output_tokens=[1, 1])
    result = replay(workload, config_for("agg", "latency", itl_ms=0.001), pools("agg"))
    assert result.itl_attainment == result.sla_attainment == 1
    assert result.itl_ms == {"p50": None, "p95": None, "p99": None}


def test_attainment_of_both_targets_is_at_most_that_of_each() -> None:
    result = replay(busy_quarter_hour(), config_for("agg", "latency", ttft_ms=60, itl_ms=7), pools("agg"))
    assert 0 < result.sla_attainment <= min(result.ttft_attainment, result.itl_attainment) < 1
    assert result.ttft_ms["p50"] < result.ttft_ms["p95"] < result.ttft_ms["p99"]  # type: ignore[operator]


@pytest.mark.parametrize("mode", ROLES)
def test_the_planner_learns_how_requests_are_routed(mode: str) -> None:
    dice, number = np.random.default_rng(3), 30_000
    lengths = [np.maximum(dice.gamma(2.0, mean / 2, number), 2).astype(np.int64) for mean in (1000, 100)]
    workload = Workload(
        name="random",
        arrival_s=np.cumsum(dice.exponential(1 / 100, number)),
        input_tokens=lengths[0],
        output_tokens=lengths[1],
    )
    known = {}
    for routing in ("round_robin", "least_loaded"):
        policy = PlannerPolicy(config_for(mode, "sla"))
        replay(workload, config_for(mode, "sla"), pools(mode, 8), policy=policy, routing=routing)
        assert policy.last is not None
        decision = policy.last[1]
        known[routing] = [
            state.fleet.uneven for role, state in decision.state.roles.items() if decision.replicas[role] > 2
        ]
    assert known["round_robin"]
    assert min(known["round_robin"]) > 0.65
    assert known["least_loaded"]
    assert max(known["least_loaded"]) < 0.5
