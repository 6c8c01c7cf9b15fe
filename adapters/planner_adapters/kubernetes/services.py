"""A scaled workload as it stands in the cluster, whatever its kind, and how each kind says it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from planner_adapters.kubernetes.kinds import DEPLOYMENT, LEADER_WORKER_SET, Kind, Object
from planner_adapters.kubernetes.selectors import Selector
from planner_adapters.kubernetes.templates import gpus_of_pod, model_of_pod

LWS_NAME = "leaderworkerset.sigs.k8s.io/name"


@attrs.frozen(kw_only=True)
class Service:
    """The replicas of one role. ``None``: the cluster doesn't say."""

    name: str
    """For people, such as ``Deployment 'llama-decode'``."""
    desired: int | None
    """Replicas that the cluster is asked to run."""
    available: int | None
    """Replicas that serve, as its status has them: surge pods of a rollout included, and terminating ones maybe."""
    updated: int | None
    """Replicas of the latest revision."""
    num_gpus: int | None
    """GPUs of a replica, over all its nodes."""
    pods_per_replica: int
    """1, or the nodes of a multinode replica."""
    model: str | None
    selector: Selector | None
    """Its pods."""
    honours_deletion_cost: bool
    """Whether the drain list can choose the replicas that go; the others remove their highest index."""

    @property
    def stable(self) -> bool:
        """Nothing is under way: as many as desired are available, all of the latest revision."""
        return self.desired is not None and self.desired == self.updated == self.available


def service_of(kind: Kind, found: Object) -> Service:
    """A Deployment, StatefulSet or LeaderWorkerSet."""
    return _leader_worker_set(found) if kind is LEADER_WORKER_SET else _replicas_of_pods(kind, found)


def is_current(found: Mapping[str, Any]) -> bool:
    """Whether the controller has looked at the latest spec; of an older one ``updatedReplicas`` says nothing."""
    generation = found["metadata"].get("generation")
    return bool((found.get("status") or {}).get("observedGeneration", generation) == generation)


def _replicas_of_pods(kind: Kind, found: Object) -> Service:
    spec, status, name = found["spec"], found.get("status") or {}, found["metadata"]["name"]
    reported = "observedGeneration" in status or "replicas" in status
    # A controller leaves out counts of zero. A StatefulSet has availableReplicas since 1.22; before, it is always 0.
    ready = status.get("readyReplicas", 0)
    available = (
        status.get("availableReplicas", 0) if kind is DEPLOYMENT else status.get("availableReplicas") or ready
    )
    return Service(
        name=f"{kind.__name__} {name!r}",
        desired=spec.get("replicas", 1),
        available=available if reported else None,
        updated=status.get("updatedReplicas", 0) if reported and is_current(found) else None,
        num_gpus=gpus_of_pod(spec["template"]),
        pods_per_replica=1,
        model=model_of_pod(spec["template"]),
        selector=Selector.of(spec["selector"]),
        honours_deletion_cost=kind is DEPLOYMENT,
    )


def _leader_worker_set(found: Object) -> Service:
    spec, status, name = found["spec"], found.get("status") or {}, found["metadata"]["name"]
    group = spec["leaderWorkerTemplate"]
    size, worker = group.get("size", 1), group["workerTemplate"]
    leader = group.get("leaderTemplate") or worker
    gpus = [gpus_of_pod(leader), *[gpus_of_pod(worker)] * (size - 1)]
    known = [count for count in gpus if count is not None]
    reported = "replicas" in status or "conditions" in status
    return Service(
        name=f"LeaderWorkerSet {name!r}",
        desired=spec.get("replicas", 1),
        available=status.get("readyReplicas", 0) if reported else None,
        updated=status.get("updatedReplicas", 0) if reported and is_current(found) else None,
        num_gpus=sum(known) if known else None,
        pods_per_replica=size,
        model=model_of_pod(leader) or model_of_pod(worker),
        selector=Selector(((LWS_NAME, name),)),
        honours_deletion_cost=False,
    )
