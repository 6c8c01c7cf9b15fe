"""One whole round of one process for 2 000 engines in 200 deployments: counts, passes, traffic, a tick of each planner.

Counts come from a real API server (as in `kubernetes_load.py`), passes are scraped from the engines, traffic is read
from a Prometheus that scrapes 200 frontends (as in `observe_fleet.py`). Servers and engines are other processes, whose
CPU isn't counted. The parts run one after another, so that each has its figures; a planner's interval is 5 s. In their
first minute all 200 planners learn how fast their engines are and how these are dealt requests, and size anew at every
tick, so that minute is shown by itself.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any

from kubernetes_load import NAMESPACE, api_server, fill
from lightkube.config.kubeconfig import SingleConfig
from observe_fleet import INTERVAL_S, KEYS, NUM_DEPLOYMENTS, REPLICAS, address, engines, prometheus

from planner_adapters.environment import Unobserved
from planner_adapters.kubernetes import Cluster, connect
from planner_adapters.prometheus import Target, pass_source, traffic_source
from planner_core import PlannerConfig, Role, TickInput, initial_state, tick

ROUNDS = 30
FIRST_MINUTE = 13
AT_ONCE = 8
"""Deployments that are scraped or asked for at a time."""
PARTS = ("counts", "passes", "traffic", "ticks", "all")


class Stopwatch:
    """Wall and CPU seconds of each part, over the rounds."""

    def __init__(self) -> None:
        self.unknown: dict[str, int] = {}
        """Deployments of which a part couldn't be had in the last round."""
        self.taken: dict[str, list[tuple[float, float]]] = {part: [] for part in PARTS}

    async def time(self, part: str, what: Callable[[], Awaitable[Any]]) -> Any:
        """What it gives."""
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        found = await what()
        self.taken[part].append((time.perf_counter() - wall_s, time.process_time() - cpu_s))
        return found

    def show(self) -> None:
        """A line per part, medians without the first round, in which everything connects."""
        print(
            f"{NUM_DEPLOYMENTS * REPLICAS:,} engines in {NUM_DEPLOYMENTS} deployments, one round of one process"
        )
        for when, rounds in (
            ("first minute", slice(1, FIRST_MINUTE)),
            ("afterwards", slice(FIRST_MINUTE, None)),
        ):
            print(f" {when}")
            for part, taken in self.taken.items():
                walls, cpus = zip(*taken[rounds], strict=True)
                wall_s, cpu_s = statistics.median(walls), statistics.median(cpus)
                print(
                    f"  {part:8} {wall_s:6.2f} s, slowest {max(walls):6.2f} s;"
                    f" CPU {cpu_s:6.2f} s, most {max(cpus):6.2f} s"
                )


async def measure(kube: SingleConfig, ports: list[int], prometheus_url: str) -> None:
    """Connects everything, and does some rounds."""
    configs = [
        PlannerConfig.from_mapping({**KEYS, "prometheus_endpoint": prometheus_url, "namespace": str(number)})
        for number in range(NUM_DEPLOYMENTS)
    ]
    cluster = Cluster(kube, whole_namespaces=True)
    connectors, passes, traffic = [], [], []
    for number, config in enumerate(configs):
        workload = f"agg=deploy/llama-{number}"
        connectors.append(
            await connect(config, workloads=workload, namespace=NAMESPACE, cluster=cluster, environ={})
        )
        targets = [
            Target(worker_id=f"{number}-{replica}", url=f"http://{host}{path}", role=Role.AGG)
            for replica in range(REPLICAS)
            for host, path in [address(ports, number, replica)]
        ]
        passes.append(pass_source(config, targets=targets))
        traffic.append(traffic_source(config))
    states, watch = [initial_state(config, 0.0) for config in configs], Stopwatch()

    async def a_round(now_s: float) -> None:
        counts = await watch.time("counts", lambda: _all([each.workers for each in connectors]))
        seen = await watch.time("passes", lambda: _all([each.passes for each in passes]))
        arrived = await watch.time(
            "traffic", lambda: _all([lambda t=t: t.traffic(INTERVAL_S) for t in traffic])
        )
        measured = zip(configs, states, counts, seen, arrived, strict=True)
        inputs = [
            TickInput(config=c, state=s, now_s=now_s, workers=w or {}, fpm=f or {}, traffic=t)
            for c, s, w, f, t in measured
        ]
        states[:] = await watch.time("ticks", lambda: _ticked(inputs))
        for part, found in (("counts", counts), ("passes", seen), ("traffic", arrived)):
            watch.unknown[part] = sum(each is None for each in found)

    for number in range(ROUNDS):
        began_s = time.perf_counter()
        await watch.time("all", lambda now_s=INTERVAL_S * (number + 1): a_round(now_s))
        await asyncio.sleep(max(0.0, INTERVAL_S - (time.perf_counter() - began_s)))
    watch.show()
    print(f"  unknown in the last round: {watch.unknown}")
    for each in (*connectors, *passes, *traffic, cluster):
        await each.close()


async def _ticked(inputs: list[TickInput]) -> list[Any]:
    return [tick(each).state for each in inputs]


async def _all(asks: list[Callable[[], Awaitable[Any]]]) -> list[Any]:
    places = asyncio.Semaphore(AT_ONCE)

    async def one(ask: Callable[[], Awaitable[Any]]) -> Any:
        async with places:
            try:
                return await ask()
            except Unobserved:  # as a shell takes it: unknown in this round
                return None

    return await asyncio.gather(*map(one, asks))


def main() -> None:
    """Starts everything and measures."""
    gc.set_threshold(50_000)  # as docs/reference/kubernetes.md advises for many planners in one process
    with api_server() as kube, engines() as ports:
        asyncio.run(fill(kube))
        groups = [
            {
                "targets": [f"127.0.0.1:{ports[n % len(ports)]}"],
                "labels": {"__metrics_path__": f"/frontend/{n}/metrics"},
            }
            for n in range(NUM_DEPLOYMENTS)
        ]
        with prometheus(groups, "5s", "dynamo_frontend_requests_total", NUM_DEPLOYMENTS) as url:
            asyncio.run(measure(kube, ports, url))


if __name__ == "__main__":
    main()
