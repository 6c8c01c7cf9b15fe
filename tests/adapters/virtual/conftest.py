from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from planner_adapters.virtual import EtcdStore, MemoryStore, SqliteStore, Store

Connect = Callable[[], Store]
"""Opens another connection to one place."""


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _is_healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=1) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


class EtcdServer:
    """A real etcd, which can be stopped and started again with what it holds."""

    def __init__(self, program: str, folder: Path) -> None:
        self._program, self._folder = program, folder
        self.url, self._peers = "", ""
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        for _ in range(5):  # somebody else may take the port before etcd does
            if not self.url or self._process is None:
                self.url = self.url or f"http://127.0.0.1:{_free_port()}"
                self._peers = self._peers or f"http://127.0.0.1:{_free_port()}"
            self._process = subprocess.Popen(
                [
                    self._program,
                    f"--data-dir={self._folder / 'data'}",
                    f"--listen-client-urls={self.url}",
                    f"--advertise-client-urls={self.url}",
                    f"--listen-peer-urls={self._peers}",
                    f"--initial-advertise-peer-urls={self._peers}",
                    f"--initial-cluster=default={self._peers}",
                    "--log-level=error",
                ],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            until = time.monotonic() + 30
            while self._process.poll() is None and time.monotonic() < until:
                if _is_healthy(self.url):
                    return
                time.sleep(0.05)
            self.stop()
            shutil.rmtree(self._folder / "data", ignore_errors=True)
            self.url = self._peers = ""
        raise AssertionError("etcd doesn't start")

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._process = None


def _program() -> str:
    assets = os.environ.get("KUBEBUILDER_ASSETS", "")
    program = shutil.which("etcd", path=os.pathsep.join([assets, os.environ.get("PATH", "")]))
    if program is None:
        # etcd is a program of its own; pip can't install it, .ci/run does. The other two stores are tested without.
        pytest.skip("needs etcd (Debian's etcd-server), which is neither in PATH nor in KUBEBUILDER_ASSETS")
    return program


@pytest.fixture(scope="session")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real etcd."""
    server = EtcdServer(_program(), tmp_path_factory.mktemp("etcd"))
    server.start()
    yield server.url
    server.stop()


@pytest.fixture
def etcd_of_its_own(tmp_path: Path) -> Iterator[EtcdServer]:
    """A real etcd that the test may stop, start and lock."""
    server = EtcdServer(_program(), tmp_path)
    server.start()
    yield server
    server.stop()


@pytest.fixture(params=["memory", "sqlite", "etcd"])
def new_place(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Connect]:
    """Makes places that hold nothing yet, in each kind of store."""
    if request.param == "etcd":
        url = request.getfixturevalue("etcd")

    def make() -> Connect:
        name = uuid.uuid4().hex
        if request.param == "sqlite":
            return lambda: SqliteStore(tmp_path / name)
        if request.param == "etcd":
            return lambda: EtcdStore([url], key=f"tests/{name}")
        store = MemoryStore()
        return lambda: store

    return make


@pytest.fixture
def connect_to_place(new_place: Callable[[], Connect]) -> Connect:
    """Opens connections to one place that holds nothing yet, in each kind of store."""
    return new_place()
