"""The manifests in deploy/: least privilege, no root, nothing to write to; and the API server takes them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import yaml
from lightkube.codecs import from_dict
from lightkube.resources.core_v1 import ServiceAccountToken

from planner_adapters.environment import NotScaled
from planner_adapters.kubernetes.kinds import DEPLOYMENT
from planner_core import ConfigError, PlannerConfig, Role

FILES = ("rbac.yaml", "deployment.yaml", "network_policy.yaml")


@pytest.fixture(scope="module")
def deploy(project_root: Path) -> Path:
    return project_root / "deploy"


def manifests(deploy: Path) -> list[Any]:
    return [found for file in FILES for found in yaml.safe_load_all((deploy / file).read_text())]


def test_the_kustomization_names_every_manifest(deploy: Path) -> None:
    kustomization = yaml.safe_load((deploy / "kustomization.yaml").read_text())
    assert sorted(kustomization["resources"]) == sorted(FILES)
    (config,) = kustomization["configMapGenerator"]
    (deployment,) = [found for found in manifests(deploy) if found["kind"] == "Deployment"]
    pod = deployment["spec"]["template"]["spec"]
    assert config["name"] in [volume.get("configMap", {}).get("name") for volume in pod["volumes"]]


def test_the_configuration_is_valid(deploy: Path) -> None:
    from planner_adapters.config_file import read_settings

    assert read_settings(deploy / "planner.yaml", environ={}).config().shell.environment == "kubernetes"


def test_the_planner_is_no_root_and_writes_to_its_volumes_alone(deploy: Path) -> None:
    (deployment,) = [found for found in manifests(deploy) if found["kind"] == "Deployment"]
    pod = deployment["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    (container,) = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert deployment["spec"]["strategy"] == {"type": "Recreate"}


def test_the_role_reads_no_secrets_creates_nothing_and_deletes_nothing(deploy: Path) -> None:
    kinds = [found["kind"] for found in manifests(deploy)]
    assert "ClusterRole" not in kinds
    (role,) = [found for found in manifests(deploy) if found["kind"] == "Role"]
    for rule in role["rules"]:
        assert "*" not in rule["apiGroups"] + rule["resources"] + rule["verbs"]
        assert set(rule["verbs"]) <= {"get", "list", "watch", "patch"}
        assert "resourceNames" in rule or rule["resources"] == ["pods"]
        assert not {"secrets", "configmaps"} & set(rule["resources"])


def test_everything_that_comes_in_or_goes_out_is_listed(deploy: Path) -> None:
    (policy,) = [found for found in manifests(deploy) if found["kind"] == "NetworkPolicy"]
    (deployment,) = [found for found in manifests(deploy) if found["kind"] == "Deployment"]
    assert set(policy["spec"]["policyTypes"]) == {"Ingress", "Egress"}
    labels = policy["spec"]["podSelector"]["matchLabels"]
    assert labels.items() <= deployment["spec"]["template"]["metadata"]["labels"].items()


def installed(kube: Any, deploy: Path, **names: str) -> Any:
    """Creates all manifests, with the names that people replace replaced; a configuration with the planner's token."""
    for found in manifests(deploy):
        if found["kind"] == "Role":
            for rule in found["rules"]:
                rule["resourceNames"] = [names.get(name, name) for name in rule.get("resourceNames", [])]
        if found["kind"] == "RoleBinding":
            found["subjects"][0]["namespace"] = kube.namespace
        kube.client.create(from_dict(found), namespace=kube.namespace)
    asked = ServiceAccountToken.from_dict(
        {"metadata": {}, "spec": {"audiences": [], "expirationSeconds": 3600}}
    )
    token = kube.client.create(asked, "planner", namespace=kube.namespace)
    return kube.as_user(token.status.token)


def test_the_role_suffices_to_watch_mark_and_scale(
    kube: Any, deploy: Path, agg: PlannerConfig, order: Any
) -> None:
    kube.deployment("my-decode", 2)
    user = installed(kube, deploy)
    kube.controllers.settle()
    pod = next(name for name in sorted(kube.pods()) if name.startswith("my-decode"))

    async def main() -> None:
        cluster = kube.cluster(user)
        async with kube.connected(agg, cluster=cluster, workloads="agg=deploy/my-decode") as connector:
            assert (await connector.workers())[Role.AGG].ready == 2
            await connector.scale(order({Role.AGG: 1}, {Role.AGG: (pod,)}))

    asyncio.run(main())
    assert kube.replicas(DEPLOYMENT, "my-decode") == 1
    assert "planner-core/deletion-cost" in kube.pods()[pod]["metadata"]["annotations"]


def test_the_role_suffices_for_a_graph_with_and_without_adapters(
    kube: Any, deploy: Path, disagg: PlannerConfig, order: Any
) -> None:
    kube.graph(
        "my-graph",
        {
            "prefill": {"componentType": "worker", "subComponentType": "prefill", "replicas": 1},
            "decode": {"componentType": "worker", "subComponentType": "decode", "replicas": 1},
        },
    )
    kube.adapter("my-graph", "decode", 1)
    user = installed(kube, deploy)

    async def main() -> None:
        kube.controllers.settle()
        async with kube.connected(disagg, cluster=kube.cluster(user), dgd="my-graph") as connector:
            await connector.scale(order({Role.PREFILL: 2, Role.DECODE: 3}))
            kube.controllers.settle()

    asyncio.run(main())
    names = [name.rsplit("-", 1)[0] for name in kube.pods()]
    assert (names.count("my-graph-prefill"), names.count("my-graph-decode")) == (2, 3)


def test_the_role_reaches_no_other_deployment(kube: Any, deploy: Path, agg: PlannerConfig) -> None:
    kube.deployment("others", 2)
    user = installed(kube, deploy)

    async def main() -> None:
        async with kube.connected(agg, cluster=kube.cluster(user), workloads="agg=deploy/others"):
            pass

    with pytest.raises(ConfigError) as raised:
        asyncio.run(main())
    (problem,) = raised.value.problems
    assert 'give the planner\'s role the verb "list" on "deployments" of API group "apps"' in problem
    assert f"system:serviceaccount:{kube.namespace}:planner" in problem


def test_a_right_that_was_taken_away_is_named_when_it_is_missed(
    kube: Any, deploy: Path, agg: PlannerConfig, order: Any
) -> None:
    from lightkube.resources.rbac_authorization_v1 import RoleBinding

    kube.deployment("my-decode", 2)
    user = installed(kube, deploy)
    kube.controllers.settle()

    async def main() -> None:
        cluster = kube.cluster(user)
        async with kube.connected(agg, cluster=cluster, workloads="agg=deploy/my-decode") as connector:
            kube.client.delete(RoleBinding, "planner", namespace=kube.namespace)
            reason = await _refused(connector, order({Role.AGG: 2}))
            assert 'the verb "get" on "deployments/scale" of API group "apps"' in reason

    asyncio.run(main())


async def _refused(connector: Any, order: Any) -> str:
    """Why an order isn't carried out, once it isn't: the server's own authorizer notices a moment later."""
    async with asyncio.timeout(30):
        while True:
            try:
                await connector.scale(order)
            except NotScaled as error:
                return str(error)
