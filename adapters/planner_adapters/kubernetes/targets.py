"""What one role scales: a workload through its scale subresource, or a service of a DynamoGraphDeployment.

Each knows how to see its service and pods in live copies, and how to set a number of replicas: look, compare, write on
the condition that nothing has changed since; on a conflict (409) look again. The number is absolute, so that writing it
twice changes nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from planner_adapters.environment import NotScaled, Unobserved
from planner_adapters.kubernetes.api import RequestFailedError
from planner_adapters.kubernetes.cluster import Cluster
from planner_adapters.kubernetes.graph import (
    GRAPH_LABEL,
    Component,
    component_service,
    components_of,
    replicas_patch,
)
from planner_adapters.kubernetes.kinds import ADAPTER, GRAPH, POD, Kind, Object
from planner_adapters.kubernetes.mirror import Mirror, RefusedError
from planner_adapters.kubernetes.references import Workload
from planner_adapters.kubernetes.services import Service, service_of

MOST_CONFLICTS = 8
"""Writes lost to others in a row before it is said that somebody else keeps writing."""

BeforeShrinking = Callable[[], Awaitable[None]]


class Target(Protocol):
    """The replicas of one role."""

    async def start(self) -> None:
        """Returns when service and pods are known; :class:`Unobserved` if they can't be."""
        ...

    def service(self) -> Service:
        """The service as it stands now; :class:`Unobserved` if that isn't known."""
        ...

    def pods(self) -> list[Object]:
        """Its pods; :class:`Unobserved` likewise."""
        ...

    async def set_replicas(self, replicas: int, before_shrinking: BeforeShrinking) -> None:
        """Sets the count; :class:`NotScaled` if it could not be set."""
        ...


class WorkloadTarget:
    """A Deployment, StatefulSet or LeaderWorkerSet."""

    def __init__(self, cluster: Cluster, namespace: str, workload: Workload) -> None:
        self._cluster, self._namespace, self._workload = cluster, namespace, workload
        self._found = cluster.mirror(workload.kind, namespace, fields={"metadata.name": workload.name})
        self._pods: Mirror | None = None

    async def start(self) -> None:
        """See :class:`Target`."""
        await self._found.synced()
        await self._pod_mirror().synced()

    def service(self) -> Service:
        """See :class:`Target`."""
        found = self._found.objects().get(self._workload.name)
        if found is None:
            raise RefusedError(
                f"Kubernetes: there is no {self._workload} in namespace {self._namespace!r}: "
                "create it, or correct the name"
            )
        return service_of(self._workload.kind, found)

    def pods(self) -> list[Object]:
        """See :class:`Target`."""
        selector = self.service().selector
        assert selector is not None
        return self._pod_mirror().selected(selector)

    async def set_replicas(self, replicas: int, before_shrinking: BeforeShrinking) -> None:
        """See :class:`Target`."""
        kind, name = self._workload.kind, self._workload.name
        await _until_written(
            lambda: _write_scale(
                self._cluster, kind.Scale, name, self._namespace, replicas, before_shrinking
            ),
            str(self._workload),
        )

    def _pod_mirror(self) -> Mirror:
        if self._pods is None:
            selector = self.service().selector
            assert selector is not None
            self._pods = self._cluster.mirror(POD, self._namespace, labels=dict(selector.labels))
        return self._pods


class ComponentTarget:
    """A service of a DynamoGraphDeployment, scaled through its scaling adapter where there is one."""

    def __init__(self, cluster: Cluster, namespace: str, graph: str, version: str, component: str) -> None:
        self._cluster, self._namespace = cluster, namespace
        self._graph, self._kind, self._component = graph, GRAPH[version], component
        self._found = cluster.mirror(self._kind, namespace, fields={"metadata.name": graph})
        self._pods = cluster.mirror(POD, namespace, labels={GRAPH_LABEL: graph})

    async def start(self) -> None:
        """See :class:`Target`."""
        await self._found.synced()
        await self._pods.synced()

    def service(self) -> Service:
        """See :class:`Target`."""
        found = self._found.objects().get(self._graph)
        if found is None:
            raise RefusedError(
                f"Kubernetes: there is no DynamoGraphDeployment {self._graph!r} in namespace {self._namespace!r}"
            )
        return component_service(found, self._component_in(found))

    def pods(self) -> list[Object]:
        """See :class:`Target`."""
        selector = self.service().selector
        assert selector is not None
        return self._pods.selected(selector)

    async def set_replicas(self, replicas: int, before_shrinking: BeforeShrinking) -> None:
        """See :class:`Target`."""
        await _until_written(
            lambda: self._write(replicas, before_shrinking),
            f"service {self._component!r} of DynamoGraphDeployment {self._graph!r}",
        )

    async def _write(self, replicas: int, before_shrinking: BeforeShrinking) -> None:
        adapter = f"{self._graph}-{self._component.lower()}"
        for kind in ADAPTER.values():
            try:
                await _write_scale(
                    self._cluster, kind.Scale, adapter, self._namespace, replicas, before_shrinking
                )
                return
            except RequestFailedError as failure:
                if failure.code != 404:
                    raise
        found = await self._cluster.api.get(self._kind, self._graph, self._namespace)
        component = self._component_in(found)
        present = component.spec.get("replicas", 1)
        if replicas < present:
            await before_shrinking()
        if replicas != present:
            patch = replicas_patch(found, component, replicas)
            await self._cluster.api.patch(self._kind, self._graph, self._namespace, patch)

    def _component_in(self, graph: Object) -> Component:
        found = {component.name: component for component in components_of(graph)}.get(self._component)
        if found is None:
            raise RefusedError(
                f"Kubernetes: DynamoGraphDeployment {self._graph!r} has no service {self._component!r} any more"
            )
        return found


async def _write_scale(
    cluster: Cluster,
    kind: Kind,
    name: str,
    namespace: str,
    replicas: int,
    before_shrinking: BeforeShrinking,
) -> None:
    scale: dict[str, Any] = await cluster.api.get(kind, name, namespace)
    present = (scale.get("spec") or {}).get("replicas", 0)
    if replicas < present:
        await before_shrinking()
    if replicas != present:
        version = scale["metadata"]["resourceVersion"]
        patch = {"metadata": {"resourceVersion": version}, "spec": {"replicas": replicas}}
        await cluster.api.patch(kind, name, namespace, patch)


async def _until_written(write: Callable[[], Awaitable[None]], what: str) -> None:
    for _ in range(MOST_CONFLICTS):
        try:
            return await write()
        except Unobserved as error:
            raise NotScaled(str(error)) from None
        except RequestFailedError as failure:
            if failure.code != 409:
                raise NotScaled(f"Kubernetes: {what} not scaled: {failure}") from None
    raise NotScaled(
        f"Kubernetes: {what} not scaled: {MOST_CONFLICTS} conflicts (409) in a row; does another autoscaler write it?"
    )
