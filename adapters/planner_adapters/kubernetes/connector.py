"""Kubernetes as a connector: worker counts from live copies of what the cluster runs, orders as replica counts.

Nothing is remembered between two looks: counts that people edit by hand are simply what there is. Only the services of
the planner's roles are looked at, never the planner itself nor the readiness of the whole graph that it is part of.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Mapping

from planner_adapters.environment import NotScaled, Order, Unobserved
from planner_adapters.kubernetes.api import RequestFailedError
from planner_adapters.kubernetes.checks import components_by_role, misfits
from planner_adapters.kubernetes.cluster import Cluster
from planner_adapters.kubernetes.counts import count
from planner_adapters.kubernetes.drain import cost_changes, pods_of_workers
from planner_adapters.kubernetes.graph import components_of
from planner_adapters.kubernetes.kinds import GRAPH, POD, Object
from planner_adapters.kubernetes.mirror import RefusedError
from planner_adapters.kubernetes.references import Workload, is_name, read_workloads
from planner_adapters.kubernetes.services import Service
from planner_adapters.kubernetes.targets import ComponentTarget, Target, WorkloadTarget
from planner_core import ConfigError, PlannerConfig, Role, WorkerCounts

GRAPH_VARIABLE = "DYN_PARENT_DGD_K8S_NAME"
WORKLOADS_VARIABLE = "PLANNER_WORKLOADS"
PATCHES_AT_ONCE = 16

_log = logging.getLogger(__name__)


class KubernetesConnector:
    """The workloads of a planner's roles. Made by :func:`connect`."""

    def __init__(
        self,
        cluster: Cluster,
        namespace: str,
        targets: Mapping[Role, Target],
        *,
        owns_cluster: bool,
        clock: Callable[[], float],
    ) -> None:
        self.cluster = cluster
        self._namespace = namespace
        self._targets = dict(targets)
        self._owns_cluster, self._clock = owns_cluster, clock
        self._unknown: dict[Role, str] = {}

    async def workers(self) -> dict[Role, WorkerCounts]:
        """The counts of each role that is known; a role that isn't is left out, and its reason is logged once.

        :class:`~planner_adapters.environment.Unobserved` if no role is known.
        """
        now_s, counts, unknown = self._clock(), {}, {}
        for role, target in self._targets.items():
            try:
                counts[role] = count(target.service(), target.pods(), now_s)
            except Unobserved as error:
                unknown[role] = str(error)
        for role in unknown.keys() - self._unknown.keys():
            _log.warning("%s: %s", role, unknown[role])
        self._unknown = unknown
        if not counts:
            raise Unobserved("; ".join(dict.fromkeys(unknown.values())))
        return counts

    async def services(self) -> dict[Role, Service]:
        """What stands behind the counts: revisions, GPUs, model.

        :class:`~planner_adapters.environment.Unobserved` if it isn't known.
        """
        return {role: target.service() for role, target in self._targets.items()}

    async def scale(self, order: Order) -> None:
        """Sets the replicas of each role that the order names; where it shrinks, the drain list is marked first.

        :class:`~planner_adapters.environment.NotScaled` names every role that could not be set; the others are.
        """
        foreign = [role for role in order.replicas if role not in self._targets]
        known = {role: replicas for role, replicas in order.replicas.items() if role not in foreign}
        outcomes = await asyncio.gather(
            *(self._set(role, replicas, order.drain.get(role, ())) for role, replicas in known.items()),
            return_exceptions=True,
        )
        problems = [f"Kubernetes: no workload has the role {role}" for role in foreign]
        for outcome in outcomes:
            if isinstance(outcome, NotScaled):
                problems.append(str(outcome))
            elif isinstance(outcome, BaseException):
                raise outcome
        if problems:
            raise NotScaled("; ".join(problems))

    async def close(self) -> None:
        """Ends the watches and closes the connections, unless the cluster was given and is others' too."""
        if self._owns_cluster:
            await self.cluster.close()

    async def _set(self, role: Role, replicas: int, drain: tuple[str, ...]) -> None:
        target = self._targets[role]
        await target.set_replicas(replicas, lambda: self._mark(role, target, drain))

    async def _mark(self, role: Role, target: Target, drain: tuple[str, ...]) -> None:
        """Puts the drain list first among the pods to go. What can't be marked is logged and delays nothing."""
        try:
            pods = target.pods()
            if not target.service().honours_deletion_cost:
                return
        except Unobserved as error:
            _log.warning("%s shrinks unmarked: %s", role, error)
            return
        going, unknown = pods_of_workers(drain, pods)
        if unknown:
            _log.warning(
                "%s: no pod belongs to the workers %s; a pod says its ids in the annotation planner-core/worker-id",
                role,
                ", ".join(map(repr, unknown[:5])) + (" …" if len(unknown) > 5 else ""),
            )
        places = asyncio.Semaphore(PATCHES_AT_ONCE)

        async def patch(name: str, change: Mapping[str, object]) -> str | None:
            async with places:
                try:
                    await self.cluster.api.patch(POD, name, self._namespace, change)
                except RequestFailedError as failure:
                    return None if failure.code == 404 else str(failure)
            return None

        failures = await asyncio.gather(*(patch(*each) for each in cost_changes(going, pods).items()))
        for failure in dict.fromkeys(filter(None, failures)):
            _log.warning("%s shrinks with pods unmarked: %s", role, failure)


async def connect(
    config: PlannerConfig,
    *,
    dgd: str | None = None,
    workloads: str | None = None,
    namespace: str | None = None,
    cluster: Cluster | None = None,
    environ: Mapping[str, str] | None = None,
    clock: Callable[[], float] = time.time,
) -> KubernetesConnector:
    """Finds the workload of each role and checks that all of them fit the configuration.

    ``dgd`` names a DynamoGraphDeployment (else ``$DYN_PARENT_DGD_K8S_NAME``); ``workloads`` names other workloads per
    role (else ``$PLANNER_WORKLOADS``), as ``prefill=deployment/llama-prefill,decode=lws/llama-decode``, and wins
    where both speak of a role. ``namespace`` is that of Kubernetes; unless given, the kubeconfig's or the
    pod's own. ``clock`` is the time since 1970, for the ages of pods.

    :class:`~planner_core.ConfigError` has everything that is wrong, a line each: services that are missing or not one
    per role, GPU counts, model names, rights. :class:`~planner_adapters.environment.Unobserved`: no answer.
    """
    owns_cluster = cluster is None
    found = _wanted(config, dgd, workloads, os.environ if environ is None else environ)
    cluster = Cluster() if cluster is None else cluster
    try:
        namespace = namespace or cluster.api.namespace
        targets, problems = await _targets(cluster, namespace, config, *found)
        started = await asyncio.gather(
            *(target.start() for target in targets.values()), return_exceptions=True
        )
        services: dict[Role, Service] = {}
        for (role, target), outcome in zip(targets.items(), started, strict=True):
            try:
                if outcome is not None:
                    raise outcome
                services[role] = target.service()
            except RefusedError as error:
                problems.append(str(error))
        problems += misfits(config, services)
        if problems:
            raise ConfigError(dict.fromkeys(problems))
        return KubernetesConnector(cluster, namespace, targets, owns_cluster=owns_cluster, clock=clock)
    except BaseException:
        if owns_cluster:
            await cluster.close()
        raise


def _wanted(
    config: PlannerConfig,
    dgd: str | None,
    workloads: str | None,
    environ: Mapping[str, str],
) -> tuple[dict[Role, Workload], str | None]:
    """Workloads that are named, and the graph that the other roles are looked up in."""
    named = read_workloads(environ.get(WORKLOADS_VARIABLE, "") if workloads is None else workloads)
    graph = dgd or environ.get(GRAPH_VARIABLE) or None
    foreign = [role for role in named if role not in config.engines]
    rest = [role for role in config.engines if role not in named]
    problems = [f"workloads: there is no role {role} in mode {config.mode}" for role in foreign]
    if rest and graph is None:
        problems.append(
            f"nothing to scale for {' and '.join(rest)}: set {GRAPH_VARIABLE} to the name of a DynamoGraphDeployment, "
            f"or {WORKLOADS_VARIABLE} to {','.join(f'{role}=deployment/NAME' for role in rest)}"
        )
    if rest and graph is not None and not is_name(graph):
        problems.append(f"{GRAPH_VARIABLE} is {graph!r}: that is no name of an object")
    if problems:
        raise ConfigError(problems)
    return named, graph if rest else None


async def _targets(
    cluster: Cluster,
    namespace: str,
    config: PlannerConfig,
    named: Mapping[Role, Workload],
    graph: str | None,
) -> tuple[dict[Role, Target], list[str]]:
    """Where each role is scaled, and what stands in the way."""
    targets: dict[Role, Target] = {
        role: WorkloadTarget(cluster, namespace, workload) for role, workload in named.items()
    }
    if graph is None:
        return targets, []
    try:
        version, found = await _graph(cluster, namespace, graph)
    except RequestFailedError as failure:
        if failure.code is None or failure.code >= 500:
            raise Unobserved(f"Kubernetes: {failure}") from None
        return targets, [str(failure)]
    components, problems = components_by_role(
        graph, components_of(found), [role for role in config.engines if role not in named]
    )
    for role, component in components.items():
        targets[role] = ComponentTarget(cluster, namespace, graph, version, component.name)
    return targets, problems


async def _graph(cluster: Cluster, namespace: str, name: str) -> tuple[str, Object]:
    """The graph, in the newest version that the cluster serves."""
    for version, kind in GRAPH.items():
        try:
            return version, await cluster.api.get(kind, name, namespace)
        except RequestFailedError as failure:
            if failure.code != 404:
                raise
    raise RequestFailedError(
        f"there is no DynamoGraphDeployment {name!r} in namespace {namespace!r}: correct {GRAPH_VARIABLE} "
        "or the namespace",
        404,
    )
