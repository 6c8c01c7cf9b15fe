"""A double of the controllers that a bare API server lacks: of Deployments and their like, and Dynamo's operator.

It turns specs into pods and status, with delays, rollouts one pod at a time, and pods that never come up. Time is
passed to it; between two calls nothing happens.
"""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from typing import Any

from lightkube import Client
from lightkube.core.exceptions import ApiError
from lightkube.core.resource import ApiInfo, NamespacedSubResource
from lightkube.generic_resource import Generic
from lightkube.types import CascadeType, PatchType

from planner_adapters.kubernetes.graph import COMPONENT_LABEL, GRAPH_LABEL, components_of
from planner_adapters.kubernetes.kinds import ADAPTER, DEPLOYMENT, GRAPH, LEADER_WORKER_SET, POD, STATEFUL_SET

COST = "controller.kubernetes.io/pod-deletion-cost"


class Controllers:
    def __init__(self, client: Client, namespace: str) -> None:
        self.client, self.namespace = client, namespace
        self.startup_s, self.drain_s = 60.0, 30.0
        self.stuck: set[str] = set()
        """Workloads whose new pods never become ready."""
        self.now_s = 0.0
        self._born_s: dict[str, float] = {}
        self._gone_s: dict[str, float] = {}
        self._number = 0

    def advance(self, seconds: float = 0.0) -> None:
        """What happens within these seconds; then again until nothing is left to do."""
        self.now_s += seconds
        for _ in range(50):
            if not any([*map(self._graph, self._all(GRAPH["v1alpha1"])), *self._plain()]):
                return
        raise AssertionError("the controllers never come to rest")

    def settle(self) -> None:
        """Advances until what is asked for serves and what isn't is gone."""
        for _ in range(3):
            self.advance(max(self.startup_s, self.drain_s))

    # One round; true if something changed

    def _plain(self) -> list[bool]:
        changed = []
        for kind in (DEPLOYMENT, STATEFUL_SET):
            for found in self._all(kind):
                spec, name = found["spec"], found["metadata"]["name"]
                revision = str(spec["template"]["metadata"].get("annotations", {}).get("revision", "1"))
                labels = spec["template"]["metadata"]["labels"]
                changed += [self._replicas(name, labels, spec.get("replicas", 1), revision, 1, {})]
                self._status(kind, found, self._counts(labels, revision))
        for found in self._all(LEADER_WORKER_SET):
            spec, name = found["spec"], found["metadata"]["name"]
            size = spec["leaderWorkerTemplate"]["size"]
            labels = {"leaderworkerset.sigs.k8s.io/name": name}
            changed += [
                self._replicas(
                    name,
                    labels,
                    spec["replicas"],
                    "1",
                    size,
                    {"leaderworkerset.sigs.k8s.io/group-index": "{}"},
                )
            ]
            counts = self._counts(labels, "1", size)
            counts.pop("availableReplicas", None)
            self._status(LEADER_WORKER_SET, found, {**counts, "conditions": []})
        return changed

    def _graph(self, graph: Any) -> bool:
        name, changed, counts = graph["metadata"]["name"], False, {}
        components = components_of(graph)
        for adapter in self._all(ADAPTER["v1alpha1"]):
            reference, replicas = adapter["spec"]["dgdRef"], adapter["spec"]["replicas"]
            for component in components:
                here = reference == {"name": name, "serviceName": component.name}
                if here and component.spec.get("replicas") != replicas:
                    self._set_replicas(graph, component, replicas)
                    return True
        for component in components:
            labels = {GRAPH_LABEL: name, COMPONENT_LABEL: component.name}
            size = (component.spec.get("multinode") or {}).get("nodeCount", 1)
            revision = str(component.spec.get("annotations", {}).get("revision", "1"))
            group = {
                "grove.io/podcliquescalinggroup": f"{name}-{component.name.lower()}",
                "grove.io/podcliquescalinggroup-replica-index": "{}",
            }
            prefix = f"{name}-{component.name.lower()}"
            replicas = component.spec.get("replicas", 1)
            changed |= self._replicas(prefix, labels, replicas, revision, size, group if size > 1 else {})
            kind = "PodCliqueScalingGroup" if size > 1 else "Deployment"
            counts[component.name] = {"componentKind": kind, **self._counts(labels, revision, size)}
        field = "components" if "components" in graph["spec"] else "services"
        ready = all(
            counts[each.name].get("availableReplicas", 0) >= each.spec.get("replicas", 1)
            for each in components
        )
        state = "successful" if ready else "pending"
        self._status(GRAPH["v1alpha1"], graph, {field: counts, "state": state}, keep=())
        return changed

    def _replicas(
        self,
        prefix: str,
        labels: dict[str, str],
        desired: int,
        revision: str,
        size: int,
        group: dict[str, str],
    ) -> bool:
        pods = self._pods(labels)
        for pod in pods:
            name = pod["metadata"]["name"]
            if "deletionTimestamp" in pod["metadata"]:
                if self.now_s - self._gone_s.setdefault(name, self.now_s) >= self.drain_s:
                    self.client.delete(POD, name, namespace=self.namespace, grace_period=0)
                    return True
            elif not _ready(pod) and self._is_due(pod):
                self._make_ready(name)
                return True
        alive = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
        new = [pod for pod in alive if pod["metadata"]["labels"]["revision"] == revision]
        old = len(alive) - len(new)
        surge = size if old and len(new) < desired * size else 0
        if len(alive) < desired * size + surge and len(new) < desired * size:
            for rank in range(size):
                self._create(prefix, labels, revision, group, rank)
            return True
        ready = [pod for pod in alive if _ready(pod)]
        surplus = len(alive) > desired * size and (
            not old or len(ready) > desired * size or len(new) == desired * size
        )
        if surplus and (not surge or len(ready) > desired * size):
            going = sorted(alive, key=lambda pod: _going_first(pod, revision))[0]
            for pod in alive:
                same = size > 1 and pod["metadata"]["labels"]["group"] == going["metadata"]["labels"]["group"]
                if same or pod is going:
                    self.client.delete(POD, pod["metadata"]["name"], namespace=self.namespace)
            return True
        return False

    def _is_due(self, pod: Any) -> bool:
        stuck = "stuck" in (pod["metadata"].get("annotations") or {})
        return not stuck and self.now_s - self._born_s[pod["metadata"]["name"]] >= self.startup_s

    # What it reads and writes

    def _all(self, kind: Any) -> list[Any]:
        return list(self.client.list(kind, namespace=self.namespace))

    def _pods(self, labels: dict[str, str]) -> list[Any]:
        return list(self.client.list(POD, namespace=self.namespace, labels=labels))

    def _counts(self, labels: dict[str, str], revision: str, size: int = 1) -> dict[str, int]:
        alive = [pod for pod in self._pods(labels) if "deletionTimestamp" not in pod["metadata"]]
        ready = sum(map(_ready, alive)) // size
        updated = sum(pod["metadata"]["labels"]["revision"] == revision for pod in alive) // size
        counts = {
            "replicas": len(alive) // size,
            "readyReplicas": ready,
            "availableReplicas": ready,
            "updatedReplicas": updated,
        }
        return {name: number for name, number in counts.items() if number or name == "replicas"}

    def _status(self, kind: Any, found: Any, counts: dict[str, Any], keep: tuple[str, ...] = ()) -> None:
        old = found.get("status") or {}
        status = {**counts, "observedGeneration": found["metadata"]["generation"]}
        gone = {name: None for name in old if name not in status}
        if kind is GRAPH["v1alpha1"]:
            for field in ("services", "components"):
                for name, before in (old.get(field) or {}).items():
                    now = status.get(field, {}).get(name)
                    if now is not None:
                        now.update({key: None for key in before if key not in now})
        with suppress(ApiError):  # deleted or changed meanwhile: the next round sees it
            self.client.patch(
                _status_of(kind),
                found["metadata"]["name"],
                {"status": {**status, **gone}},
                namespace=self.namespace,
                patch_type=PatchType.MERGE,
            )

    def _set_replicas(self, graph: Any, component: Any, replicas: int) -> None:
        if component.index is None:
            patch: Any = {"spec": {"services": {component.name: {"replicas": replicas}}}}
            how = PatchType.MERGE
        else:
            patch = [{"op": "add", "path": f"/spec/components/{component.index}/replicas", "value": replicas}]
            how = PatchType.JSON
        self.client.patch(
            GRAPH["v1alpha1"], graph["metadata"]["name"], patch, namespace=self.namespace, patch_type=how
        )

    def _create(
        self, prefix: str, labels: dict[str, str], revision: str, group: dict[str, str], rank: int
    ) -> None:
        if rank == 0:
            self._number += 1
        name = f"{prefix}-{self._number}" + (f"-{rank}" if group else "")
        grouped = {key: value.format(self._number) for key, value in group.items()}
        stuck = {"stuck": "yes"} if prefix in self.stuck else {}
        pod = POD(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {
                    "name": name,
                    "labels": {**labels, **grouped, "revision": revision, "group": str(self._number)},
                    "annotations": {**stuck},
                },
                # Bound to a node, so that a deletion waits for the node as it does in life.
                "spec": {"nodeName": "node-1", "containers": [{"name": "main", "image": "engine"}]},
            }
        )
        self.client.create(pod, namespace=self.namespace)
        self._born_s[name] = self.now_s

    def _make_ready(self, name: str) -> None:
        number = int("".join(filter(str.isdigit, name.rsplit("-", 1)[-1])) or 0)
        address = f"10.0.{number // 250}.{number % 250 + 1}"
        status = {
            "phase": "Running",
            "podIP": address,
            "podIPs": [{"ip": address}],
            "conditions": [{"type": "Ready", "status": "True"}],
        }
        self.client.patch(
            _status_of(POD), name, {"status": status}, namespace=self.namespace, patch_type=PatchType.MERGE
        )

    def delete_pod(self, name: str) -> None:
        self.client.delete(
            POD, name, namespace=self.namespace, grace_period=0, cascade=CascadeType.BACKGROUND
        )


@cache
def _status_of(kind: Any) -> Any:
    """The status subresource of a kind."""
    info = kind._api_info
    below = ApiInfo(info.resource, info.plural, ["patch"], parent=info.resource, action="status")
    return type(f"{kind.__name__}Status", (NamespacedSubResource, Generic), {"_api_info": below})


def _ready(pod: Any) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def _going_first(pod: Any, revision: str) -> Any:
    """The order in which a ReplicaSet removes pods, after those of an old revision."""
    metadata = pod["metadata"]
    cost = int((metadata.get("annotations") or {}).get(COST, 0))
    return (metadata["labels"]["revision"] == revision, _ready(pod), cost, -int(metadata["labels"]["group"]))
