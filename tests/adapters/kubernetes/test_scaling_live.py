"""Orders carried out on a real API server; the controllers are a double."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from planner_adapters.environment import NotScaled
from planner_adapters.kubernetes.drain import DELETION_COST, OURS
from planner_adapters.kubernetes.kinds import ADAPTER, DEPLOYMENT, GRAPH, LEADER_WORKER_SET, STATEFUL_SET
from planner_core import EngineSpec, PlannerConfig, Role, WorkerCounts

GRAPH_SERVICES = {
    "VllmPrefillWorker": {"componentType": "worker", "subComponentType": "prefill", "replicas": 1},
    "VllmDecodeWorker": {"componentType": "worker", "subComponentType": "decode", "replicas": 2},
}


def scale(kube: Any, config: PlannerConfig, *orders: Any, **options: Any) -> None:
    async def main() -> None:
        async with kube.connected(config, **options) as connector:
            for each in orders:
                await connector.scale(each)

    asyncio.run(main())


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet"])
def test_an_order_sets_the_replicas(
    kube: Any, agg: PlannerConfig, order: Callable[..., Any], kind: str
) -> None:
    kube.deployment("llama", 2, kind=kind)
    what = {"Deployment": DEPLOYMENT, "StatefulSet": STATEFUL_SET}[kind]
    kube.controllers.settle()
    for replicas in (5, 1, 0, 2):
        scale(kube, agg, order({Role.AGG: replicas}), workloads=f"agg={kind}/llama")
        assert kube.replicas(what, "llama") == replicas


def test_an_order_sets_the_groups_of_a_leader_worker_set(kube: Any, order: Callable[..., Any]) -> None:
    kube.leader_worker_set("llama", 2)
    kube.controllers.settle()
    config = PlannerConfig(engines={Role.AGG: EngineSpec(num_gpus=16)})
    scale(kube, config, order({Role.AGG: 3}), workloads="agg=lws/llama")
    assert kube.replicas(LEADER_WORKER_SET, "llama") == 3


def test_the_same_order_twice_changes_nothing(
    kube: Any, agg: PlannerConfig, order: Callable[..., Any]
) -> None:
    kube.deployment("llama", 2)
    kube.controllers.settle()
    five = order({Role.AGG: 5})
    scale(kube, agg, five, workloads="agg=deploy/llama")
    before = kube.client.get(DEPLOYMENT, "llama")["metadata"]["resourceVersion"]
    scale(kube, agg, five, five, workloads="agg=deploy/llama")
    assert kube.client.get(DEPLOYMENT, "llama")["metadata"]["resourceVersion"] == before


def test_a_graph_is_scaled_through_its_adapters(
    kube: Any, disagg: PlannerConfig, order: Callable[..., Any], until: Callable[..., Any]
) -> None:
    kube.graph("g", GRAPH_SERVICES)
    kube.adapter("g", "VllmPrefillWorker", 1)
    kube.adapter("g", "VllmDecodeWorker", 2)
    kube.controllers.settle()

    async def main() -> None:
        async with kube.connected(disagg, dgd="g") as connector:
            await connector.scale(order({Role.PREFILL: 2, Role.DECODE: 4}))
            assert kube.replicas(ADAPTER["v1alpha1"], "g-vllmprefillworker") == 2
            assert kube.replicas(ADAPTER["v1alpha1"], "g-vllmdecodeworker") == 4
            graph = kube.client.get(GRAPH["v1alpha1"], "g")
            assert graph["spec"]["services"]["VllmDecodeWorker"]["replicas"] == 2, (
                "that is the operator's to write"
            )
            kube.controllers.settle()
            settled = {
                Role.PREFILL: WorkerCounts(ready=2, expected=2),
                Role.DECODE: WorkerCounts(ready=4, expected=4),
            }
            await until(connector, lambda counts: counts == settled)

    asyncio.run(main())


def test_a_graph_without_adapters_is_patched_itself(
    kube: Any, disagg: PlannerConfig, order: Callable[..., Any]
) -> None:
    kube.graph("g", GRAPH_SERVICES)
    kube.controllers.settle()
    scale(kube, disagg, order({Role.PREFILL: 3, Role.DECODE: 1}), dgd="g")
    services = kube.client.get(GRAPH["v1alpha1"], "g")["spec"]["services"]
    assert {name: each["replicas"] for name, each in services.items()} == {
        "VllmPrefillWorker": 3,
        "VllmDecodeWorker": 1,
    }
    assert services["VllmDecodeWorker"]["subComponentType"] == "decode", "nothing else is touched"


def test_a_service_in_the_list_of_v1beta1_is_patched_in_its_place(
    kube: Any, disagg: PlannerConfig, order: Callable[..., Any]
) -> None:
    components = [
        {"name": "frontend", "type": "frontend", "replicas": 1},
        {"name": "decode", "type": "decode", "replicas": 2},
        {"name": "prefill", "type": "prefill"},
    ]
    kube.graph_v1beta1("g", components)
    kube.controllers.settle()
    scale(kube, disagg, order({Role.PREFILL: 3, Role.DECODE: 4}), dgd="g")
    found = kube.client.get(GRAPH["v1beta1"], "g")["spec"]["components"]
    assert [(each["name"], each["replicas"]) for each in found] == [
        ("frontend", 1),
        ("decode", 4),
        ("prefill", 3),
    ]


def test_one_role_of_a_graph_and_a_workload_of_its_own_go_together(
    kube: Any, disagg: PlannerConfig, order: Callable[..., Any]
) -> None:
    kube.graph("g", GRAPH_SERVICES)
    kube.deployment("prefill", 1)
    kube.controllers.settle()
    scale(
        kube,
        disagg,
        order({Role.PREFILL: 2, Role.DECODE: 3}),
        dgd="g",
        workloads="prefill=deployment/prefill",
    )
    services = kube.client.get(GRAPH["v1alpha1"], "g")["spec"]["services"]
    assert kube.replicas(DEPLOYMENT, "prefill") == 2
    assert (services["VllmPrefillWorker"]["replicas"], services["VllmDecodeWorker"]["replicas"]) == (1, 3)


def test_the_pods_that_go_are_those_of_the_drain_list(
    kube: Any, agg: PlannerConfig, order: Callable[..., Any], until: Callable[..., Any]
) -> None:
    kube.deployment("llama", 4)
    kube.controllers.settle()
    first, second, third, _ = sorted(kube.pods())

    async def main() -> None:
        async with kube.connected(agg, workloads="agg=deploy/llama") as connector:
            address = kube.pods()[third]["status"]["podIP"]
            await connector.scale(order({Role.AGG: 2}, {Role.AGG: (second, f"http://{address}:8000")}))
            costs = {
                name: (pod["metadata"].get("annotations") or {}).get(DELETION_COST)
                for name, pod in kube.pods().items()
            }
            assert (costs[second], costs[third], costs[first]) == ("-2", "-1", None)
            kube.controllers.settle()
            assert not {second, third} & set(kube.pods())
            await until(connector, lambda c: c[Role.AGG] == WorkerCounts(ready=2, expected=2))

    asyncio.run(main())


def test_a_pod_that_is_off_the_drain_list_again_loses_its_mark(
    kube: Any, agg: PlannerConfig, order: Callable[..., Any]
) -> None:
    kube.deployment("llama", 3)
    kube.controllers.settle()
    first, second, third = sorted(kube.pods())
    users = {"metadata": {"annotations": {DELETION_COST: "7"}}}
    from planner_adapters.kubernetes.kinds import POD

    kube.patch(POD, third, users)
    scale(kube, agg, order({Role.AGG: 2}, {Role.AGG: (first,)}), workloads="agg=deploy/llama")
    kube.patch(DEPLOYMENT, "llama", {"spec": {"replicas": 3}})
    scale(kube, agg, order({Role.AGG: 2}, {Role.AGG: (second,)}), workloads="agg=deploy/llama")
    annotations = {name: pod["metadata"].get("annotations") or {} for name, pod in kube.pods().items()}
    assert DELETION_COST not in annotations[first]
    assert OURS not in annotations[first]
    assert annotations[second][DELETION_COST] == "-1"
    assert annotations[third][DELETION_COST] == "7", "a cost that others have set stays"


def test_growth_marks_no_pod(kube: Any, agg: PlannerConfig, order: Callable[..., Any]) -> None:
    kube.deployment("llama", 1)
    kube.controllers.settle()
    (pod,) = kube.pods()
    scale(kube, agg, order({Role.AGG: 2}, {Role.AGG: (pod,)}), workloads="agg=deploy/llama")
    assert DELETION_COST not in (kube.pods()[pod]["metadata"].get("annotations") or {})


def test_workers_without_a_pod_are_named_and_delay_nothing(
    kube: Any, agg: PlannerConfig, order: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    kube.deployment("llama", 2)
    kube.controllers.settle()
    scale(kube, agg, order({Role.AGG: 1}, {Role.AGG: ("7587888",)}), workloads="agg=deploy/llama")
    assert kube.replicas(DEPLOYMENT, "llama") == 1
    assert "no pod belongs to the workers '7587888'" in caplog.text


def test_a_role_that_cannot_be_scaled_does_not_hold_up_the_other(
    kube: Any, disagg: PlannerConfig, order: Callable[..., Any]
) -> None:
    kube.deployment("p", 1)
    kube.deployment("d", 1)
    kube.controllers.settle()

    async def main() -> None:
        async with kube.connected(disagg, workloads="prefill=deploy/p,decode=deploy/d") as connector:
            kube.client.delete(DEPLOYMENT, "p")
            with pytest.raises(NotScaled, match=r"Deployment 'p' not scaled: .* 404") as raised:
                await connector.scale(order({Role.PREFILL: 2, Role.DECODE: 2}))
            assert "'d'" not in str(raised.value)

    asyncio.run(main())
    assert kube.replicas(DEPLOYMENT, "d") == 2


def test_an_order_for_a_role_without_a_workload_is_refused(
    kube: Any, agg: PlannerConfig, order: Callable[..., Any]
) -> None:
    kube.deployment("llama", 1)
    kube.controllers.settle()
    with pytest.raises(NotScaled, match="no workload has the role decode"):
        scale(kube, agg, order({Role.DECODE: 2}), workloads="agg=deploy/llama")
