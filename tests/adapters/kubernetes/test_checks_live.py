"""What doesn't fit is found at the start, all of it at once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from planner_adapters.environment import Unobserved
from planner_core import ConfigError, EngineSpec, PlannerConfig, Role, ShellSettings


def problems_of(kube: Any, config: PlannerConfig, **options: Any) -> list[str]:
    async def main() -> None:
        async with kube.connected(config, **options):
            pass

    with pytest.raises(ConfigError) as raised:
        asyncio.run(main())
    assert len(set(raised.value.problems)) == len(raised.value.problems)
    return list(raised.value.problems)


def worker(role: str, *, gpus: int = 1, model: str = "Qwen/Qwen3-8B", **more: Any) -> dict[str, Any]:
    return {
        "componentType": "worker",
        "subComponentType": role,
        "replicas": 1,
        "resources": {"limits": {"gpu": str(gpus)}},
        "extraPodSpec": {"mainContainer": {"args": ["-m", "dynamo.vllm", "--model", model]}},
        **more,
    }


def test_every_misfit_of_a_graph_is_named_in_one_go(kube: Any) -> None:
    config = PlannerConfig(
        engines={Role.PREFILL: EngineSpec(num_gpus=4), Role.DECODE: EngineSpec(num_gpus=1)},
        shell=ShellSettings(model_name="Qwen/Qwen3-32B"),
    )
    services = {
        "P": worker("prefill"),
        "D": worker("decode", gpus=8, multinode={"nodeCount": 2}, model="other"),
    }
    kube.graph("g", services)
    first, second, third = problems_of(kube, config, dgd="g")
    assert "service 'P' of DynamoGraphDeployment 'g' has 1 GPUs per replica" in first
    assert "set engines.prefill.num_gpus: 1" in first
    assert "has 16 GPUs per replica on 2 nodes, the configuration says 1" in second
    assert "different models (prefill 'Qwen/Qwen3-8B', decode 'other')" in third


def test_a_graph_that_serves_another_model_than_the_configuration_is_refused(kube: Any) -> None:
    config = PlannerConfig(
        engines={Role.DECODE: EngineSpec()}, shell=ShellSettings(model_name="Qwen/Qwen3-32B")
    )
    kube.graph("g", {"D": worker("decode")})
    assert problems_of(kube, config, dgd="g") == [
        "model_name is 'Qwen/Qwen3-32B', the deployment serves 'Qwen/Qwen3-8B': set model_name: Qwen/Qwen3-8B"
    ]


def test_the_model_s_name_is_the_same_in_any_case(kube: Any) -> None:
    config = PlannerConfig(
        engines={Role.DECODE: EngineSpec()}, shell=ShellSettings(model_name="qwen/qwen3-8b")
    )
    kube.graph("g", {"D": worker("decode")})

    async def main() -> None:
        async with kube.connected(config, dgd="g") as connector:
            assert (await connector.services())[Role.DECODE].model == "Qwen/Qwen3-8B"

    asyncio.run(main())


def test_roles_without_a_service_and_with_two_are_named_with_what_is_there(
    kube: Any, disagg: PlannerConfig
) -> None:
    kube.graph("g", {"D1": worker("decode"), "D2": worker("decode"), "F": {"componentType": "frontend"}})
    none, several = problems_of(kube, disagg, dgd="g")
    assert "no service with the role prefill: it would have subComponentType" in none
    assert "it has D1 (decode), D2 (decode), F (no engine)" in none
    assert "2 services with the role decode: D1, D2" in several


def test_workloads_that_do_not_exist_are_named(kube: Any, disagg: PlannerConfig) -> None:
    first, second = problems_of(kube, disagg, workloads="prefill=deployment/p,decode=lws/d")
    assert first.startswith(f"Kubernetes: there is no Deployment 'p' in namespace '{kube.namespace}'")
    assert second.startswith("Kubernetes: there is no LeaderWorkerSet 'd'")


def test_a_graph_that_does_not_exist_is_named(kube: Any, disagg: PlannerConfig) -> None:
    (problem,) = problems_of(kube, disagg, dgd="g")
    assert problem.startswith(f"there is no DynamoGraphDeployment 'g' in namespace '{kube.namespace}'")


def test_nothing_to_scale_says_which_variable_to_set(kube: Any, disagg: PlannerConfig) -> None:
    (problem,) = problems_of(kube, disagg)
    assert "set DYN_PARENT_DGD_K8S_NAME" in problem
    assert "PLANNER_WORKLOADS to prefill=deployment/NAME,decode=deployment/NAME" in problem


def test_a_role_that_the_mode_lacks_and_a_name_that_is_none_are_refused(
    kube: Any, agg: PlannerConfig
) -> None:
    foreign, name = problems_of(kube, agg, workloads="decode=deployment/d", dgd="../secrets")
    assert foreign == "workloads: there is no role decode in mode agg"
    assert name == "DYN_PARENT_DGD_K8S_NAME is '../secrets': that is no name of an object"


def test_the_environment_names_what_is_scaled(kube: Any, agg: PlannerConfig) -> None:
    from planner_adapters.kubernetes import connect

    kube.deployment("llama", 2)
    kube.controllers.settle()

    async def main() -> int:
        cluster = kube.cluster()
        try:
            connector = await connect(
                agg,
                namespace=kube.namespace,
                cluster=cluster,
                environ={"PLANNER_WORKLOADS": "agg=deployment/llama"},
            )
            return (await connector.workers())[Role.AGG].ready
        finally:
            await cluster.close()

    assert asyncio.run(main()) == 2


def test_a_server_that_gives_no_answer_is_not_a_wrong_configuration(kube: Any, disagg: PlannerConfig) -> None:
    cluster_config = kube.through("http://127.0.0.1:1")

    async def main(**options: Any) -> None:
        async with kube.connected(disagg, cluster=kube.cluster(cluster_config, patience_s=0.3), **options):
            pass

    with pytest.raises(
        Unobserved, match=r"http://127.0.0.1:1 gives no answer to get .*dynamographdeployments"
    ):
        asyncio.run(main(dgd="g"))
    with pytest.raises(Unobserved, match=r'gives no answer to list "deployments" of API group "apps"'):
        asyncio.run(main(workloads="prefill=deployment/p,decode=deployment/d"))
