"""The policy as a function of Ray Serve's own contexts."""

from __future__ import annotations

import json
import pickle
from inspect import signature
from typing import Any

import pytest

# Half a gigabyte, so it isn't in the session `tests`, but in `ray`.
pytest.importorskip("ray.serve", reason="needs the extra ray")

from ray.serve._private.common import DeploymentID, ReplicaID
from ray.serve.config import AutoscalingConfig, AutoscalingContext

from planner_adapters.ray import PlannerPolicy, autoscaling_config
from planner_core import ConfigError

AGG = {"mode": "agg", "max_gpu_budget": 8, "engines": {"agg": {"max_kv_tokens": 100_000}}}
LLM = DeploymentID(name="LLM", app_name="chat")
START_S = 1_800_000_000.0


def context(
    now_s: float, running: int, *, target: int | None = None, state: dict[str, Any] | None = None, **told: Any
) -> AutoscalingContext:
    replicas = [ReplicaID(unique_id=f"replica-{n}", deployment_id=LLM) for n in range(running)]
    reported = told.pop("reported", {})
    given: dict[str, Any] = {
        "deployment_id": LLM,
        "deployment_name": LLM.name,
        "app_name": LLM.app_name,
        "current_num_replicas": running,
        "target_num_replicas": running if target is None else target,
        "running_replicas": replicas,
        "total_num_requests": 0.0,
        "total_queued_requests": 0.0,
        "aggregated_metrics": {
            name: dict(zip(replicas, values, strict=False)) for name, values in reported.items()
        },
        "raw_metrics": {},
        "capacity_adjusted_min_replicas": 1,
        "capacity_adjusted_max_replicas": 8,
        "policy_state": {} if state is None else state,
        "last_scale_up_time": None,
        "last_scale_down_time": None,
        "current_time": START_S + now_s,
        "config": None,
    }
    others = dict.fromkeys(
        signature(AutoscalingContext).parameters
    )  # releases differ in what they tell besides
    return AutoscalingContext(**others | given | told)


def played(policy: PlannerPolicy, seconds: int, running: int, every_s: float = 1.0, **told: Any) -> int:
    """The last answer, if Serve asks all the time and always has what was asked for."""
    state: dict[str, Any] = {}
    for step in range(int(seconds / every_s)):
        running, state = policy(context(step * every_s, running, state=state, **told))
    return running


def test_replicas_grow_with_the_requests_and_go_when_there_are_none() -> None:
    policy = PlannerPolicy(AGG, tokens_per_request=1_000)
    busy = played(policy, 60, 1, total_num_requests=250.0, total_queued_requests=50.0)
    assert 3 <= busy <= 8
    assert played(policy, 1_200, busy, every_s=5.0) == 1


def test_never_more_than_the_budget() -> None:
    policy = PlannerPolicy(AGG, tokens_per_request=1_000)
    assert played(policy, 300, 1, total_num_requests=1e5, total_queued_requests=9e4) <= 8


def test_what_replicas_report_counts_and_not_what_requests_are_guessed_to_be() -> None:
    reported = {"wall_time_s": [0.04, 0.04], "num_decode": [50, 50], "decode_kv_tokens": [120_000, 120_000]}
    policy = PlannerPolicy(AGG)
    state: dict[str, Any] = {}
    for step in range(10):
        replicas, state = policy(context(float(step), 2, state=state, reported=reported))
    assert replicas > 2


def test_without_reports_and_without_a_size_of_requests_nothing_changes() -> None:
    assert played(PlannerPolicy(AGG), 900, 3, every_s=5.0, total_num_requests=500.0) == 3


def test_a_replica_that_reports_less_than_the_others_is_left_out_and_not_taken_for_idle() -> None:
    """All that report are idle; of the third nothing is known."""
    reported = {"wall_time_s": [0.0, 0.0, 0.0], "decode_kv_tokens": [0, 0]}
    policy = PlannerPolicy(AGG | {"load_stabilisation_seconds": 0})
    seen = played(policy, 60, 3, reported=reported)
    everyone = played(policy, 60, 3, reported=reported | {"decode_kv_tokens": [0, 0, 0]})
    assert everyone == 1
    assert seen >= everyone


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0, 1e300])
def test_reports_that_cannot_be_true_shrink_nothing(value: float) -> None:
    reported = {"wall_time_s": [value] * 3, "decode_kv_tokens": [value] * 3, "num_decode": [value] * 3}
    assert played(PlannerPolicy(AGG), 900, 3, every_s=5.0, reported=reported) == 3


def test_metrics_of_other_names_are_others() -> None:
    reported = {"running_requests": [1.0], "temperature": [70.0], "worker_id": [3.0]}
    assert played(PlannerPolicy(AGG), 60, 2, reported=reported) == 2


def test_equal_contexts_get_equal_answers_and_the_state_alone_remembers() -> None:
    told = {"total_num_requests": 250.0, "total_queued_requests": 50.0}
    first, second = (PlannerPolicy(AGG, tokens_per_request=1_000) for _ in range(2))
    state: dict[str, Any] = {}
    for step in range(20):
        before = pickle.dumps(state)
        one = first(context(float(step), 2, state=state, **told))
        assert pickle.dumps(state) == before, "what Serve keeps isn't written to"
        two = PlannerPolicy(AGG, tokens_per_request=1_000)(context(float(step), 2, state=state, **told))
        assert one == two == second(context(float(step), 2, state=pickle.loads(before), **told))
        _, state = one


def test_a_clock_that_is_set_back_stops_nothing() -> None:
    policy = PlannerPolicy(AGG, tokens_per_request=1_000)
    _, state = policy(context(86_400.0, 1))
    _, state = policy(context(86_410.0, 1, state=state))
    replicas = 1
    for step in range(60):
        replicas, state = policy(context(float(step), 1, state=state, total_num_requests=400.0))
    assert replicas > 1


def test_replicas_that_are_starting_are_not_asked_for_again() -> None:
    told = {"total_num_requests": 250.0, "total_queued_requests": 50.0}
    policy, state, target = PlannerPolicy(AGG, tokens_per_request=1_000), {}, 1
    targets = []
    for step in range(60):
        grown = {"last_scale_up_time": START_S + 6.0} if target > 1 else {}
        target, state = policy(context(float(step), 1, target=target, state=state, **grown, **told))
        targets.append(target)
    assert targets[10] > 1
    assert targets[-1] <= targets[10] + 1


@pytest.mark.parametrize(
    ("config", "tokens", "words"),
    [
        ({"mode": "disagg"}, None, "mode = 'disagg': Ray Serve scales each deployment by itself"),
        (AGG, 0, "tokens_per_request = 0: must be above 0"),
        (AGG, float("nan"), "tokens_per_request = nan"),
        ({"mode": "agg", "max_gpu_budgets": 8}, None, "max_gpu_budget"),
        ({"mode": "agg", "max_gpu_budget": -1}, None, "Ray Serve needs one"),
    ],
)
def test_a_configuration_that_cannot_be_meant_is_refused_where_it_is_written(
    config: dict[str, Any], tokens: float | None, words: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        autoscaling_config(config, tokens_per_request=tokens)
    assert words in str(caught.value)


def test_serve_makes_the_policy_from_what_the_options_carry() -> None:
    options = autoscaling_config(
        AGG | {"min_endpoint": 2, "engines": {"agg": {"num_gpus": 2}}},
        tokens_per_request=900,
        look_back_period_s=20,
    )
    assert isinstance(options, AutoscalingConfig)
    assert (options.min_replicas, options.max_replicas) == (2, 4)
    assert (options.upscale_delay_s, options.downscale_delay_s, options.look_back_period_s) == (0, 0, 20)
    kwargs = json.loads(json.dumps(options.policy.policy_kwargs))
    policy = options.policy.get_policy()(**kwargs)
    assert policy(context(0.0, 2))[0] == 2
