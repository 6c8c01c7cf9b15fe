"""How long it takes one process to observe and tick 2 000 engines in 200 deployments, against a real API server.

Needs an API server that may be filled: $KUBECONFIG, or the one that `kube-api up` starts (../shared/tools).
"""

from __future__ import annotations

import asyncio
import os
import resource
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightkube import AsyncClient, KubeConfig
from lightkube.config.kubeconfig import SingleConfig
from lightkube.models.core_v1 import Container, PodCondition, PodSpec, PodStatus
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.apps_v1 import DeploymentStatus
from lightkube.resources.core_v1 import Namespace, Pod
from lightkube.resources.core_v1 import PodStatus as PodStatusResource
from lightkube.types import PatchType

from planner_adapters.kubernetes import Cluster, KubernetesConnector, connect
from planner_adapters.kubernetes.kinds import DEPLOYMENT
from planner_core import EngineSpec, PlannerConfig, Role, TickInput, first_tick, initial_state, tick

NUM_DEPLOYMENTS, REPLICAS = 200, 10
POD_BYTES = 8_000  # a real pod's, with its environment, volumes and managed fields
NAMESPACE = "planner-load"
ROUNDS = 20
CONFIG = PlannerConfig(engines={Role.AGG: EngineSpec()})


async def fill(config: SingleConfig) -> None:
    """Creates the deployments and their pods, ready; no controller runs."""
    client, places = AsyncClient(config), asyncio.Semaphore(16)
    ready = PodStatus(phase="Running", conditions=[PodCondition(type="Ready", status="True")])

    async def deployment(name: str) -> None:
        labels = {"app": name}
        container = {"name": "main", "image": "engine", "resources": {"limits": {"nvidia.com/gpu": "1"}}}
        template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
        spec = {"replicas": REPLICAS, "selector": {"matchLabels": labels}, "template": template}
        found = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec}
        async with places:
            await client.create(DEPLOYMENT(found), namespace=NAMESPACE)
            counts = dict.fromkeys(("replicas", "readyReplicas", "availableReplicas"), REPLICAS)
            await client.patch(
                DeploymentStatus,
                name,
                {"status": {**counts, "observedGeneration": 1}},
                namespace=NAMESPACE,
                patch_type=PatchType.MERGE,
            )

    async def pod(name: str, number: int) -> None:
        metadata = ObjectMeta(
            name=f"{name}-{number}", labels={"app": name}, annotations={"padding": "x" * POD_BYTES}
        )
        spec = PodSpec(nodeName="node-1", containers=[Container(name="main", image="engine")])
        async with places:
            await client.create(Pod(metadata=metadata, spec=spec), namespace=NAMESPACE)
            await client.patch(
                PodStatusResource,
                f"{name}-{number}",
                {"status": ready.to_dict()},
                namespace=NAMESPACE,
                patch_type=PatchType.MERGE,
            )

    await client.create(Namespace(metadata=ObjectMeta(name=NAMESPACE)))
    names = [f"llama-{number}" for number in range(NUM_DEPLOYMENTS)]
    await asyncio.gather(*map(deployment, names))
    await asyncio.gather(*(pod(name, number) for name in names for number in range(REPLICAS)))
    await client.close()


async def measure(config: SingleConfig) -> None:
    """Connects one planner per deployment, lets all of them look and tick, and follows a change."""
    began_s = time.perf_counter()
    cluster = Cluster(config, whole_namespaces=True)
    connectors = [
        await connect(
            CONFIG, workloads=f"agg=deploy/llama-{number}", namespace=NAMESPACE, cluster=cluster, environ={}
        )
        for number in range(NUM_DEPLOYMENTS)
    ]
    engines = sum([(await each.workers())[Role.AGG].ready for each in connectors])
    print(f"{engines:,} engines in {len(connectors)} deployments")
    print(f"  from nothing to the first counts of all  {time.perf_counter() - began_s:8.3f} s")
    states = [initial_state(CONFIG, 0.0) for _ in connectors]
    upcoming = [first_tick(CONFIG, 0.0)] * len(connectors)
    looks, ticks = [], []
    for _ in range(ROUNDS):
        began_s = time.perf_counter()
        seen = [await each.workers() for each in connectors]
        looks.append(time.perf_counter() - began_s)
        decisions = [
            tick(TickInput(config=CONFIG, state=state, now_s=at.at_s, workers=workers))
            for state, at, workers in zip(states, upcoming, seen, strict=True)
        ]
        states, upcoming = [each.state for each in decisions], [each.next_tick for each in decisions]
        ticks.append(time.perf_counter() - began_s)
    print(f"  a look at all, median and slowest        {statistics.median(looks):8.3f} {max(looks):8.3f} s")
    print(f"  looks and ticks, median and slowest      {statistics.median(ticks):8.3f} {max(ticks):8.3f} s")
    print(f"  a change of every deployment, till seen  {await follow(config, connectors):8.3f} s")
    mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"  memory of the process, at most           {mib:8.0f} MiB")
    await cluster.close()


async def follow(config: SingleConfig, connectors: list[KubernetesConnector]) -> float:
    """Seconds from the first of 200 edits to all of them seen; the edits themselves are part of it."""
    client, places = AsyncClient(config), asyncio.Semaphore(16)

    async def edit(number: int) -> Any:
        async with places:
            patch = {"spec": {"replicas": REPLICAS + 1}}
            name = f"llama-{number}"
            return await client.patch(
                DEPLOYMENT, name, patch, namespace=NAMESPACE, patch_type=PatchType.MERGE
            )

    began_s = time.perf_counter()
    await asyncio.gather(*map(edit, range(len(connectors))))
    for connector in connectors:
        while (await connector.workers())[Role.AGG].expected != REPLICAS + 1:
            await connector.cluster.changes.wait()
    seen_s = time.perf_counter() - began_s
    await client.close()
    return seen_s


async def main(config: SingleConfig) -> None:
    """Fills and measures."""
    began_s = time.perf_counter()
    await fill(config)
    print(f"filled in {time.perf_counter() - began_s:.0f} s")
    await measure(config)


@contextmanager
def api_server() -> Iterator[SingleConfig]:
    """That of $KUBECONFIG, or a fresh one."""
    if "KUBECONFIG" in os.environ:
        yield KubeConfig.from_file(os.environ["KUBECONFIG"]).get()
        return
    tool = Path(__file__).parents[2] / "shared" / "tools" / "kube-api"
    with tempfile.TemporaryDirectory() as folder:
        up = subprocess.run([tool, "up", folder], check=True, capture_output=True, text=True)
        try:
            yield KubeConfig.from_file(up.stdout.strip()).get()
        finally:
            subprocess.run([tool, "down", folder], check=True)


if __name__ == "__main__":
    with api_server() as found:
        asyncio.run(main(found))
