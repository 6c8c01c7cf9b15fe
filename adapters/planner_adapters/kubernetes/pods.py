"""Pods as replicas: which ones are ready, starting since when, or draining. A multinode replica is several pods."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

import attrs

from planner_adapters.kubernetes.kinds import Object

_GROUPS = (
    ("leaderworkerset.sigs.k8s.io/name", "leaderworkerset.sigs.k8s.io/group-index"),
    ("grove.io/podcliquescalinggroup", "grove.io/podcliquescalinggroup-replica-index"),
)
"""Labels that pods of one multinode replica share: LeaderWorkerSet's and Grove's."""


@attrs.frozen(kw_only=True)
class Replica:
    """One replica as its pods show it."""

    pods: tuple[Object, ...]
    ready: bool
    """All of its pods are there and ready."""
    draining: bool
    """On its way out: it finishes what it has, and takes nothing new."""
    since_s: float
    """When its first pod was created, in seconds since 1970."""


def replicas_of(pods: Iterable[Object], pods_per_replica: int) -> list[Replica]:
    """The replicas that these pods make up, oldest first. Pods that have ended are none."""
    alive = [pod for pod in pods if _phase(pod) not in ("Succeeded", "Failed")]
    groups: dict[tuple[str, ...], list[Object]] = {}
    for pod in alive:
        groups.setdefault(_group(pod) if pods_per_replica > 1 else (pod["metadata"]["name"],), []).append(pod)
    replicas = [_replica(group, pods_per_replica) for group in groups.values()]
    return sorted(replicas, key=lambda replica: replica.since_s)


def _replica(pods: list[Object], pods_per_replica: int) -> Replica:
    return Replica(
        pods=tuple(pods),
        ready=len(pods) >= pods_per_replica and all(map(_is_ready, pods)),
        draining=any("deletionTimestamp" in pod["metadata"] for pod in pods),
        since_s=min(_created_s(pod) for pod in pods),
    )


def _group(pod: Object) -> tuple[str, ...]:
    labels = pod["metadata"].get("labels") or {}
    for name, index in _GROUPS:
        if index in labels:
            return (name, labels.get(name, ""), labels[index])
    return (pod["metadata"]["name"],)  # a replica that is never complete; its status counts


def _phase(pod: Object) -> str:
    return str((pod.get("status") or {}).get("phase", "Pending"))


def _is_ready(pod: Object) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(each.get("type") == "Ready" and each.get("status") == "True" for each in conditions)


def _created_s(pod: Object) -> float:
    return datetime.fromisoformat(pod["metadata"]["creationTimestamp"]).timestamp()
