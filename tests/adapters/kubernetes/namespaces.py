"""A namespace of a real API server: what tests make in it, and how they connect to it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml
from lightkube import Client, KubeConfig
from lightkube.codecs import load_all_yaml
from lightkube.config.kubeconfig import SingleConfig
from lightkube.config.models import Cluster as ClusterEntry
from lightkube.config.models import User
from lightkube.core.exceptions import ApiError
from lightkube.generic_resource import create_global_resource
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.core_v1 import Namespace
from lightkube.types import PatchType

from planner_adapters.kubernetes import Cluster, KubernetesConnector, connect
from planner_adapters.kubernetes.kinds import ADAPTER, DEPLOYMENT, GRAPH, LEADER_WORKER_SET, POD, STATEFUL_SET
from planner_core import PlannerConfig

HERE = Path(__file__).parent


def define_kinds(client: Client) -> None:
    """Those of crds.yaml; returns when they are served."""
    kind = create_global_resource(
        "apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions"
    )
    for definition in yaml.safe_load_all((HERE / "crds.yaml").read_text()):
        client.create(kind(definition))
    for served in (GRAPH["v1alpha1"], GRAPH["v1beta1"], LEADER_WORKER_SET, ADAPTER["v1alpha1"]):
        _until_served(client, served)


def _until_served(client: Client, kind: Any) -> None:
    for _ in range(10_000):
        try:
            list(client.list(kind, namespace="default"))
        except ApiError as error:
            if error.status.code != 404:
                raise
        else:
            return
    raise AssertionError(f"{kind.__name__} is never served")


class Kube:
    """One namespace of the server, and what tests do in it."""

    def __init__(self, config: SingleConfig, namespace: str, controllers: ModuleType) -> None:
        self.config, self.namespace = config, namespace
        self.client = Client(config, namespace=namespace, field_manager="test")
        self.controllers = controllers.Controllers(self.client, namespace)
        self.client.create(Namespace(metadata=ObjectMeta(name=namespace)))
        self.start_s = 0.0

    # Objects

    def apply(self, text: str) -> None:
        """Creates the objects of a YAML text in this namespace."""
        for found in load_all_yaml(text, create_resources_for_crds=True):
            self.client.create(found, namespace=self.namespace)

    def deployment(
        self, name: str, replicas: int, *, gpus: int = 1, model: str = "m", kind: str = "Deployment"
    ) -> None:
        """A Deployment, or a StatefulSet."""
        labels = {"app": name}
        container = {
            "name": "main",
            "image": "engine",
            "args": ["--model", model],
            "resources": {"limits": {"nvidia.com/gpu": str(gpus)}},
        }
        spec: dict[str, Any] = {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        }
        if kind == "StatefulSet":
            spec["serviceName"] = name
        self._create({"Deployment": DEPLOYMENT, "StatefulSet": STATEFUL_SET}[kind], "apps/v1", name, spec)

    def leader_worker_set(self, name: str, replicas: int, *, size: int = 2, gpus: int = 8) -> None:
        container = {"name": "main", "resources": {"limits": {"nvidia.com/gpu": str(gpus)}}}
        group = {"size": size, "workerTemplate": {"spec": {"containers": [container]}}}
        spec = {"replicas": replicas, "leaderWorkerTemplate": group}
        self._create(LEADER_WORKER_SET, "leaderworkerset.x-k8s.io/v1", name, spec)

    def graph(self, name: str, services: dict[str, dict[str, Any]]) -> None:
        """A DynamoGraphDeployment in the shape of v1alpha1."""
        self._create(GRAPH["v1alpha1"], "nvidia.com/v1alpha1", name, {"services": services})

    def graph_v1beta1(self, name: str, components: list[dict[str, Any]]) -> None:
        self._create(GRAPH["v1beta1"], "nvidia.com/v1beta1", name, {"components": components})

    def adapter(self, graph: str, service: str, replicas: int) -> None:
        """The scaling adapter of a service."""
        spec = {"replicas": replicas, "dgdRef": {"name": graph, "serviceName": service}}
        name = f"{graph}-{service.lower()}"
        self._create(ADAPTER["v1alpha1"], "nvidia.com/v1alpha1", name, spec)

    def _create(self, kind: Any, version: str, name: str, spec: dict[str, Any]) -> None:
        found = {"apiVersion": version, "kind": kind.__name__, "metadata": {"name": name}, "spec": spec}
        self.client.create(kind(found), namespace=self.namespace)

    def replicas(self, kind: Any, name: str) -> int:
        return int(self.client.get(kind, name)["spec"]["replicas"])

    def patch(self, kind: Any, name: str, patch: dict[str, Any]) -> None:
        self.client.patch(kind, name, patch, patch_type=PatchType.MERGE)

    def pods(self) -> dict[str, Any]:
        return {pod["metadata"]["name"]: pod for pod in self.client.list(POD)}

    # Connecting

    def cluster(self, config: SingleConfig | None = None, **options: Any) -> Cluster:
        return Cluster(self.config if config is None else config, **options)

    def through(self, url: str, token: str = "test-token") -> SingleConfig:
        """A configuration for another address of the server, or another user."""
        entry = ClusterEntry(server=url)
        return KubeConfig.from_one(cluster=entry, user=User(token=token), namespace=self.namespace).get()

    def as_user(self, token: str) -> SingleConfig:
        return self.config._replace(user=User(token=token))

    @asynccontextmanager
    async def connected(
        self, config: PlannerConfig, *, cluster: Cluster | None = None, **options: Any
    ) -> AsyncIterator[KubernetesConnector]:
        """A connector in this namespace, closed in the end."""
        cluster = self.cluster() if cluster is None else cluster
        try:
            yield await connect(config, namespace=self.namespace, cluster=cluster, environ={}, **options)
        finally:
            await cluster.close()
