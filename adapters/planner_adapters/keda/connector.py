"""The planner's side: counts from where the engines are, decisions to whoever asks the scaler."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from planner_adapters.config_file import namespace_of
from planner_adapters.environment import Connector, Order, Unobserved
from planner_adapters.keda.decided import VALID_S, Decided
from planner_core import ConfigError, PlannerConfig, Role, WorkerCounts

if TYPE_CHECKING:
    from planner_adapters.kubernetes.cluster import Cluster
    from planner_adapters.kubernetes.connector import KubernetesConnector
    from planner_adapters.kubernetes.kinds import Object
    from planner_adapters.kubernetes.services import Service
    from planner_adapters.kubernetes.targets import BeforeShrinking, Target


def connect(config: PlannerConfig, engines: Connector, decided: Decided) -> Keda:
    """The connector of a deployment whose replicas ``engines`` counts and KEDA scales.

    In ``decided`` it has the name that the configuration has as ``namespace``, else ``dynamo``.
    """
    return Keda(engines, decided, _expected(config, decided))


class Keda:
    """A connector that publishes instead of scaling."""

    def __init__(self, engines: Connector, decided: Decided, deployment: str) -> None:
        self._engines, self._decided, self._deployment = engines, decided, deployment

    async def workers(self) -> dict[Role, WorkerCounts]:
        """What the connector of the engines says."""
        return await self._engines.workers()

    async def scale(self, order: Order) -> None:
        """Publishes the counts. Which replicas go, KEDA doesn't ask."""
        self._decided.publish(self._deployment, order.replicas)

    async def close(self) -> None:
        """Closes the connector of the engines."""
        await self._engines.close()


async def on_kubernetes(
    config: PlannerConfig,
    decided: Decided,
    *,
    workloads: str | None = None,
    namespace: str | None = None,
    cluster: Cluster | None = None,
    environ: Mapping[str, str] | None = None,
    clock: Callable[[], float] = time.time,
) -> KubernetesConnector:
    """The same for workloads of Kubernetes, named as for :func:`planner_adapters.kubernetes.connect`.

    It is the connector of that shell but for its last step: it marks the drain list, and leaves the count to KEDA.
    Arguments and errors are those of that shell too; every role has to have a workload, since no ScaledObject can name
    a service of a DynamoGraphDeployment.
    """
    from planner_adapters import kubernetes
    from planner_adapters.kubernetes.connector import WORKLOADS_VARIABLE
    from planner_adapters.kubernetes.references import read_workloads
    from planner_adapters.kubernetes.targets import WorkloadTarget

    variables = os.environ if environ is None else environ
    named = read_workloads(variables.get(WORKLOADS_VARIABLE, "") if workloads is None else workloads)
    missing = [f"{role}=deployment/NAME" for role in config.engines if role not in named]
    if missing:
        raise ConfigError(f"KEDA scales workloads: {WORKLOADS_VARIABLE} must have {','.join(missing)}")
    owns_cluster = cluster is None
    cluster = kubernetes.Cluster() if cluster is None else cluster
    try:
        namespace = namespace or cluster.api.namespace
        # Made for its checks; the live copies that it starts are the cluster's, and so those of the targets below.
        await kubernetes.connect(
            config, workloads=workloads, namespace=namespace, cluster=cluster, environ=variables, clock=clock
        )
        deployment = _expected(config, decided)
        targets = {
            role: _Published(WorkloadTarget(cluster, namespace, named[role]), decided, deployment, role)
            for role in config.engines
        }
        return kubernetes.KubernetesConnector(
            cluster, namespace, targets, owns_cluster=owns_cluster, clock=clock
        )
    except BaseException:
        if owns_cluster:
            await cluster.close()
        raise


def _expected(config: PlannerConfig, decided: Decided) -> str:
    """The deployment's name, once its roles are expected."""
    interval_s = 0.0 if config.throughput is None else config.throughput.interval_s
    deployment = namespace_of(config)
    decided.expect(deployment, config.engines, valid_s=max(VALID_S, 3 * interval_s))
    return deployment


class _Published:
    """A workload whose count is published instead of written."""

    def __init__(self, target: Target, decided: Decided, deployment: str, role: Role) -> None:
        self._target, self._decided, self._place = target, decided, (deployment, role)

    async def start(self) -> None:
        await self._target.start()

    def service(self) -> Service:
        return self._target.service()

    def pods(self) -> list[Object]:
        return self._target.pods()

    async def set_replicas(self, replicas: int, before_shrinking: BeforeShrinking) -> None:
        deployment, role = self._place
        try:
            present = self.service().desired
        except Unobserved:
            present = None
        if present is not None and replicas < present:
            await before_shrinking()
        self._decided.publish(deployment, {role: replicas})
