"""Kubernetes as the place where replicas live: DynamoGraphDeployments, Deployments, StatefulSets, LeaderWorkerSets."""

from __future__ import annotations

from planner_core import MissingExtraError

try:
    import lightkube as _lightkube  # noqa: F401
except ImportError:
    raise MissingExtraError(
        "planner_adapters.kubernetes needs lightkube: pip install 'planner-core[kubernetes]'"
    ) from None

from planner_adapters.kubernetes.cluster import Cluster
from planner_adapters.kubernetes.connector import KubernetesConnector, connect
from planner_adapters.kubernetes.services import Service

__all__ = ["Cluster", "KubernetesConnector", "Service", "connect"]
