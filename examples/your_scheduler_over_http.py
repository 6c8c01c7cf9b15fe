"""A scheduler of your own, told over HTTP how many engines to run: the planner decides, you start and stop them.

Run it with `python examples/your_scheduler_over_http.py`; it needs `pip install '.[virtual]'`. Both sides
run here, the scheduler in a thread; it uses nothing but HTTP, so that yours may be written in any language.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import threading
import urllib.request
from typing import Any

import attrs

from planner_adapters.virtual import MemoryStore, connect, serve
from planner_core import ForwardPassMetrics, PlannerConfig, Role, TickInput, first_tick, initial_state, tick

ENGINES = {"prefill": {"context_length": 8_192}, "decode": {"max_kv_tokens": 400_000}}
CONFIG = PlannerConfig.from_mapping({"mode": "disagg", "max_gpu_budget": 12, "engines": ENGINES})


@attrs.frozen
class Order:
    """What a connector carries out, where it comes from no tick."""

    replicas: dict[Role, int]
    drain: dict[Role, tuple[str, ...]] = attrs.field(factory=dict)
    next_tick: Any = None


class Scheduler(threading.Thread):
    """The environment's side: waits for a decision, carries it out, says so. Knows nothing of the planner."""

    def __init__(self, url: str, token: str) -> None:
        super().__init__()
        self.url, self.token = url, token
        self.running = {"num_prefill": 1, "num_decode": 1}

    def call(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any] | None:
        """GET without a body, POST with one; what comes back, or None."""
        request = urllib.request.Request(  # noqa: S310  # the address is the endpoint's own
            f"{self.url}/{path}",
            None if body is None else json.dumps(body).encode(),
            {"Authorization": f"Bearer {self.token}"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
            text = answer.read()
        return dict(json.loads(text)) if text else None

    def run(self) -> None:
        """Until it is told to run nothing."""
        self.call("report", self.running)
        after = 0
        while any(self.running.values()):
            decision = self.call(f"decision?after={after}&timeout_s=30")
            if decision is None:  # nothing new in 30 s: wait on
                continue
            after = decision["decision_id"]
            for name in self.running:
                # Here yours starts and stops engines, those that `drain` names first.
                self.running[name] = decision.get(name, self.running[name])
            self.call("complete", {"decision_id": after})


def passes(role: Role, num_engines: int, queued_tokens: int, kv_tokens: int) -> list[ForwardPassMetrics]:
    """What each engine reports: a queue of prompts, or a KV cache in use."""
    load = {
        Role.PREFILL: {"num_prefill": 1, "prefill_tokens": 4_096, "queued_prefill_tokens": queued_tokens},
        Role.DECODE: {"num_decode": 50, "decode_kv_tokens": kv_tokens},
    }[role]
    return [
        ForwardPassMetrics(worker_id=f"{role}-{n}", wall_time_s=0.05, **load)  # type: ignore[arg-type]
        for n in range(num_engines)
    ]


async def main() -> None:
    """Five ticks of a load that comes, with a clock of its own so that nobody has to wait."""
    store, token = MemoryStore(), secrets.token_urlsafe()
    connector = connect(CONFIG, store)
    state, upcoming = initial_state(CONFIG, now_s=0.0), first_tick(CONFIG, now_s=0.0)
    async with serve(store, token=token) as url:
        scheduler = Scheduler(url, token)
        version = (await store.read()).version
        scheduler.start()
        await store.changed(version, timeout_s=30.0)  # it reports what it runs
        for queued_tokens, kv_tokens in ((0, 240_000), (20_000, 300_000), (9_000, 450_000), (0, 380_000)):
            workers = await connector.workers()
            fpm = {
                role: passes(role, counts.ready, queued_tokens, kv_tokens) for role, counts in workers.items()
            }
            decision = tick(
                TickInput(config=CONFIG, state=state, now_s=upcoming.at_s, workers=workers, fpm=fpm)
            )
            print(f"at {upcoming.at_s:g} s")
            for explanation in decision.explanations.values():
                print(" ", explanation.sentence())
            await connector.scale(decision)
            state, upcoming = decision.state, decision.next_tick
            await carried_out(connector)
        await connector.scale(Order(dict.fromkeys(CONFIG.engines, 0)))  # which ends the scheduler
        await asyncio.to_thread(scheduler.join)


async def carried_out(connector: Any) -> None:
    """Waits for the scheduler; a planner in earnest ticks on meanwhile, and counts what is starting."""
    while any(counts.ready != counts.expected for counts in (await connector.workers()).values()):
        await asyncio.sleep(0.01)


asyncio.run(main())
