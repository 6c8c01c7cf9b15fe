"""A real Ray Serve on this machine, which the planner scales up under load and down after it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

# Half a gigabyte, so it isn't in the session `tests`, but in `ray`.
pytest.importorskip("ray.serve", reason="needs the extra ray")

import ray
from ray import serve

from planner_adapters.ray import autoscaling_config

BOUND_S = 180.0
"""Whatever is waited for comes within this time, or the test fails."""
CONFIG = {
    "mode": "agg",
    "max_gpu_budget": 3,
    "load_adjustment_interval_seconds": 1,
    "load_stabilisation_seconds": 3,
    "load_idle_seconds": 3,
    "engines": {"agg": {"max_kv_tokens": 10_000, "startup_s": 3}},
}


@pytest.fixture(scope="module")
def running() -> Iterator[None]:
    """Serve, without a proxy; a start of Ray takes half a minute, so all tests have the same."""
    with pytest.MonkeyPatch.context() as patch:
        for source in ("HANDLE", "REPLICA"):
            patch.setenv(f"RAY_SERVE_{source}_AUTOSCALING_METRIC_PUSH_INTERVAL_S", "0.5")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        ray.init(num_cpus=2, include_dashboard=False, _node_ip_address="127.0.0.1", logging_level="ERROR")
        try:
            serve.start(proxy_location="Disabled")
            yield
        finally:
            serve.shutdown()
            ray.shutdown()


class Engine:
    """Answers when it is told to."""

    def __init__(self) -> None:
        self.done = asyncio.Event()

    async def __call__(self) -> None:
        await asyncio.wait_for(self.done.wait(), 600)


class ReportingEngine(Engine):
    """Says itself what it holds."""

    def __init__(self) -> None:
        super().__init__()
        self.num_running = 0

    async def __call__(self) -> None:
        self.num_running += 1
        try:
            await super().__call__()
        finally:
            self.num_running -= 1

    def record_autoscaling_stats(self) -> dict[str, float]:
        return {
            "wall_time_s": 0.02 if self.num_running else 0.0,
            "num_decode": self.num_running,
            "decode_kv_tokens": 1_000 * self.num_running,
        }


def num_replicas() -> int:
    states = serve.status().applications["llm"].deployments["Engine"].replica_states
    return int(states.get("RUNNING", 0))


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + BOUND_S
    while not true():
        assert time.monotonic() < end, serve.status()
        time.sleep(0.2)


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("engine", "tokens_per_request"), [(Engine, 1_000), (ReportingEngine, None)], ids=["requests", "reports"]
)
@pytest.mark.usefixtures("running")
def test_an_application_grows_under_load_and_shrinks_after_it(engine: Any, tokens_per_request: Any) -> None:
    deployment = serve.deployment(
        engine,
        name="Engine",
        ray_actor_options={"num_cpus": 0.1},
        max_ongoing_requests=100,
        graceful_shutdown_timeout_s=1,
        autoscaling_config=autoscaling_config(CONFIG, tokens_per_request=tokens_per_request),
    )
    handle = serve.run(deployment.bind(), name="llm", route_prefix=None)
    assert num_replicas() == 1
    waiting = [handle.remote() for _ in range(40)]  # four times what one engine has room for
    until(lambda: num_replicas() == 3)
    for each in waiting:
        each.cancel()
    until(lambda: num_replicas() == 1)
    serve.delete("llm")
