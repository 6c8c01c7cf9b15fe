"""A graph that runs as in life: API server, controllers, engines with their metrics, Prometheus, and the planner."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

HERE = Path(__file__).parent
ROUND_S = 0.2
BOUND_S = 240.0
"""Whatever is waited for comes within this time, or the test fails; a slow machine needs a part of it."""
STARTUP_S, DRAIN_S = 1.0, 0.5


def _helper(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"end_to_end_{name}", HERE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Graph:
    """A DynamoGraphDeployment, whose pods are engines as soon as they are ready."""

    def __init__(self, kube: Any, engines: Any) -> None:
        from planner_adapters.kubernetes.graph import COMPONENT_LABEL
        from planner_adapters.kubernetes.kinds import GRAPH

        self.kube, self.engines = kube, engines
        self._kind, self._label = GRAPH["v1alpha1"], COMPONENT_LABEL
        kube.controllers.startup_s, kube.controllers.drain_s = STARTUP_S, DRAIN_S
        self.ready = {"prefill": 0, "decode": 0}
        self.ended: BaseException | None = None
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._live)

    def __enter__(self) -> Graph:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def replicas(self) -> dict[str, int]:
        """As they are asked for."""
        services = self.kube.client.get(self._kind, "llm")["spec"]["services"]
        return {role: services[role]["replicas"] for role in ("prefill", "decode")}

    def until(self, holds: Callable[[], bool], what: Callable[[], object]) -> None:
        """Looks after every round of the controllers."""
        with self._changed:
            came = self._changed.wait_for(lambda: self.ended is not None or holds(), BOUND_S)
        assert self.ended is None, self.ended
        assert came, what()

    def _live(self) -> None:
        try:
            before_s = time.monotonic()
            while not self._stop.wait(ROUND_S):
                now_s = time.monotonic()
                self.kube.controllers.advance(now_s - before_s)
                before_s = now_s
                serving: dict[str, list[str]] = {"prefill": [], "decode": []}
                for name, pod in self.kube.pods().items():
                    role = pod["metadata"]["labels"].get(self._label)
                    conditions = (pod.get("status") or {}).get("conditions") or ()
                    ready = any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
                    if role in serving and ready and "deletionTimestamp" not in pod["metadata"]:
                        serving[role].append(name)
                for role, names in serving.items():
                    self.engines.set(role, names)
                with self._changed:
                    self.ready = {role: len(names) for role, names in serving.items()}
                    self._changed.notify_all()
        except BaseException as error:  # noqa: BLE001  # told to whoever waits
            with self._changed:
                self.ended = error
                self._changed.notify_all()


@pytest.fixture
def graph(kube: Any) -> Iterator[Graph]:
    """One prefill and one decode engine, a frontend, and the planner itself, which nobody waits for."""
    kube.graph(
        "llm",
        {
            "Frontend": {"componentType": "frontend", "replicas": 1},
            "Planner": {"componentType": "planner", "replicas": 1},
            **{
                role: {
                    "componentType": "worker",
                    "subComponentType": role,
                    "replicas": 1,
                    "resources": {"limits": {"gpu": "1"}},
                }
                for role in ("prefill", "decode")
            },
        },
    )
    kube.adapter("llm", "decode", 1)  # prefill has none, and is patched in the graph
    with Graph(kube, _helper("engines").Engines()) as found:
        yield found


@pytest.fixture
def prometheus(graph: Graph, prometheus_scraping: Callable[[str], str]) -> Iterator[str]:
    """The address of one that scrapes the graph every second."""
    with _helper("engines").Served(graph.engines) as served:
        yield prometheus_scraping(served.scrape_config())


@pytest.fixture
def planner(kube: Any, tmp_path: Path) -> Callable[..., Any]:
    """``with planner(options) as log:`` runs the command, and ends it as Kubernetes would."""
    kubeconfig = tmp_path / "kubeconfig"
    cluster = {"server": kube.config.cluster.server, "insecure-skip-tls-verify": True}
    context = {"cluster": "test", "user": "test", "namespace": kube.namespace}
    kubeconfig.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "test", "cluster": cluster}],
                "users": [{"name": "test", "user": {"token": kube.config.user.token}}],
                "contexts": [{"name": "test", "context": context}],
                "current-context": "test",
            }
        )
    )

    @contextmanager
    def run(*options: object) -> Iterator[Callable[[], str]]:
        log = tmp_path / f"log-{time.monotonic_ns()}"
        environ = {**os.environ, "KUBECONFIG": str(kubeconfig), "DYN_PARENT_DGD_K8S_NAME": "llm"}
        command = [sys.executable, "-P", "-m", "planner_adapters.cli", "run", *map(str, options)]
        with log.open("wb") as stderr:
            process = subprocess.Popen(command, env=environ, stdout=stderr, stderr=stderr)
        try:
            yield log.read_text
            assert process.poll() is None, log.read_text()
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=BOUND_S) == 0, log.read_text()
        finally:
            process.kill()
            process.wait()

    return run


@pytest.fixture
def played() -> ModuleType:
    """Engines and Prometheus by a played clock: ``played.prometheus(clock)``."""
    engines, module = _helper("engines"), _helper("played")

    def prometheus(clock: Any) -> Any:
        found = module.PlayedPrometheus(clock, None)
        found.engines = engines.Engines(lambda: found.now_s)
        return found

    module.prometheus = prometheus  # type: ignore[attr-defined]
    return module
