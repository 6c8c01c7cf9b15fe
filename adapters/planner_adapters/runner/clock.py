"""A clock that goes on: it starts from the wall clock once, and is monotonic from then on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol


class Clock(Protocol):
    """What :class:`~planner_adapters.runner.Live` tells the time by, and waits with."""

    def now_s(self) -> float:
        """The time, in seconds."""
        ...

    async def sleep(self, duration_s: float) -> None:
        """Waits so long."""
        ...


class SteadyClock:
    """Seconds since 1970 as of its start, plus what a monotonic clock has counted since.

    Setting the wall clock moves it nowhere. Over a restart it goes on: with ``not_before_s``, the time of the last
    tick, it starts there if the wall clock was set back meanwhile.
    """

    def __init__(
        self,
        *,
        not_before_s: float = 0.0,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._monotonic = monotonic
        self._offset_s = max(wall(), not_before_s) - monotonic()

    def now_s(self) -> float:
        """The time, in seconds."""
        return self._offset_s + self._monotonic()

    async def sleep(self, duration_s: float) -> None:
        """Waits so long, by the event loop's monotonic clock."""
        await asyncio.sleep(duration_s)
