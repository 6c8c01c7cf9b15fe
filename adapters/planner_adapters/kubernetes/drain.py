"""The drain list → pods: which pods go first when a count shrinks.

A ReplicaSet removes pods of the lowest ``controller.kubernetes.io/pod-deletion-cost`` first, once those that aren't
ready are gone. So before a count shrinks the drain list gets negative costs, the first the lowest, and pods that were
on an earlier list lose theirs. Whose cost is ours is written beside it: costs that others have set are left alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from planner_adapters.kubernetes.kinds import Object

DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"
OURS = "planner-core/deletion-cost"
"""The cost that the planner has set; where both annotations agree, the cost is ours."""
WORKER_IDS = "planner-core/worker-id"
"""An annotation or label of a pod: the ids under which its engines report, separated by commas."""

_ADDRESS = re.compile(r"(?:[a-z][a-z0-9+.-]*://)?(\[[0-9a-fA-F:]+\]|[^/:\[\]]+)(?::\d+)?(?:/.*)?")
"""``10.0.0.1``, ``10.0.0.1:8000``, ``http://10.0.0.1:8000/metrics``, ``http://[fd00::1]:8000``."""


def pods_of_workers(workers: Sequence[str], pods: Iterable[Object]) -> tuple[list[Object], list[str]]:
    """The pods of some worker ids, in their order, each once; and the ids that belong to none.

    A worker id is the annotation or label ``planner-core/worker-id`` of its pod, else the pod's name, uid or address,
    the latter also as ``HOST:PORT`` or within a URL, as the scrape of an engine names it.
    """
    by_id: dict[str, Object] = {}
    for pod in pods:
        if "deletionTimestamp" not in pod["metadata"]:
            for name in _ids(pod):
                by_id.setdefault(name, pod)
    found: dict[str, Object] = {}
    unknown: list[str] = []
    for worker in workers:
        address = _ADDRESS.fullmatch(worker)
        pod_of_worker = by_id.get(worker) or by_id.get(address[1].strip("[]") if address else "")
        if pod_of_worker is None:
            unknown.append(worker)
        else:
            found.setdefault(pod_of_worker["metadata"]["name"], pod_of_worker)
    return list(found.values()), unknown


def cost_changes(drain: Sequence[Object], pods: Iterable[Object]) -> dict[str, Mapping[str, Any]]:
    """The merge patch of each pod whose deletion cost has to change, by the pod's name."""
    wanted = {pod["metadata"]["name"]: str(rank - len(drain)) for rank, pod in enumerate(drain)}
    patches: dict[str, Mapping[str, Any]] = {}
    for pod in pods:
        name, annotations = pod["metadata"]["name"], pod["metadata"].get("annotations") or {}
        cost, ours = annotations.get(DELETION_COST), annotations.get(OURS)
        want = wanted.get(name)
        if want is not None and (cost, ours) != (want, want):
            patches[name] = _annotate(want)
        elif want is None and ours is not None:
            patches[name] = _annotate(None) if cost == ours else {"metadata": {"annotations": {OURS: None}}}
    return patches


def _annotate(cost: str | None) -> Mapping[str, Any]:
    return {"metadata": {"annotations": {DELETION_COST: cost, OURS: cost}}}


def _ids(pod: Object) -> list[str]:
    metadata, status = pod["metadata"], pod.get("status") or {}
    named = [(metadata.get(part) or {}).get(WORKER_IDS, "") for part in ("annotations", "labels")]
    addresses = [each.get("ip", "") for each in status.get("podIPs") or ()] + [status.get("podIP", "")]
    ids = [part.strip() for text in named for part in text.split(",")]
    return [name for name in (*ids, metadata["name"], metadata.get("uid", ""), *addresses) if name]
