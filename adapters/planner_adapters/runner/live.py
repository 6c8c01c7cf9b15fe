"""A connector and its sources as one environment: asked together, each with a time limit, and none for another.

A source that raises, hangs or has nothing is unknown at this tick: left out, never zero. What went wrong and since when
is kept in :attr:`Live.faults`.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Coroutine
from typing import Any, TypeVar, cast

import attrs

from planner_adapters.environment import (
    Connector,
    LatencySource,
    Measured,
    NotScaled,
    Order,
    PassSource,
    TrafficSource,
    Unobserved,
)
from planner_adapters.runner.clock import Clock, SteadyClock
from planner_adapters.runner.logs import log, logfmt
from planner_core import NextTick

T = TypeVar("T")
_NUMBER = re.compile(r"\d+")


@attrs.frozen(kw_only=True)
class TimeLimits:
    """How long each part may take."""

    workers_s: float = 4.0
    traffic_s: float = 4.0
    passes_s: float = 4.0
    scale_s: float = 20.0
    close_s: float = 5.0


@attrs.frozen(kw_only=True)
class Fault:
    """What a part has been failing with."""

    error: str
    """One line."""
    since_s: float
    """By the clock of :class:`Live`."""


class Live:
    """The environment of a deployment that runs somewhere."""

    def __init__(
        self,
        connector: Connector,
        traffic: TrafficSource | None = None,
        passes: PassSource | None = None,
        *,
        clock: Clock | None = None,
        limits: TimeLimits | None = None,
    ) -> None:
        self._connector, self._traffic, self._passes = connector, traffic, passes
        self._clock: Clock = clock or SteadyClock()
        self._limits = limits or TimeLimits()
        self._now_s: float | None = None
        self._stuck: dict[str, asyncio.Task[Any]] = {}
        self.faults: dict[str, Fault] = {}
        """What fails at present, by name: ``workers``, ``traffic``, ``fpm``, ``latencies``, ``scale``."""

    async def wait_until(self, at_s: float) -> float:
        """Sleeps by the monotonic clock. A clock that was set back isn't waited for: the time is told at once."""
        now_s = self._clock.now_s()
        if now_s < at_s and (self._now_s is None or now_s >= self._now_s):
            await self._clock.sleep(at_s - now_s)
            now_s = self._clock.now_s()
        self._now_s = now_s
        return now_s

    async def observe(self, upcoming: NextTick) -> Measured:
        """All sources at once."""
        limits = self._limits
        asks: dict[str, Coroutine[Any, Any, Any]] = {}
        if "workers" in upcoming.needs:
            asks["workers"] = self._ask("workers", self._connector.workers(), limits.workers_s)
        if "fpm" in upcoming.needs and self._passes is not None:
            asks["fpm"] = self._ask("fpm", self._passes.passes(), limits.passes_s)
        if "traffic" in upcoming.needs and self._traffic is not None:
            # A tick that came late asks for as much more; after an outage, the time before it says little of now.
            late_s = max(0.0, self._clock.now_s() - upcoming.at_s)
            window_s = upcoming.traffic_window_s + min(late_s, upcoming.traffic_window_s)
            asks["traffic"] = self._ask("traffic", self._traffic.traffic(window_s), limits.traffic_s)
            if isinstance(self._traffic, LatencySource):
                asks["observed"] = self._ask("latencies", self._traffic.latencies(window_s), limits.traffic_s)
        answers = zip(asks, await asyncio.gather(*asks.values()), strict=True)
        measured: Any = {name: answer for name, answer in answers if answer is not None}
        return cast("Measured", measured)

    async def scale(self, order: Order) -> None:
        """Passes the order on. :class:`~planner_adapters.environment.NotScaled` if that fails or takes too long."""
        try:
            await self._limited("scale", self._connector.scale(order), self._limits.scale_s)
        except Exception as error:  # a connector may be anybody's, and the loop goes on
            self._note("scale", error)
            raise NotScaled(self.faults["scale"].error) from error
        self._well("scale")

    async def close(self) -> None:
        """Closes the connector and the sources, whatever the others say."""
        for task in self._stuck.values():
            task.cancel()
        parts = {"connector": self._connector, "traffic": self._traffic, "fpm": self._passes}
        closing = [
            self._ask(f"closing {name}", part.close(), self._limits.close_s)
            for name, part in parts.items()
            if part is not None
        ]
        await asyncio.gather(*closing)

    async def _ask(self, name: str, question: Coroutine[Any, Any, T], limit_s: float) -> T | None:
        """The answer; ``None`` if there is none."""
        try:
            answer = await self._limited(name, question, limit_s)
        except Exception as error:  # noqa: BLE001  # a source may be anybody's, and one must not blind the others
            self._note(name, error)
            return None
        self._well(name)
        return answer

    async def _limited(self, name: str, question: Coroutine[Any, Any, T], limit_s: float) -> T:
        """The answer within the limit. One that doesn't even heed its cancellation isn't asked a second time."""
        stuck = self._stuck.get(name)
        if stuck is not None and not stuck.done():
            question.close()
            raise Unobserved("has not come back from an earlier call")
        self._stuck.pop(name, None)
        task = asyncio.ensure_future(question)
        try:
            await asyncio.wait({task}, timeout=limit_s)
        finally:
            if not task.done():
                task.cancel()
                task.add_done_callback(_forget)
                self._stuck[name] = task
        if not task.done():
            raise Unobserved(f"no answer within {limit_s:g} s")
        if task.cancelled():
            raise Unobserved("was cancelled from inside")
        return task.result()

    def _well(self, name: str) -> None:
        fault = self.faults.pop(name, None)
        if fault is not None:
            log.info(logfmt("recovered", part=name, after_s=self._clock.now_s() - fault.since_s))

    def _note(self, name: str, error: Exception) -> None:
        known = isinstance(error, (Unobserved, NotScaled))
        text = " ".join((str(error) if known else f"{type(error).__name__}: {error}").split())
        before = self.faults.get(name)
        if before is None or _NUMBER.sub("", before.error) != _NUMBER.sub("", text):  # an age is no news
            log.warning(logfmt("fault", part=name, error=text))
        since_s = self._clock.now_s() if before is None else before.since_s
        self.faults[name] = Fault(error=text, since_s=since_s)


def _forget(task: asyncio.Task[Any]) -> None:
    """Takes the result of a call that nobody waits for any more, so that its error isn't reported as lost."""
    if not task.cancelled():
        task.exception()
