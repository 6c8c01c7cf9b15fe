"""The kinds that are read and scaled, as resources whose objects are plain mappings.

Plain, since a DynamoGraphDeployment has no types here anyway, and since 2 000 pods are decoded in one go.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from lightkube.core.resource import ApiInfo, NamespacedSubResource, ResourceDef
from lightkube.generic_resource import Generic, GenericNamespacedResource, create_api_info

Kind: TypeAlias = Any
"""A class of lightkube's; its own types are generic over classes made at run time."""
Object: TypeAlias = "dict[str, Any]"
"""An object as the API server sends it."""


def _kind(group: str, version: str, name: str, plural: str) -> Kind:
    """A kind, with its scale subresource. It stays out of lightkube's registry, whose pods are typed."""
    return type(
        name,
        (GenericNamespacedResource,),
        {
            "_api_info": create_api_info(group, version, name, plural),
            "Scale": type(
                f"{name}Scale",
                (NamespacedSubResource, Generic),
                {
                    "_api_info": ApiInfo(
                        resource=ResourceDef("autoscaling", "v1", "Scale"),
                        parent=ResourceDef(group, version, name),
                        plural=plural,
                        verbs=["get", "patch"],
                        action="scale",
                    )
                },
            ),
        },
    )


POD = _kind("", "v1", "Pod", "pods")
DEPLOYMENT = _kind("apps", "v1", "Deployment", "deployments")
STATEFUL_SET = _kind("apps", "v1", "StatefulSet", "statefulsets")
LEADER_WORKER_SET = _kind("leaderworkerset.x-k8s.io", "v1", "LeaderWorkerSet", "leaderworkersets")

DYNAMO_VERSIONS = ("v1beta1", "v1alpha1")
"""Newest first: the first one that the cluster serves is used."""
GRAPH = {
    version: _kind("nvidia.com", version, "DynamoGraphDeployment", "dynamographdeployments")
    for version in DYNAMO_VERSIONS
}
ADAPTER = {
    version: _kind(
        "nvidia.com", version, "DynamoGraphDeploymentScalingAdapter", "dynamographdeploymentscalingadapters"
    )
    for version in DYNAMO_VERSIONS
}


def resource_name(kind: Kind) -> str:
    """As RBAC names it, such as ``deployments/scale in apps``."""
    info = kind._api_info
    group = (info.parent or info.resource).group
    name = f"{info.plural}/{info.action}" if info.action else info.plural
    return f'"{name}" of API group "{group}"'
