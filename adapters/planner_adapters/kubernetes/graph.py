"""The services of a DynamoGraphDeployment, in the shape of v1alpha1 and in that of v1beta1.

v1alpha1 has ``spec.services.<name>`` with ``componentType``, ``subComponentType`` and resources of its own; v1beta1 has
a list ``spec.components`` with ``name``, ``type`` and a ``podTemplate``, and ``status.components``. They are told apart
by what is there, since a cluster may serve either under both versions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from planner_adapters.kubernetes.kinds import Object
from planner_adapters.kubernetes.selectors import Selector
from planner_adapters.kubernetes.services import Service, is_current
from planner_adapters.kubernetes.templates import gpus_of, gpus_of_pod, model_of, model_of_pod
from planner_core import Role

GRAPH_LABEL = "nvidia.com/dynamo-graph-deployment-name"
COMPONENT_LABEL = "nvidia.com/dynamo-component"


@attrs.frozen(kw_only=True)
class Component:
    """One service of a graph, as it is specified."""

    name: str
    role: Role | None
    """``None``: it is no engine (a frontend, a planner), and none of our business."""
    spec: Mapping[str, Any]
    index: int | None
    """Its place in the list of v1beta1."""


def components_of(graph: Object) -> list[Component]:
    """All services, those that are no engines too."""
    spec = graph["spec"]
    if isinstance(spec.get("components"), list):
        return [
            Component(name=each["name"], role=_role(each), spec=each, index=index)
            for index, each in enumerate(spec["components"])
        ]
    return [
        Component(name=name, role=_role(each), spec=each, index=None)
        for name, each in (spec.get("services") or {}).items()
    ]


def component_service(graph: Object, component: Component) -> Service:
    """One service as it stands."""
    spec, name = component.spec, graph["metadata"]["name"]
    status = graph.get("status") or {}
    counts = (status.get("services") or status.get("components") or {}).get(component.name) or {}
    reported = 0 if counts else None  # a count of zero is left out
    num_nodes = (spec.get("multinode") or {}).get("nodeCount") or 1
    template = spec.get("podTemplate") or {}
    extra = (spec.get("extraPodSpec") or {}).get("mainContainer") or {}
    gpus = gpus_of(spec.get("resources"))
    if gpus is None:
        gpus = gpus_of(extra.get("resources"))
    if gpus is None:
        gpus = gpus_of_pod(template)
    return Service(
        name=f"service {component.name!r} of DynamoGraphDeployment {name!r}",
        desired=spec.get("replicas", 1),
        available=counts.get("availableReplicas", counts.get("readyReplicas", reported)),
        updated=counts.get("updatedReplicas", reported) if is_current(graph) else None,
        num_gpus=None if gpus is None else gpus * num_nodes,
        pods_per_replica=num_nodes,
        model=(spec.get("modelRef") or {}).get("name")
        or model_of(extra)
        or model_of_pod(template)
        or model_of(spec),
        selector=Selector(((GRAPH_LABEL, name), (COMPONENT_LABEL, component.name))),
        honours_deletion_cost=counts.get("componentKind", "Deployment") == "Deployment",
    )


def replicas_patch(
    graph: Object, component: Component, replicas: int
) -> dict[str, Any] | list[dict[str, Any]]:
    """What sets the replicas of one service, and conflicts if the graph has changed since it was seen."""
    version = graph["metadata"]["resourceVersion"]
    if component.index is None:
        return {
            "metadata": {"resourceVersion": version},
            "spec": {"services": {component.name: {"replicas": replicas}}},
        }
    # A merge patch would replace the whole list.
    return [
        {"op": "replace", "path": "/metadata/resourceVersion", "value": version},
        {"op": "add", "path": f"/spec/components/{component.index}/replicas", "value": replicas},
    ]


def _role(spec: Mapping[str, Any]) -> Role | None:
    """The role of a service; a worker without a sub-type does both."""
    kind = str(spec.get("type", spec.get("componentType")) or "").lower()
    sub = str(spec.get("subComponentType") or "").lower()
    if kind == "worker":
        return {"": Role.AGG, "agg": Role.AGG, "prefill": Role.PREFILL, "decode": Role.DECODE}.get(sub)
    return {"prefill": Role.PREFILL, "decode": Role.DECODE}.get(kind)
