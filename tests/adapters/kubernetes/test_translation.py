"""What is read out of manifests, pods and names: functions of plain data, without a server."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner_adapters.environment import Unobserved
from planner_adapters.kubernetes.counts import count
from planner_adapters.kubernetes.drain import DELETION_COST, OURS, cost_changes, pods_of_workers
from planner_adapters.kubernetes.references import read_workloads
from planner_adapters.kubernetes.selectors import Selector
from planner_adapters.kubernetes.services import Service
from planner_adapters.kubernetes.templates import gpus_of_pod, model_of
from planner_core import ConfigError, Role


def pod(name: str, *, ready: bool = True, going: bool = False, **metadata: Any) -> dict[str, Any]:
    metadata = {"name": name, "creationTimestamp": "1970-01-01T00:00:00Z", **metadata}
    if going:
        metadata["deletionTimestamp"] = "1970-01-01T00:01:00Z"
    conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
    return {"metadata": metadata, "status": {"phase": "Running", "conditions": conditions}}


def service(desired: int | None, available: int | None, **changes: Any) -> Service:
    given = {"updated": None, "num_gpus": 1, "pods_per_replica": 1, "model": None, "selector": None}
    return Service(
        name="s", desired=desired, available=available, honours_deletion_cost=True, **{**given, **changes}
    )


# Counts

pods = st.lists(
    st.builds(
        lambda number, ready, going: pod(f"p-{number}", ready=ready, going=going),
        st.integers(0, 30),
        st.booleans(),
        st.booleans(),
    ),
    max_size=20,
    unique_by=lambda found: found["metadata"]["name"],
)


@given(st.integers(0, 12), st.none() | st.integers(0, 12), pods, st.floats(-1e6, 1e6))
def test_no_more_than_the_desired_replicas_are_ever_counted(
    desired: int, available: int | None, found: list[Any], now_s: float
) -> None:
    if available is None and not found and desired:
        with pytest.raises(Unobserved, match="neither a status nor pods"):
            count(service(desired, available), found, now_s)
        return
    counts = count(service(desired, available), found, now_s)
    assert counts.expected == desired
    assert counts.ready + len(counts.starting_ages_s) <= desired
    assert counts.draining == sum("deletionTimestamp" in each["metadata"] for each in found)
    assert all(age_s >= 0 for age_s in counts.starting_ages_s)


def test_a_status_that_lags_behind_the_pods_is_not_believed() -> None:
    found = [pod("a"), pod("b", ready=False), pod("c", going=True)]
    assert count(service(3, 3), found, 60.0).ready == 1


def test_a_status_without_any_pod_that_we_recognise_still_counts() -> None:
    assert count(service(3, 3), [], 60.0).ready == 3


def test_pods_that_have_ended_are_none() -> None:
    ended = pod("a")
    ended["status"]["phase"] = "Failed"
    counts = count(service(1, 0), [ended], 60.0)
    assert (counts.ready, counts.starting_ages_s) == (0, ())


def test_a_multinode_replica_is_ready_when_all_of_its_nodes_are() -> None:
    index = "leaderworkerset.sigs.k8s.io/group-index"
    found = [
        pod("a0", labels={index: "0"}),
        pod("a1", labels={index: "0"}),
        pod("b0", labels={index: "1"}),
        pod("b1", labels={index: "1"}, ready=False),
        pod("c0", labels={index: "2"}),
    ]
    counts = count(service(3, 3, pods_per_replica=2), found, 60.0)
    assert (counts.ready, counts.starting_ages_s) == (1, (60.0, 60.0))


# Names


@pytest.mark.parametrize(
    "text",
    [
        "agg=deployment/a/b",
        "agg=deployment/../x",
        "agg=deployment/",
        "agg=pod/x",
        "agg=deployment/A",
        "agg=a",
        "agg=",
    ],
)
def test_a_workload_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="must be KIND/NAME, with a KIND of deployment, deploy,"):
        read_workloads(text)


def test_all_that_is_wrong_with_the_workloads_is_said_at_once() -> None:
    with pytest.raises(ConfigError) as raised:
        read_workloads("both=sts/a, agg=pod/a, prefill=sts/a, prefill=sts/b, decode=sts/a")
    roles, kinds, twice, shared = raised.value.problems
    assert roles == "workloads: 'both' is no role: must be one of prefill, decode, agg"
    assert "agg is 'pod/a'" in kinds
    assert twice == "workloads: prefill is given twice; keep one"
    assert shared == "workloads: StatefulSet 'a' has two roles; a replica has one"


@given(st.text(max_size=80))
def test_no_text_is_taken_for_a_path(text: str) -> None:
    try:
        found = read_workloads(f"agg=deployment/{text}")
    except ConfigError:
        return
    assert not set(found[Role.AGG].name) & set("/?#%&\\\n ")


# Templates


@pytest.mark.parametrize(
    ("resources", "gpus"),
    [
        ({"limits": {"nvidia.com/gpu": "8"}}, 8),
        ({"limits": {"cpu": "4"}, "requests": {"amd.com/gpu": 2}}, 2),
        ({"limits": {"gpu": "4"}, "requests": {"gpu": "2"}}, 4),
        ({"limits": {"nvidia.com/mig-1g.5gb": "1"}}, 1),
        ({"limits": {"cpu": "4"}}, None),
        ({"limits": {"nvidia.com/gpu": "all"}}, None),
        ({}, None),
    ],
)
def test_gpus_are_read_from_limits_else_from_requests_and_never_guessed(
    resources: dict[str, Any], gpus: int | None
) -> None:
    assert gpus_of_pod({"spec": {"containers": [{"resources": resources}, {"name": "sidecar"}]}}) == gpus


@pytest.mark.parametrize(
    ("container", "model"),
    [
        ({"args": ["--model", "Qwen/Qwen3-8B", "--tp", "2"]}, "Qwen/Qwen3-8B"),
        ({"command": ["sh", "-c"], "args": ["exec python3 -m dynamo.sglang --model-path x"]}, "x"),
        ({"args": ["--model=x", "--served-model-name=y"]}, "y"),
        ({"args": ["--model"]}, None),
        ({"args": ["it's --model x"]}, "x"),
        ({}, None),
    ],
)
def test_the_model_is_read_from_the_command_line(container: dict[str, Any], model: str | None) -> None:
    assert model_of(container) == model


def test_selectors_match_as_kubernetes_does() -> None:
    selector = Selector.of(
        {
            "matchLabels": {"app": "llama"},
            "matchExpressions": [
                {"key": "tier", "operator": "In", "values": ["a", "b"]},
                {"key": "zone", "operator": "NotIn", "values": ["x"]},
                {"key": "app", "operator": "Exists"},
                {"key": "old", "operator": "DoesNotExist"},
            ],
        }
    )
    assert selector.matches({"app": "llama", "tier": "a"})
    for changed in ({"app": "qwen"}, {"tier": "c"}, {"zone": "x"}, {"old": ""}):
        assert not selector.matches({"app": "llama", "tier": "a", **changed})


# The drain list


@pytest.mark.parametrize(
    "worker",
    [
        "llama-1",
        "uid-1",
        "10.0.0.1",
        "10.0.0.1:8000",
        "http://10.0.0.1:8000/metrics",
        "fd00::1",
        "http://[fd00::1]:80",
        "7587888",
    ],
)
def test_a_worker_is_found_by_its_pod_s_name_uid_address_or_annotation(worker: str) -> None:
    wanted = pod("llama-1", uid="uid-1", annotations={"planner-core/worker-id": "7587888, 7587889"})
    wanted["status"] |= {"podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]}
    other = pod("llama-2", uid="uid-2")
    assert pods_of_workers([worker], [other, wanted]) == ([wanted], [])


@given(st.lists(st.text(max_size=40), max_size=5))
def test_no_worker_id_whatever_it_holds_finds_a_pod_that_is_not_its_own(workers: list[str]) -> None:
    found, unknown = pods_of_workers([f"-{worker}" for worker in workers], [pod("a"), pod("b")])
    assert not found
    assert len(unknown) == len(workers)


def test_a_pod_on_its_way_out_belongs_to_nobody() -> None:
    assert pods_of_workers(["a"], [pod("a", going=True)]) == ([], ["a"])


def test_marks_that_stand_as_they_should_are_left_alone() -> None:
    marked = pod("a", annotations={DELETION_COST: "-1", OURS: "-1"})
    assert cost_changes([marked], [marked, pod("b")]) == {}
    assert cost_changes([], [marked]) == {
        "a": {"metadata": {"annotations": {DELETION_COST: None, OURS: None}}}
    }


# The extra


def test_a_missing_extra_is_named_with_its_pip_command() -> None:
    code = (
        "import sys; sys.modules['lightkube'] = None\n"
        "from planner_core import MissingExtraError\n"
        "try: import planner_adapters.kubernetes\n"
        "except MissingExtraError as error: print(error)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.stdout.strip() == (
        "planner_adapters.kubernetes needs lightkube: pip install 'planner-core[kubernetes]'"
    ), run.stderr
