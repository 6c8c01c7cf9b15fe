"""What waits to be sent to one browser: little, however slow it is."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

MOST_WAITING = 32
HEARTBEAT_S = 15.0
HEARTBEAT = b": still here\n\n"


class Client:
    """Events for one browser, oldest first. One that falls behind loses them, and begins anew from a snapshot."""

    def __init__(self) -> None:
        self._events: deque[bytes] = deque()
        self._begins_anew = True
        self._news = asyncio.Event()
        self._news.set()

    def __len__(self) -> int:
        return len(self._events)

    def put(self, event: bytes) -> None:
        """Queues an event; never waits."""
        if self._begins_anew:
            return
        if len(self._events) == MOST_WAITING:
            self.begin_anew()
            return
        self._events.append(event)
        self._news.set()

    def begin_anew(self) -> None:
        """Drops what waits: a snapshot, which knows all of it, is sent next."""
        self._events.clear()
        self._begins_anew = True
        self._news.set()

    async def next_event(self, snapshot: Callable[[], Awaitable[bytes]]) -> bytes:
        """What to send next, as soon as there is something; after a while without, a heartbeat."""
        try:
            async with asyncio.timeout(HEARTBEAT_S):
                await self._news.wait()
        except TimeoutError:
            return HEARTBEAT
        if self._begins_anew:
            # from here on ticks are queued behind the snapshot, which snapshot() begins before it lets anybody else run
            self._begins_anew = False
            self._news.clear()
            return await snapshot()
        event = self._events.popleft()
        if not self._events:
            self._news.clear()
        return event
