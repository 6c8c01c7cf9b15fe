"""Workloads that KEDA scales, on a real API server."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("grpc", reason="needs the extra keda")
pytest.importorskip("lightkube", reason="needs the extra kubernetes")

from planner_adapters.environment import NotScaled
from planner_adapters.keda import Decided, UndecidedError, on_kubernetes
from planner_adapters.runner.wiring import connected
from planner_core import ConfigError, EngineSpec, PlannerConfig, Role, WorkerCounts

AGG = PlannerConfig(engines={Role.AGG: EngineSpec(num_gpus=1)})


def order(replicas: int, *drain: str) -> Any:
    return SimpleNamespace(replicas={Role.AGG: replicas}, drain={Role.AGG: drain}, next_tick=None)


def behind_keda(kube: Any, decided: Decided, *orders: Any) -> dict[Role, WorkerCounts]:
    async def main() -> dict[Role, WorkerCounts]:
        cluster = kube.cluster()
        try:
            connector = await on_kubernetes(
                AGG, decided, workloads="agg=deploy/llama", namespace=kube.namespace, cluster=cluster
            )
            for each in orders:
                await connector.scale(each)
            return await connector.workers()
        finally:
            await cluster.close()

    return asyncio.run(main())


def test_the_count_is_left_to_keda_and_the_drain_list_is_marked(kube: Any) -> None:
    from planner_adapters.kubernetes.drain import DELETION_COST
    from planner_adapters.kubernetes.kinds import DEPLOYMENT

    kube.deployment("llama", 3)
    kube.controllers.settle()
    first, second, third = sorted(kube.pods())
    decided = Decided()
    counts = behind_keda(kube, decided, order(2, second))
    assert decided.replicas("dynamo", "agg") == 2
    assert kube.replicas(DEPLOYMENT, "llama") == 3
    assert counts[Role.AGG] == WorkerCounts(ready=3, expected=3)
    costs = {
        name: (pod["metadata"].get("annotations") or {}).get(DELETION_COST)
        for name, pod in kube.pods().items()
    }
    assert costs == {first: None, second: "-1", third: None}

    kube.patch(DEPLOYMENT, "llama", {"spec": {"replicas": 2}})  # KEDA's HPA has asked
    kube.controllers.settle()
    assert set(kube.pods()) == {first, third}


def test_growth_marks_nothing_and_nothing_is_decided_before_the_first_order(kube: Any) -> None:
    kube.deployment("llama", 1)
    kube.controllers.settle()
    decided = Decided()
    behind_keda(kube, decided)
    with pytest.raises(UndecidedError):
        decided.replicas("dynamo", "agg")
    behind_keda(kube, decided, order(4, *kube.pods()))
    assert decided.replicas("dynamo", "agg") == 4
    assert not any(pod["metadata"].get("annotations") for pod in kube.pods().values())


def test_a_workload_that_is_not_there_is_named(kube: Any) -> None:
    with pytest.raises(ConfigError, match="there is no Deployment 'llama'"):
        behind_keda(kube, Decided())


def test_a_role_that_has_no_workload_is_not_scaled(kube: Any) -> None:
    kube.deployment("llama", 1)
    kube.controllers.settle()
    with pytest.raises(NotScaled, match="no workload has the role decode"):
        behind_keda(kube, Decided(), SimpleNamespace(replicas={Role.DECODE: 2}, drain={}, next_tick=None))


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"PLANNER_KEDA_LISTEN": "here"}, "PLANNER_KEDA_LISTEN must be HOST:PORT"),
        ({"PLANNER_KEDA_LISTEN": "0.0.0.0:70000"}, "PLANNER_KEDA_LISTEN must be HOST:PORT"),
        ({"PLANNER_KEDA_LISTEN": "9090"}, "PLANNER_WORKLOADS must have agg=deployment/NAME"),
        ({"PLANNER_KEDA_LISTEN": "9090", "PLANNER_KEDA_TLS": "/nowhere"}, "/nowhere/tls.crt: No such file"),
    ],
)
def test_planner_run_names_what_keda_cannot_be_served_with(variables: dict[str, str], words: str) -> None:
    pytest.importorskip("aiohttp", reason="needs the extra prometheus")

    async def main() -> None:
        async with connected(PlannerConfig.from_mapping({"mode": "agg"}), environ=variables):
            pass

    with pytest.raises(ConfigError) as caught:
        asyncio.run(main())
    assert words in str(caught.value)
