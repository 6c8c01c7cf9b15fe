"""The manifests in deploy/: least privilege, no root, nothing to write to; and the API server takes them."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from lightkube.codecs import from_dict
from lightkube.resources.core_v1 import ServiceAccountToken

from planner_adapters.environment import NotScaled
from planner_adapters.kubernetes.kinds import ADAPTER, DEPLOYMENT, LEADER_WORKER_SET, STATEFUL_SET
from planner_core import ConfigError, PlannerConfig, Role

FILES = ("rbac.yaml", "deployment.yaml", "network_policy.yaml")
WRITES = ("patch", "update", "create", "delete")


@pytest.fixture(scope="module")
def deploy(project_root: Path) -> Path:
    return project_root / "deploy"


@pytest.fixture(params=[".", "global"])
def folder(request: pytest.FixtureRequest, deploy: Path) -> Path:
    """The planner's, and the global planner's."""
    return deploy / str(request.param)


def manifests(folder: Path) -> list[Any]:
    return [found for file in FILES for found in yaml.safe_load_all((folder / file).read_text())]


def the(kind: str, folder: Path) -> Any:
    (found,) = [found for found in manifests(folder) if found["kind"] == kind]
    return found


def test_the_kustomization_names_every_manifest(folder: Path) -> None:
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    assert sorted(kustomization["resources"]) == sorted(FILES)
    (config,) = kustomization["configMapGenerator"]
    pod = the("Deployment", folder)["spec"]["template"]["spec"]
    assert config["name"] in [volume.get("configMap", {}).get("name") for volume in pod["volumes"]]


def test_the_configurations_are_valid(deploy: Path) -> None:
    from planner_adapters.config_file import read_settings
    from planner_adapters.global_planner import read_global_settings

    assert read_settings(deploy / "planner.yaml", environ={}).config().shell.environment == "kubernetes"
    assert list(read_global_settings(deploy / "global" / "global.yaml").deployments) == ["chat", "batch"]


def test_each_is_no_root_and_writes_to_its_volumes_alone(folder: Path) -> None:
    deployment = the("Deployment", folder)
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


def test_the_role_reads_no_secrets_creates_nothing_and_deletes_nothing(folder: Path) -> None:
    assert "ClusterRole" not in [found["kind"] for found in manifests(folder)]
    for rule in the("Role", folder)["rules"]:
        assert "*" not in rule["apiGroups"] + rule["resources"] + rule["verbs"]
        assert set(rule["verbs"]) <= {"get", "list", "watch", "patch"}
        assert "resourceNames" in rule or rule["resources"] == ["pods"]
        assert not {"secrets", "configmaps"} & set(rule["resources"])


def test_everything_that_comes_in_or_goes_out_is_listed(folder: Path) -> None:
    policy = the("NetworkPolicy", folder)
    assert set(policy["spec"]["policyTypes"]) == {"Ingress", "Egress"}
    labels = policy["spec"]["podSelector"]["matchLabels"]
    assert labels.items() <= the("Deployment", folder)["spec"]["template"]["metadata"]["labels"].items()


def test_local_planners_reach_the_global_one(deploy: Path) -> None:
    (port,) = the("Service", deploy / "global")["spec"]["ports"]
    (local,) = [
        rule
        for rule in the("NetworkPolicy", deploy)["spec"]["egress"]
        if {"protocol": "TCP", "port": port["port"]} in rule.get("ports", ())
    ]
    (central,) = the("NetworkPolicy", deploy / "global")["spec"]["ingress"]
    for rule, folder in ((local["to"], deploy / "global"), (central["from"], deploy)):
        pods = the("Deployment", folder)["spec"]["template"]["metadata"]["labels"]
        assert rule == [{"namespaceSelector": {}, "podSelector": {"matchLabels": pods}}]


def kubectl(*arguments: object) -> str:
    program = shutil.which("kubectl")
    if program is None:
        # A program of its own, that pip can't install; .ci/run does. The manifests are applied without it, too.
        pytest.skip("needs kubectl (Debian: kubernetes-client)")
    done = subprocess.run(
        [program, "--kubeconfig=/dev/null", *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_kubectl_builds_each_folder_with_its_image_and_its_configuration(folder: Path) -> None:
    built = {found["kind"]: found for found in yaml.safe_load_all(kubectl("kustomize", folder))}
    assert built.keys() == {found["kind"] for found in manifests(folder)} | {"ConfigMap"}
    pod = built["Deployment"]["spec"]["template"]["spec"]
    assert pod["containers"][0]["image"].startswith("registry.example.com/planner:")
    name = built["ConfigMap"]["metadata"]["name"]
    assert name in [volume.get("configMap", {}).get("name") for volume in pod["volumes"]]
    for text in built["ConfigMap"]["data"].values():
        assert "planner" in text


def test_kubectl_applies_each_folder(kube: Any, folder: Path) -> None:
    server = ("--server", kube.config.cluster.server, "--token=test-token", "--insecure-skip-tls-verify")
    for how in (("--dry-run=server",), (), ("--server-side", "--force-conflicts")):
        said = kubectl("apply", "-k", folder, "-n", kube.namespace, *server, *how)
        assert len(said.splitlines()) == len(manifests(folder)) + 1


def installed(kube: Any, folder: Path, *, may: Callable[[Any], bool] = lambda rule: True) -> Any:
    """Creates all manifests, the role with the rules that ``may`` stay; a configuration with the planner's token."""
    for found in manifests(folder):
        if found["kind"] == "Role":
            found["rules"] = [rule for rule in found["rules"] if may(rule)]
        kube.client.create(from_dict(found), namespace=kube.namespace)
    asked = ServiceAccountToken.from_dict(
        {"metadata": {}, "spec": {"audiences": [], "expirationSeconds": 3600}}
    )
    account = the("ServiceAccount", folder)["metadata"]["name"]
    token = kube.client.create(asked, account, namespace=kube.namespace)
    return kube.as_user(token.status.token)


KINDS = {"deploy": DEPLOYMENT, "sts": STATEFUL_SET, "lws": LEADER_WORKER_SET}


def serving(kube: Any, kind: str, name: str) -> None:
    """A workload of two replicas."""
    if kind == "lws":
        kube.leader_worker_set(name, 2, gpus=1, size=1)
    else:
        kube.deployment(name, 2, kind={"deploy": "Deployment", "sts": "StatefulSet"}[kind])


@pytest.mark.parametrize("kind", KINDS)
def test_the_role_suffices_to_watch_mark_and_scale(
    kube: Any, deploy: Path, agg: PlannerConfig, order: Any, kind: str
) -> None:
    serving(kube, kind, "my-decode")
    user = installed(kube, deploy)
    kube.controllers.settle()
    pod = next(name for name in sorted(kube.pods()) if name.startswith("my-decode"))

    async def main() -> None:
        cluster = kube.cluster(user)
        async with kube.connected(agg, cluster=cluster, workloads=f"agg={kind}/my-decode") as connector:
            assert (await connector.workers())[Role.AGG].ready == 2
            await connector.scale(order({Role.AGG: 1}, {Role.AGG: (pod,)}))

    asyncio.run(main())
    assert kube.replicas(KINDS[kind], "my-decode") == 1
    marks = kube.pods()[pod]["metadata"].get("annotations") or {}
    assert ("planner-core/deletion-cost" in marks) == (kind == "deploy")


def my_graph(kube: Any) -> None:
    kube.graph(
        "my-graph",
        {
            "prefill": {"componentType": "worker", "subComponentType": "prefill", "replicas": 1},
            "decode": {"componentType": "worker", "subComponentType": "decode", "replicas": 1},
        },
    )
    kube.adapter("my-graph", "decode", 1)


def test_the_role_suffices_for_a_graph_with_and_without_adapters(
    kube: Any, deploy: Path, disagg: PlannerConfig, order: Any
) -> None:
    my_graph(kube)
    user = installed(kube, deploy)

    async def main() -> None:
        kube.controllers.settle()
        async with kube.connected(disagg, cluster=kube.cluster(user), dgd="my-graph") as connector:
            await connector.scale(order({Role.PREFILL: 2, Role.DECODE: 3}))
            kube.controllers.settle()

    asyncio.run(main())
    names = [name.rsplit("-", 1)[0] for name in kube.pods()]
    assert (names.count("my-graph-prefill"), names.count("my-graph-decode")) == (2, 3)


def test_a_planner_that_asks_the_global_one_needs_no_right_to_write(
    kube: Any, deploy: Path, agg: PlannerConfig, order: Any
) -> None:
    def reads(rule: Any) -> bool:
        rule["verbs"] = [verb for verb in rule["verbs"] if verb not in WRITES]
        return not rule["resources"][0].endswith("/scale")

    serving(kube, "deploy", "my-decode")
    user = installed(kube, deploy, may=reads)
    kube.controllers.settle()

    async def main() -> None:
        cluster = kube.cluster(user)
        async with kube.connected(agg, cluster=cluster, workloads="agg=deploy/my-decode") as connector:
            assert (await connector.workers())[Role.AGG].ready == 2
            with pytest.raises(
                NotScaled, match='give the planner\'s role the verb "get" on "deployments/scale"'
            ):
                await connector.scale(order({Role.AGG: 1}))

    asyncio.run(main())


@pytest.mark.parametrize("kind", KINDS)
def test_the_global_planner_scales_what_its_file_names_with_its_role(
    kube: Any, deploy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    from planner_adapters.global_planner import connected, read_global_settings

    my_graph(kube)
    serving(kube, kind, "my-batch")
    user = installed(kube, deploy / "global")
    kube.controllers.settle()
    entry = {"server": user.cluster.server, "insecure-skip-tls-verify": True}
    named = {"cluster": "here", "user": "planner", "namespace": kube.namespace}
    (tmp_path / "kubeconfig").write_text(
        yaml.safe_dump(
            {
                "clusters": [{"name": "here", "cluster": entry}],
                "users": [{"name": "planner", "user": {"token": user.user.token}}],
                "contexts": [{"name": "here", "context": named}],
                "current-context": "here",
            }
        )
    )
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    text = (deploy / "global" / "global.yaml").read_text()
    (tmp_path / "global.yaml").write_text(text.replace("deployment/my-batch", f"{kind}/my-batch"))
    settings = read_global_settings(tmp_path / "global.yaml")

    async def main() -> None:
        async with connected(settings) as arbiter:
            batch = await arbiter.ask("batch", {Role.AGG: 3}, {})
            chat = await arbiter.ask("chat", {Role.PREFILL: 1, Role.DECODE: 2}, {})
        assert (batch.reason, chat.reason) == ("granted", "granted")

    asyncio.run(main())
    assert kube.replicas(KINDS[kind], "my-batch") == 3
    assert kube.replicas(ADAPTER["v1alpha1"], "my-graph-decode") == 2


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
