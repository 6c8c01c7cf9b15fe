from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest

from planner_adapters.cli import main
from planner_adapters.config_file import Settings
from planner_adapters.dynamo.mocker import replay_on_mocker, runtime
from planner_adapters.dynamo.mocker_files import (
    arrivals_ms,
    as_the_mocker_reckons,
    write_profile,
    write_trace,
)
from planner_adapters.dynamo.mocker_hook import MockerHook, TrafficWindow, passes
from planner_adapters.dynamo.profiles import load_profile
from planner_adapters.simulation import PRESETS, Status
from planner_adapters.simulation.baselines import static
from planner_adapters.simulation.deployment import Deployment, engine_of, plan_deployment
from planner_adapters.simulation.policy import Periodic
from planner_adapters.simulation.replay import replay
from planner_adapters.simulation.timing import PassTimer
from planner_adapters.simulation.workload import Workload
from planner_core import MissingExtraError, Role

HAS_MOCKER = importlib.util.find_spec("dynamo") is not None
needs_mocker = pytest.mark.skipif(not HAS_MOCKER, reason="needs the extra `mocker` (249 MB)")
ENGINE = PRESETS["llama-3.1-8b-fp8-h200"]


def workload_of(rate: float, seconds: float = 120.0, seed: int = 0) -> Workload:
    dice = np.random.default_rng(seed)
    arrival_s = np.sort(dice.uniform(0, seconds, int(rate * seconds)))
    return Workload(
        name="steady",
        arrival_s=arrival_s,
        input_tokens=dice.integers(100, 6_000, len(arrival_s)),
        output_tokens=dice.integers(1, 300, len(arrival_s)),
    )


def deployment(mode: str, replicas: int = 1) -> Deployment:
    keys = {"mode": mode, "optimization_target": "sla", "enable_load_scaling": True, "max_gpu_budget": -1}
    return plan_deployment(Settings(values=keys), engine_of(), startup_s=20.0, replicas=replicas)


def fixed(plan: Deployment) -> Periodic:
    return static(plan.config, {role: spec.replicas for role, spec in plan.roles.items()})


def snapshot(now_s: float = 5.0, **changes: Any) -> dict[str, Any]:
    """One aggregated engine that has just decoded for two requests."""
    record = {
        "worker_id": 0,
        "dp_rank": 0,
        "wall_time": 0.02,
        "num_prefill_requests": 1,
        "sum_prefill_tokens": 300,
        "var_prefill_length": 0.0,
        "sum_prefill_kv_tokens": 100,
        "num_decode_requests": 2,
        "sum_decode_kv_tokens": 900,
        "var_decode_kv_tokens": 4.0,
        "num_queued_prefill": 3,
        "sum_queued_prefill_tokens": 700,
        "var_queued_prefill_length": 9.0,
        "num_queued_decode": 1,
        "sum_queued_decode_kv_tokens": 50,
        "var_queued_decode_kv_tokens": 0.0,
    }
    return {
        "now_ms": now_s * 1e3,
        "decode_fpm_snapshots": [record],
        "active_decode_ids": [0],
        "active_decode_count": 1,
        "starting_decode_ids": [],
        "draining_decode_count": 0,
        "traffic": None,
    } | changes


def traffic(**changes: float) -> dict[str, float]:
    counts = {"duration_s": 5.0, "num_req": 10, "shape_count": 4, "ttft_count": 4, "itl_count": 2}
    return counts | {"avg_isl": 1000.0, "avg_osl": 50.0, "avg_ttft_ms": 80.0, "avg_itl_ms": 9.0} | changes


# Files


def test_the_written_profile_is_read_as_one(tmp_path: Path) -> None:
    write_profile(tmp_path / "engine.npz", ENGINE)
    profile = load_profile(tmp_path / "engine.npz")
    timer = PassTimer(ENGINE.timing)
    for tokens, ttft_ms in zip(profile.prefill_isl_tokens[::50], profile.prefill_ttft_ms[::50], strict=True):
        assert ttft_ms == pytest.approx(timer.pass_s(int(tokens), tokens**2 / 2, 0, 0) * 1e3)
    for row in range(0, len(profile.decode_itl_ms), 997):
        kv, context = profile.decode_kv_tokens[row], profile.decode_context_tokens[row]
        number = min(round(kv / context), ENGINE.max_num_seqs)
        expected_ms = timer.pass_s(0, 0.0, number, int(kv)) * 1e3
        assert profile.decode_itl_ms[row] == pytest.approx(expected_ms, rel=0.01)


def test_no_two_requests_arrive_at_the_same_time(tmp_path: Path) -> None:
    workload = Workload(
        name="together", arrival_s=[3.0, 3.0, 3.0, 4.0], input_tokens=[5] * 4, output_tokens=[2] * 4
    )
    assert arrivals_ms(workload).tolist() == pytest.approx([0.0, 0.001, 0.002, 1000.0])
    write_trace(tmp_path / "trace.jsonl", workload)
    lines = [json.loads(line) for line in (tmp_path / "trace.jsonl").read_text().splitlines()]
    assert [line["input_length"] for line in lines] == [5] * 4
    assert len({tuple(line["hash_ids"]) for line in lines}) == 4


def test_with_the_mockers_arithmetic_a_mixed_pass_takes_the_sum_of_its_parts() -> None:
    timer = PassTimer(as_the_mocker_reckons(ENGINE).timing)
    prompts_s = PassTimer(ENGINE.timing).pass_s(4_000, 4_000**2 / 2, 0, 0)
    assert timer.pass_s(4_000, 2 * 2_000**2 / 2, 8, 8_000) == pytest.approx(
        prompts_s + timer.pass_s(0, 0.0, 8, 8_000), rel=1e-3
    )


# The hook


def test_an_engine_without_a_pass_tells_that_it_idles() -> None:
    batch = passes(snapshot(active_decode_ids=[0, 1]), Role.AGG)
    assert list(batch.worker_id) == ["agg-0", "agg-1"]
    assert batch.wall_time_s.tolist() == [0.02, 0.0]
    assert batch.queued_prefill_tokens.tolist() == [700, 0]


def test_passes_of_engines_that_left_are_not_told() -> None:
    assert len(passes(snapshot(active_decode_ids=[]), Role.AGG)) == 0


def test_traffic_adds_up_until_it_is_taken() -> None:
    window = TrafficWindow()
    window.add(traffic())
    window.add(traffic(shape_count=12, avg_isl=2000.0))
    seen, observed = window.take()
    assert seen is not None
    assert observed is not None
    assert (seen.duration_s, seen.num_requests, seen.num_completed) == (10.0, 20.0, 16.0)
    assert seen.isl == pytest.approx(1750.0)
    assert observed.ttft_ms == pytest.approx(80.0)
    assert window.take() == (None, None)


def test_lengths_of_a_window_in_which_nothing_completed_are_unknown() -> None:
    window = TrafficWindow()
    window.add(traffic(shape_count=0, ttft_count=0, itl_count=0, avg_isl=0.0, avg_osl=0.0))
    seen, observed = window.take()
    assert seen is not None
    assert observed is not None
    assert (seen.num_requests, seen.isl, seen.osl, observed.ttft_ms) == (10.0, None, None, None)


def test_starting_replicas_age_from_the_tick_that_asked_for_them() -> None:
    ages: list[tuple[float, ...]] = []

    def rule(now_s: float, measured: Any) -> Mapping[Role, int]:
        ages.append(measured["workers"][Role.AGG].starting_ages_s)
        return {Role.AGG: 2}

    hook = MockerHook(Periodic(rule, 5.0), {Role.AGG: 1}, start_s=100.0)
    assert hook.initial_tick_ms() == 5_000.0
    assert hook.on_tick(snapshot(5.0)) == {
        "target_prefill": None,
        "target_decode": 2,
        "next_tick_ms": 10_000.0,
    }
    again = hook.on_tick(snapshot(10.0, starting_decode_ids=[1]))
    assert again["target_decode"] is None  # it has been asked for
    hook.on_tick(snapshot(15.0, starting_decode_ids=[1]))
    assert ages == [(), (5.0,), (10.0,)]


# The whole


# Where the extra is installed nothing is missing that could be named; where it isn't, this runs and the others can't.
@pytest.mark.skipif(HAS_MOCKER, reason="needs an installation without the extra `mocker`")
def test_a_missing_extra_is_named_with_its_pip_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(MissingExtraError, match=r"pip install 'planner-core\[mocker\]'"):
        runtime()
    assert main(["replay", "--simulator", "mocker"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "pip install 'planner-core[mocker]'" in error


def test_the_mocker_is_refused_a_routing_that_it_has_not(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", "--simulator", "mocker", "--routing", "least_loaded"]) == 2
    assert "the mocker routes round_robin alone" in capsys.readouterr().err


@needs_mocker
@pytest.mark.parametrize("mode", ["agg", "disagg"])
def test_both_simulators_agree_where_they_reckon_alike(mode: str) -> None:
    plan, workload = deployment(mode, replicas=2), workload_of(8.0)
    roles = {
        role: attrs.evolve(spec, engine=as_the_mocker_reckons(spec.engine))
        for role, spec in plan.roles.items()
    }
    theirs = replay_on_mocker(workload, plan.config, plan.roles, policy=fixed(plan))
    ours = replay(workload, plan.config, roles, policy=fixed(plan))
    for figures, others in ((theirs.ttft_ms, ours.ttft_ms), (theirs.itl_ms, ours.itl_ms)):
        for percentile in ("p50", "p95"):
            assert figures[percentile] == pytest.approx(others[percentile], rel=0.15)
    assert theirs.sla_attainment == pytest.approx(ours.sla_attainment, abs=0.03)
    assert theirs.gpu_hours == pytest.approx(ours.gpu_hours, rel=0.02)


@needs_mocker
def test_the_planner_scales_the_mocker() -> None:
    plan = deployment("agg")
    result = replay_on_mocker(workload_of(40.0), plan.config, plan.roles)
    assert result.scale_ups > 0
    assert result.peak_replicas > 1
    assert result.completed == len(result.requests.status)


@needs_mocker
def test_equal_arguments_give_equal_results_on_the_mocker() -> None:
    plan, workload = deployment("disagg"), workload_of(10.0)
    one, other = (replay_on_mocker(workload, plan.config, plan.roles) for _ in range(2))
    assert np.array_equal(one.requests.finish_s, other.requests.finish_s)
    assert one.gpu_hours == other.gpu_hours


@needs_mocker
def test_a_request_that_no_engine_holds_is_rejected_on_the_mocker_too() -> None:
    plan = deployment("agg")
    longest = ENGINE.longest_request_tokens
    workload = Workload(
        name="long",
        arrival_s=[1.0, 2.0, 3.0],
        input_tokens=[100, longest, longest - 2],
        output_tokens=[5, 5, 5],
    )
    result = replay_on_mocker(workload, plan.config, plan.roles, policy=fixed(plan))
    assert result.requests.status.tolist() == [Status.COMPLETED, Status.REJECTED, Status.COMPLETED]
    assert result.requests.output_tokens.tolist() == [5, 5, 2]


@needs_mocker
def test_replay_says_the_same_of_the_mocker_as_of_the_built_in_simulator(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = tmp_path / "trace.csv"
    rows = [f"{second},{500 + second},20" for second in range(30)]
    trace.write_text("\n".join(["arrival_s,input_tokens,output_tokens", *rows]))
    told = []
    for simulator in ("built-in", "mocker"):
        assert main(["replay", str(trace), "--mode", "agg", "--json", "--simulator", simulator]) == 0
        told.append(json.loads(capsys.readouterr().out))
    assert told[0].keys() == told[1].keys()
    assert told[1]["completed"] == 30
