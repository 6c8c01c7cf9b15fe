"""Service and pods → WorkerCounts: what serves, what is on its way and since when, what is going."""

from __future__ import annotations

from collections.abc import Iterable

from planner_adapters.environment import Unobserved
from planner_adapters.kubernetes.kinds import Object
from planner_adapters.kubernetes.pods import replicas_of
from planner_adapters.kubernetes.services import Service
from planner_core import WorkerCounts


def count(service: Service, pods: Iterable[Object], now_s: float) -> WorkerCounts:
    """The counts of one role.

    The workload's status says how many serve; pods say what it leaves out. Where both speak the smaller number counts:
    a status lags, and some count pods that are on their way out. Pods that a rolling update runs beyond the desired
    number are no capacity, neither ready nor starting. :class:`Unobserved` if neither status nor pods say anything.
    """
    replicas = replicas_of(pods, service.pods_per_replica)
    alive = [replica for replica in replicas if not replica.draining]
    serving = sum(replica.ready for replica in alive)
    known = any(replica.ready for replica in replicas) or not service.available
    if service.available is None and not replicas and service.desired != 0:
        raise Unobserved(
            f"Kubernetes: {service.name} has neither a status nor pods: is its controller running?"
        )
    ready = serving
    if service.available is not None:
        # Without any matching pod the labels may be others than we know; the status still counts.
        ready = min(service.available, serving) if known else service.available
    if service.desired is not None:
        ready = min(ready, service.desired)
    ages_s = [max(0.0, now_s - replica.since_s) for replica in alive if not replica.ready]
    if service.desired is not None:
        ages_s = ages_s[: service.desired - ready]
    return WorkerCounts(
        ready=ready,
        expected=service.desired,
        starting_ages_s=tuple(ages_s),
        draining=sum(replica.draining for replica in replicas),
    )
