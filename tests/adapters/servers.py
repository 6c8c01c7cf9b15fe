"""Real servers on loopback, and doubles of them that fail as they are told, for the tests of several shells."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import itertools
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from planner_adapters.environment import Unobserved
from planner_core import Role, WorkerCounts

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
_NUMBERS = itertools.count()


def _helper(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"helper_{Path(path).stem}", HERE / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# Kubernetes


@pytest.fixture(scope="session")
def faults() -> ModuleType:
    """A proxy that stands before the API server and fails as it is told."""
    return _helper("kubernetes/faults.py")


@pytest.fixture(scope="session")
def kube_config(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Of a fresh API server that knows the kinds of crds.yaml."""
    lightkube = pytest.importorskip("lightkube", reason="needs the extra kubernetes")
    tool = ROOT.parent / "shared" / "tools" / "kube-api"
    if not tool.is_file():
        # An API server is a program of its own that lies beside the project; nothing that we could write is as real.
        pytest.skip("needs ../shared/tools/kube-api, which starts an API server and is not there")
    if not os.environ.get("KUBEBUILDER_ASSETS") and shutil.which("etcd") is None:
        # The API server keeps its objects there; pip can't install it, .ci/run does.
        pytest.skip("needs etcd (Debian: etcd-server) or KUBEBUILDER_ASSETS")
    folder = tmp_path_factory.mktemp("kube")
    up = subprocess.run([tool, "up", folder], capture_output=True, text=True, timeout=120)
    assert up.returncode == 0, up.stderr
    try:
        config = lightkube.KubeConfig.from_file(up.stdout.strip()).get()
        with lightkube.Client(config) as client:
            _helper("kubernetes/namespaces.py").define_kinds(client)
        yield config
    finally:
        subprocess.run([tool, "down", folder], check=True, timeout=60)


@pytest.fixture
def kube(kube_config: Any) -> Iterator[Any]:
    """A namespace of its own, and a double of the controllers that play in it."""
    controllers = _helper("kubernetes/controllers.py")
    found = _helper("kubernetes/namespaces.py").Kube(kube_config, f"test-{next(_NUMBERS)}", controllers)
    try:
        yield found
    finally:
        found.client.close()


@pytest.fixture(scope="session")
def until() -> Callable[..., Any]:
    """Waits until the worker counts are as a condition wants them, and returns them."""

    async def wait(
        connector: Any, holds: Callable[[dict[Role, WorkerCounts]], bool]
    ) -> dict[Role, WorkerCounts]:
        seen: Any = None
        try:
            async with asyncio.timeout(60.0):
                while True:
                    try:
                        seen = await connector.workers()
                    except Unobserved as error:
                        seen = error
                    else:
                        if holds(seen):
                            return seen
                    await connector.cluster.changes.wait()
        except TimeoutError:
            raise AssertionError(f"never came; last seen: {seen}") from None

    return wait


# Prometheus


@pytest.fixture
def double() -> Any:
    """An HTTP server that answers as it is told: ``async with double(respond) as server``."""
    return _helper("prometheus/http_double.py").Double


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _tool(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        # Prometheus is a program of its own; pip can't install it, .ci/run does.
        pytest.skip(f"needs {name} on the PATH: Debian's package prometheus has it")
    return path


@contextlib.contextmanager
def _running(folder: Path, config: str = "") -> Iterator[str]:
    """A real Prometheus over the blocks in ``folder``."""
    (folder / "prometheus.yml").write_text(config)
    port = _free_port()
    command = [
        _tool("prometheus"),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        "--storage.tsdb.retention.time=100y",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=warn",
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        until = time.monotonic() + 60
        while True:
            with (
                contextlib.suppress(urllib.error.URLError, ConnectionError),
                urllib.request.urlopen(f"{url}/-/ready", timeout=5),
            ):
                break
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < until, "Prometheus isn't ready after a minute"
            time.sleep(0.02)
        yield url
    finally:
        process.terminate()
        process.wait(timeout=60)


@pytest.fixture
def prometheus_with(tmp_path: Path) -> Iterator[Callable[[str], str]]:
    """Starts a Prometheus that has stored the given OpenMetrics text; gives its address."""
    with contextlib.ExitStack() as stack:

        def start(text: str) -> str:
            (tmp_path / "samples").write_text(text + "# EOF\n")
            subprocess.run(
                [
                    _tool("promtool"),
                    "tsdb",
                    "create-blocks-from",
                    "openmetrics",
                    tmp_path / "samples",
                    tmp_path / "data",
                ],
                check=True,
                capture_output=True,
            )
            return stack.enter_context(_running(tmp_path))

        yield start


@pytest.fixture
def prometheus_scraping(tmp_path: Path) -> Iterator[Callable[[str], str]]:
    """Starts a Prometheus with the given configuration; gives its address."""
    with contextlib.ExitStack() as stack:
        yield lambda config: stack.enter_context(_running(tmp_path, config))


@pytest.fixture
def promtool() -> str:
    return _tool("promtool")


@pytest.fixture
def bound_s() -> float:
    """How long a test waits for what must come, on the slowest of machines."""
    return 60.0
