"""How long one process needs for 2 000 engines in 200 deployments: scrape all of them, look at Kubernetes, tick all.

The engines' pages are as long as vLLM's and served by another process on loopback. Passes are read in two ways: scraped
from the engines, and out of a Prometheus that has scraped them (skipped where there is none). Worker counts are given;
`kubernetes_load.py` measures how long it takes to look at those. A planner's interval is 5 s.
"""

from __future__ import annotations

import asyncio
import gc
import json
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

from planner_adapters.environment import PassSource
from planner_adapters.prometheus import Target, pass_source
from planner_core import FpmBatch, PlannerConfig, Role, TickInput, WorkerCounts, initial_state, tick

NUM_DEPLOYMENTS, REPLICAS = 200, 10
NUM_PORTS = 200
ROUNDS = 6
INTERVAL_S = 5.0
KEYS = {
    "mode": "agg",
    "optimization_target": "sla",
    "enable_load_scaling": True,
    "enable_throughput_scaling": False,
    "max_gpu_budget": 64,
    "engines": {"agg": {"max_kv_tokens": 160_000, "max_num_batched_tokens": 8192}},
}
Ask = Callable[[], Awaitable[list[dict[Role, FpmBatch]]]]


class Page:
    """What vLLM would serve of a steady engine: a dozen series that matter and hundreds that don't."""

    LABELS = 'engine="0",model_name="meta-llama/Llama-3.1-8B-Instruct"'

    def __init__(self) -> None:
        noise = (
            f'vllm:request_{kind}_seconds_bucket{{le="{bound / 10}",{self.LABELS}}} {bound}.0'
            for kind in range(12)
            for bound in range(30)
        )
        self._rest = "\n".join(noise)

    def at(self, now_s: float) -> bytes:
        """The page at a time."""
        passes = now_s / 0.02
        values = {
            "num_requests_running": 20,
            "num_requests_waiting": 1,
            "kv_cache_usage_perc": 0.3,
            "iteration_tokens_total_count": passes,
            "prompt_tokens_total": 2000 * now_s,
            "generation_tokens_total": 20 * passes,
            "time_to_first_token_seconds_count": 2 * now_s,
            "time_to_first_token_seconds_sum": 0.2 * now_s,
            "inter_token_latency_seconds_count": 20 * passes - 2 * now_s,
            "inter_token_latency_seconds_sum": 0.02 * (20 * passes - 2 * now_s),
        }
        lines = [f"vllm:{name}{{{self.LABELS}}} {value}" for name, value in values.items()]
        blocks = f'vllm:cache_config_info{{block_size="16",num_gpu_blocks="10000",{self.LABELS}}} 1.0'
        return "\n".join([*lines, blocks, self._rest, ""]).encode()


def frontend(number: str, now_s: float) -> bytes:
    """What the frontend of a deployment would serve, as far as it is read: 20 requests a second."""
    labels, done = f'dynamo_namespace="{number}",model="llama"', 20 * now_s
    values = {"requests_total": done, "inflight_requests": 40}
    for name, mean in (("input_sequence_tokens", 1000), ("output_sequence_tokens", 200)):
        values |= {f"{name}_count": done, f"{name}_sum": mean * done}
    return "".join(f"dynamo_frontend_{name}{{{labels}}} {value}\n" for name, value in values.items()).encode()


async def serve() -> None:
    """The process with the engines: every port and path is one, but for those below /frontend/."""
    page = Page()

    class Answers(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            assert isinstance(transport, asyncio.Transport)
            self.transport, self.asked = transport, b""

        def data_received(self, data: bytes) -> None:
            self.asked += data
            while b"\r\n\r\n" in self.asked:
                asked, _, self.asked = self.asked.partition(b"\r\n\r\n")
                path, now_s = asked.split(b" ", 2)[1].decode().split("/"), time.time() % 1e6
                body = frontend(path[2], now_s) if path[1] == "frontend" else page.at(now_s)
                head = f"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n\r\n"
                self.transport.write(head.encode() + body)

    loop, ports = asyncio.get_running_loop(), []
    for _ in range(NUM_PORTS):
        server = await loop.create_server(Answers, "127.0.0.1", 0, backlog=512)
        ports.append(server.sockets[0].getsockname()[1])
    sys.stdout.write(json.dumps(ports) + "\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


def address(ports: list[int], deployment: int, replica: int) -> tuple[str, str]:
    """Host with port, and path, of an engine."""
    number = deployment * REPLICAS + replica
    return f"127.0.0.1:{ports[number % len(ports)]}", f"/{number}/metrics"


async def measure(name: str, configs: list[PlannerConfig], ask: Ask) -> None:
    """Observes and ticks all deployments for some rounds, and says how long that took."""
    counts = {Role.AGG: WorkerCounts(ready=REPLICAS, expected=REPLICAS)}
    states, looks, ticks, engines = [initial_state(config, 0.0) for config in configs], [], [], 0
    for number in range(ROUNDS):
        began_s, cpu_s = time.perf_counter(), time.process_time()
        passes = await ask()
        looked_s = time.perf_counter()
        inputs = [
            TickInput(config=config, state=state, now_s=INTERVAL_S * (number + 1), workers=counts, fpm=seen)
            for config, state, seen in zip(configs, states, passes, strict=True)
        ]
        states = [tick(each).state for each in inputs]
        ended_s = time.perf_counter()
        looks.append(looked_s - began_s)
        ticks.append(ended_s - looked_s)
        engines = sum(batch.num_workers for seen in passes for batch in seen.values())
        used_s = time.process_time() - cpu_s
        await asyncio.sleep(max(0.0, INTERVAL_S - (ended_s - began_s)))
    mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{name}: {engines:,} engines in {len(configs)} deployments")
    print(f"  observed in  {statistics.median(looks):6.2f} s, slowest {max(looks):6.2f} s")
    print(f"  ticked in    {statistics.median(ticks):6.2f} s, slowest {max(ticks):6.2f} s")
    print(f"  CPU          {used_s:6.2f} s of the last round; memory {mib:.0f} MiB", flush=True)


async def scraped(ports: list[int]) -> None:
    """Every engine by HTTP, 20 of a deployment at a time."""
    configs = [PlannerConfig.from_mapping(KEYS)] * NUM_DEPLOYMENTS
    sources: list[PassSource] = []
    for deployment, config in enumerate(configs):
        targets = [
            Target(worker_id=f"{deployment}-{replica}", url=f"http://{host}{path}", role=Role.AGG)
            for replica in range(REPLICAS)
            for host, path in [address(ports, deployment, replica)]
        ]
        sources.append(pass_source(config, targets=targets))
    await measure("scraped", configs, lambda: _all(sources))
    for source in sources:
        await source.close()


async def out_of_prometheus(ports: list[int], url: str) -> None:
    """One query pair per deployment."""
    configs = [
        PlannerConfig.from_mapping({**KEYS, "prometheus_endpoint": url}) for _ in range(NUM_DEPLOYMENTS)
    ]
    sources: list[PassSource] = [
        pass_source(config, in_prometheus={Role.AGG: {"deployment": str(number)}})
        for number, config in enumerate(configs)
    ]
    await measure("out of Prometheus", configs, lambda: _all(sources))
    for source in sources:
        await source.close()


async def _all(sources: list[PassSource]) -> list[dict[Role, FpmBatch]]:
    """Eight deployments at a time, so that no answer waits behind two hundred."""
    places = asyncio.Semaphore(8)

    async def one(source: PassSource) -> dict[Role, FpmBatch]:
        async with places:
            return await source.passes()

    return await asyncio.gather(*map(one, sources))


def prometheus_of_engines(ports: list[int]) -> AbstractContextManager[str]:
    """One that has scraped every engine for a while."""
    groups = [
        {
            "targets": [host],
            "labels": {
                "__metrics_path__": path,
                "deployment": str(deployment),
                "instance": f"{deployment}-{replica}",
            },
        }
        for deployment in range(NUM_DEPLOYMENTS)
        for replica in range(REPLICAS)
        for host, path in [address(ports, deployment, replica)]
    ]
    # As one would where storage is dear; without it the queries find the same series.
    drop = [{"source_labels": ["__name__"], "regex": "vllm:request_.*", "action": "drop"}]
    running, number = "vllm:num_requests_running", NUM_DEPLOYMENTS * REPLICAS
    return prometheus(groups, "15s", running, number, metric_relabel_configs=drop)


@contextmanager
def prometheus(
    groups: list[dict[str, Any]], interval: str, series: str, number: int, **more: Any
) -> Iterator[str]:
    """One that scrapes these targets, and has ``number`` of a ``series`` three times; its address."""
    with tempfile.TemporaryDirectory() as folder, socket.socket() as probe:
        config = {
            "global": {"scrape_interval": interval},
            "scrape_configs": [{"job_name": "all", "static_configs": groups, **more}],
        }
        path = Path(folder) / "prometheus.yml"
        path.write_text(json.dumps(config))
        probe.bind(("127.0.0.1", 0))
        listen = f"127.0.0.1:{probe.getsockname()[1]}"
        probe.close()
        command = ["prometheus", f"--config.file={path}", f"--storage.tsdb.path={folder}/data"]
        with subprocess.Popen([*command, f"--web.listen-address={listen}", "--log.level=error"]) as process:
            try:
                while not _known(f"http://{listen}", series, number):
                    time.sleep(1.0)
                yield f"http://{listen}"
            finally:
                process.terminate()


def _known(url: str, series: str, number: int) -> bool:
    query = f"{url}/api/v1/query?query=count(count_over_time({series}[10m])>2)"
    with suppress(OSError, LookupError), urllib.request.urlopen(query, timeout=10) as answer:
        result = json.load(answer)["data"]["result"]
        return bool(result) and int(result[0]["value"][1]) == number
    return False


def main() -> None:
    """Starts the engines and measures both ways."""
    with engines() as ports:
        asyncio.run(scraped(ports))
        gc.collect()
        if shutil.which("prometheus") is None:
            print("out of Prometheus: skipped, there is no prometheus on the PATH")
        else:
            with prometheus_of_engines(ports) as url:
                asyncio.run(out_of_prometheus(ports, url))


@contextmanager
def engines() -> Iterator[list[int]]:
    """The process with the engines, and its ports."""
    with subprocess.Popen([sys.executable, __file__, "serve"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())
        finally:
            process.terminate()


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        asyncio.run(serve())
    else:
        main()
