"""Worker counts from a real API server; the controllers are a double."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from planner_adapters.environment import Unobserved
from planner_adapters.kubernetes.kinds import DEPLOYMENT, GRAPH
from planner_core import PlannerConfig, Role, WorkerCounts

DISAGG = {
    "Frontend": {"componentType": "frontend", "replicas": 1},
    "Prefill": {"componentType": "worker", "subComponentType": "prefill", "replicas": 1},
    "Decode": {"componentType": "worker", "subComponentType": "decode", "replicas": 2},
    "Planner": {"componentType": "planner", "replicas": 1},
}
DISAGG_V1BETA1 = [
    {"name": "frontend", "type": "frontend", "replicas": 1},
    {"name": "prefill", "type": "prefill", "replicas": 1},
    {"name": "decode", "type": "decode", "replicas": 2},
    {"name": "planner", "type": "planner", "replicas": 1},
]


def look(kube: Any, config: PlannerConfig, **options: Any) -> dict[Role, WorkerCounts]:
    async def main() -> dict[Role, WorkerCounts]:
        async with kube.connected(config, **options) as connector:
            counts: dict[Role, WorkerCounts] = await connector.workers()
            return counts

    return asyncio.run(main())


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet"])
def test_a_workload_that_has_settled_is_ready_as_desired(kube: Any, agg: PlannerConfig, kind: str) -> None:
    kube.deployment("llama", 3, kind=kind)
    kube.controllers.settle()

    async def main() -> dict[Role, WorkerCounts]:
        async with kube.connected(agg, workloads=f"agg={kind}/llama") as connector:
            assert (await connector.services())[Role.AGG].stable
            counts: dict[Role, WorkerCounts] = await connector.workers()
            return counts

    assert asyncio.run(main()) == {Role.AGG: WorkerCounts(ready=3, expected=3)}


def test_a_group_of_a_leader_worker_set_is_one_replica(kube: Any) -> None:
    from planner_core import EngineSpec

    config = PlannerConfig(engines={Role.AGG: EngineSpec(num_gpus=16)})
    kube.leader_worker_set("llama", 2, size=2, gpus=8)
    kube.controllers.settle()
    assert look(kube, config, workloads="agg=lws/llama") == {Role.AGG: WorkerCounts(ready=2, expected=2)}


@pytest.mark.parametrize("version", ["v1alpha1", "v1beta1"])
def test_the_services_of_a_graph_are_counted_by_role(kube: Any, disagg: PlannerConfig, version: str) -> None:
    kube.graph("g", DISAGG) if version == "v1alpha1" else kube.graph_v1beta1("g", DISAGG_V1BETA1)
    kube.controllers.settle()
    assert look(kube, disagg, dgd="g") == {
        Role.PREFILL: WorkerCounts(ready=1, expected=1),
        Role.DECODE: WorkerCounts(ready=2, expected=2),
    }


def test_nodes_of_a_multinode_service_are_one_replica_with_all_their_gpus(kube: Any) -> None:
    from planner_core import EngineSpec

    kube.graph(
        "g",
        {
            "Decode": {
                "componentType": "worker",
                "subComponentType": "decode",
                "replicas": 2,
                "resources": {"limits": {"gpu": "8"}},
                "multinode": {"nodeCount": 2},
            }
        },
    )
    kube.controllers.settle()
    config = PlannerConfig(engines={Role.DECODE: EngineSpec(num_gpus=16)})
    assert look(kube, config, dgd="g") == {Role.DECODE: WorkerCounts(ready=2, expected=2)}
    kube.patch(GRAPH["v1alpha1"], "g", {"spec": {"services": {"Decode": {"replicas": 3}}}})
    kube.controllers.advance()
    counts = look(kube, config, dgd="g")[Role.DECODE]
    assert (counts.ready, counts.expected, len(counts.starting_ages_s)) == (2, 3, 1)


def test_what_is_starting_counts_with_the_time_since_its_pod_was_made(kube: Any, agg: PlannerConfig) -> None:
    kube.deployment("llama", 2)
    kube.controllers.settle()
    kube.patch(DEPLOYMENT, "llama", {"spec": {"replicas": 6}})
    kube.controllers.advance()
    counts = look(kube, agg, workloads="agg=deploy/llama", clock=lambda: time.time() + 100)[Role.AGG]
    assert (counts.ready, counts.expected) == (2, 6)
    assert len(counts.starting_ages_s) == 4
    assert all(100 <= age_s < 160 for age_s in counts.starting_ages_s)


def test_pods_that_never_come_up_stay_starting_and_age(kube: Any, agg: PlannerConfig) -> None:
    kube.controllers.stuck = {"llama"}
    kube.deployment("llama", 2)
    kube.controllers.settle()
    hour = look(kube, agg, workloads="agg=deploy/llama", clock=lambda: time.time() + 3600)[Role.AGG]
    assert (hour.ready, hour.expected) == (0, 2)
    assert min(hour.starting_ages_s) >= 3600


def test_replicas_whose_pods_are_still_to_be_made_are_expected_without_an_age(
    kube: Any, agg: PlannerConfig
) -> None:
    kube.deployment("llama", 1)
    kube.controllers.settle()
    kube.patch(DEPLOYMENT, "llama", {"spec": {"replicas": 4}})  # and no controller looks at it
    assert look(kube, agg, workloads="agg=deploy/llama")[Role.AGG] == WorkerCounts(ready=1, expected=4)


def test_a_pod_on_its_way_out_is_draining_and_no_capacity(kube: Any, agg: PlannerConfig) -> None:
    kube.deployment("llama", 3)
    kube.controllers.settle()
    kube.patch(DEPLOYMENT, "llama", {"spec": {"replicas": 2}})
    kube.controllers.advance()
    counts = look(kube, agg, workloads="agg=deploy/llama")[Role.AGG]
    assert counts == WorkerCounts(ready=2, expected=2, draining=1)


def test_surge_pods_of_a_rolling_update_are_never_capacity(kube: Any, agg: PlannerConfig) -> None:
    kube.deployment("llama", 3)
    kube.controllers.settle()
    revision = {"spec": {"template": {"metadata": {"annotations": {"revision": "2"}}}}}
    kube.patch(DEPLOYMENT, "llama", revision)

    async def main() -> None:
        async with kube.connected(agg, workloads="agg=deploy/llama") as connector:
            surged = False
            for _ in range(30):
                kube.controllers.advance(20.0)
                counts = await _seen(kube, connector)
                assert counts.expected == 3
                assert counts.ready <= 3
                assert counts.ready + len(counts.starting_ages_s) <= 3
                surged |= sum("deletionTimestamp" not in pod["metadata"] for pod in kube.pods().values()) > 3
            assert surged
            assert (await connector.services())[Role.AGG].stable
            assert all(pod["metadata"]["labels"]["revision"] == "2" for pod in kube.pods().values())

    asyncio.run(main())


async def _seen(kube: Any, connector: Any) -> WorkerCounts:
    """The counts, once the live copies hold what the server holds now."""
    pods = {name: pod["metadata"]["resourceVersion"] for name, pod in kube.pods().items()}
    target = connector._targets[Role.AGG]
    async with asyncio.timeout(30):
        while {pod["metadata"]["name"]: pod["metadata"]["resourceVersion"] for pod in target.pods()} != pods:
            await connector.cluster.changes.wait()
    counts: WorkerCounts = (await connector.workers())[Role.AGG]
    return counts


def test_the_planner_does_not_wait_for_itself_nor_for_the_frontend(kube: Any, disagg: PlannerConfig) -> None:
    kube.controllers.stuck = {"g-planner", "g-frontend"}
    kube.graph("g", DISAGG)
    kube.controllers.settle()
    assert kube.client.get(GRAPH["v1alpha1"], "g")["status"]["state"] == "pending"
    counts = look(kube, disagg, dgd="g")
    assert {role: (each.ready, each.expected) for role, each in counts.items()} == {
        Role.PREFILL: (1, 1),
        Role.DECODE: (2, 2),
    }


def test_counts_that_people_edit_by_hand_are_simply_what_there_is(
    kube: Any, agg: PlannerConfig, until: Callable[..., Any], order: Callable[..., Any]
) -> None:
    kube.deployment("llama", 2)
    kube.controllers.settle()

    async def main() -> None:
        async with kube.connected(agg, workloads="agg=deploy/llama") as connector:
            for by_hand, ordered in ((5, 3), (0, 2), (4, 4)):
                kube.patch(DEPLOYMENT, "llama", {"spec": {"replicas": by_hand}})
                kube.controllers.settle()
                await until(connector, lambda c, n=by_hand: c[Role.AGG] == WorkerCounts(ready=n, expected=n))
                await connector.scale(order({Role.AGG: ordered}))
                kube.controllers.settle()
                await until(connector, lambda c, n=ordered: c[Role.AGG] == WorkerCounts(ready=n, expected=n))

    asyncio.run(main())


def test_a_role_whose_workload_is_deleted_is_unknown_and_the_other_goes_on(
    kube: Any, disagg: PlannerConfig, until: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    kube.deployment("p", 1)
    kube.deployment("d", 1)
    kube.controllers.settle()

    async def main() -> None:
        async with kube.connected(disagg, workloads="prefill=deploy/p,decode=deploy/d") as connector:
            assert set(await connector.workers()) == {Role.PREFILL, Role.DECODE}
            kube.client.delete(DEPLOYMENT, "d")
            counts = await until(connector, lambda c: set(c) == {Role.PREFILL})
            assert counts[Role.PREFILL].ready == 1
            kube.client.delete(DEPLOYMENT, "p")
            reason = await _unobserved(connector)
            assert "Deployment 'p'" in reason
            assert "Deployment 'd'" in reason

    asyncio.run(main())
    assert "decode: Kubernetes: there is no Deployment 'd'" in caplog.text


async def _unobserved(connector: Any) -> str:
    """Why nothing is known, once it is so."""
    async with asyncio.timeout(30):
        while True:
            try:
                await connector.workers()
            except Unobserved as error:
                return str(error)
            await connector.cluster.changes.wait()


def test_many_deployments_in_one_process_share_two_watches(kube: Any, agg: PlannerConfig) -> None:
    from planner_adapters.kubernetes import connect

    for number in range(5):
        kube.deployment(f"llama-{number}", number)
    kube.controllers.settle()

    async def main() -> list[dict[Role, WorkerCounts]]:
        cluster = kube.cluster(whole_namespaces=True)
        try:
            connectors = [
                await connect(
                    agg,
                    workloads=f"agg=deploy/llama-{n}",
                    namespace=kube.namespace,
                    cluster=cluster,
                    environ={},
                )
                for n in range(5)
            ]
            assert len(cluster._mirrors) == 2
            counts = [await connector.workers() for connector in connectors]
            for connector in connectors:
                await connector.close()  # the cluster is others' too
            return counts
        finally:
            await cluster.close()

    counts = asyncio.run(main())
    assert counts == [{Role.AGG: WorkerCounts(ready=n, expected=n)} for n in range(5)]
