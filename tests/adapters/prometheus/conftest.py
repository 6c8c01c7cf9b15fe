from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from planner_adapters.prometheus import MetricsOut
from planner_core import (
    FpmBatch,
    ObservedLatencies,
    PlannerConfig,
    Role,
    TickInput,
    TrafficObservation,
    WorkerCounts,
    initial_state,
    tick,
)

Answer = tuple[int, bytes] | str
Respond = Callable[[str, str], Answer]
"""(path, form) → status and body, or ``hang``, ``drip``, ``drop``."""


class Double:
    """An HTTP server on loopback that answers as it is told."""

    def __init__(self, respond: Respond) -> None:
        self.respond = respond
        self.requests: list[tuple[str, dict[str, str], str]] = []
        self.url = ""
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Double:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for writer in list(self._open):
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            while line := await reader.readline():
                path = line.split()[1].decode()
                headers: dict[str, str] = {}
                while (header := (await reader.readline()).strip()) != b"":
                    name, _, value = header.decode().partition(":")
                    headers[name.lower()] = value.strip()
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                self.requests.append((path, headers, body.decode()))
                answer = self.respond(path, body.decode())
                if answer == "drop":
                    return
                if answer == "hang":
                    await reader.read()
                    return
                if answer == "drip":
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
                    while True:
                        writer.write(b"x")
                        await writer.drain()
                        await asyncio.sleep(0.01)
                assert not isinstance(answer, str)
                status, content = answer
                writer.write(
                    f"HTTP/1.1 {status} X\r\nContent-Length: {len(content)}\r\n\r\n".encode() + content
                )
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self._open.discard(writer)
            writer.close()


@pytest.fixture
def double() -> type[Double]:
    return Double


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _tool(name: str) -> str:
    path = shutil.which(name)
    if path is None:
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


@pytest.fixture
def full_metrics() -> MetricsOut:
    """After a tick in which everything was known."""
    config = PlannerConfig.from_mapping(
        {
            "optimization_target": "sla",
            "enable_load_scaling": True,
            "load_predictor": "constant",
            "engines": {
                role: {"max_kv_tokens": 100_000, "max_num_batched_tokens": 8192}
                for role in Role
                if role != "agg"
            },
            "max_gpu_budget": 64,
        }
    )
    passes = {
        role: FpmBatch(
            worker_id=[f"{role}-{n % 2}" for n in range(40)],
            wall_time_s=[0.02 + 1e-5 * 500 * (n % 7) for n in range(40)],
            num_prefill=1.0 if role is Role.PREFILL else 0.0,
            prefill_tokens=[500.0 * (1 + n % 7) * (role is Role.PREFILL) for n in range(40)],
            num_decode=[1.0 + n % 7 if role is Role.DECODE else 0.0 for n in range(40)],
            decode_kv_tokens=[500.0 * (1 + n % 7) * (role is Role.DECODE) for n in range(40)],
            queued_prefill_tokens=100.0 if role is Role.PREFILL else 0.0,
            queued_num_prefill=1.0 if role is Role.PREFILL else 0.0,
        )
        for role in config.engines
    }
    traffic = TrafficObservation(duration_s=180, num_requests=360, isl=1000, osl=100)
    observed = ObservedLatencies(ttft_ms=200.0, itl_ms=20.0, request_duration_s=3.0)
    metrics = MetricsOut(config)
    state, now_s = initial_state(config, 0.0, fpm=passes, traffic=(traffic,) * 4), 0.0
    for _ in range(80):  # two intervals of the slow loop
        now_s += 5
        inputs = TickInput(
            config=config,
            state=state,
            now_s=now_s,
            workers={role: WorkerCounts(ready=2) for role in config.engines},
            traffic=traffic if now_s % 180 == 0 else None,
            fpm=passes,
            observed=observed,
        )
        decision = tick(inputs)
        metrics.update(inputs, decision)
        state = decision.state
    return metrics
