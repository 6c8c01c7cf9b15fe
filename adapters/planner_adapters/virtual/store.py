"""Where a ledger lies: a piece of text with a version, swapped for a new one if nobody else was faster.

Compare-and-swap is all that is asked of a store. Whatever planner, environment and restarts do at the same time,
each change is made to the newest ledger, once.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Protocol

import attrs

from planner_adapters.virtual import ledger as ledgers
from planner_adapters.virtual.ledger import Ledger


class StoreError(Exception):
    """A store that can't be read or written now; one line with what and where."""


@attrs.frozen(kw_only=True)
class Stored:
    """What lies in a store."""

    text: str | None
    """``None``: nothing yet."""
    version: int
    """Changes with every write; 0 where there is nothing."""


class Store(Protocol):
    """A place for one text that several processes change. Its methods raise :class:`StoreError`."""

    async def read(self) -> Stored:
        """The newest text: one that was written before this call began, or later."""
        ...

    async def swap(self, version: int, text: str) -> bool:
        """Writes if the version is still this one. After ``True`` the text outlives a crash of this process.

        After a :class:`StoreError` it may have been written or not.
        """
        ...

    async def changed(self, version: int, timeout_s: float) -> None:
        """Returns soon after the version is another one, after ``timeout_s``, or now and then for no reason."""
        ...

    async def close(self) -> None:
        """Lets go of files and connections."""
        ...


async def read(store: Store) -> tuple[Ledger, int]:
    """The ledger in a store, and its version."""
    stored = await store.read()
    try:
        return ledgers.loads(stored.text), stored.version
    except ValueError as error:
        raise StoreError(f"{store!r} holds something other than decisions: {error}") from None


async def update(store: Store, change: Callable[[Ledger], Ledger]) -> tuple[Ledger, Ledger]:
    """Makes a change to the ledger in a store; returns it before and after. No change, no write."""
    while True:
        before, version = await read(store)
        after = change(before)
        if after == before or await store.swap(version, ledgers.dumps(after)):
            return before, after


class MemoryStore:
    """A store for planner and environment in one process, in one thread or several. Lost with the process."""

    def __init__(self) -> None:
        self._stored = Stored(text=None, version=0)
        self._lock = threading.Lock()
        self._waiting: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()

    async def read(self) -> Stored:
        """The newest text."""
        return self._stored

    async def swap(self, version: int, text: str) -> bool:
        """Writes if the version is still this one."""
        with self._lock:
            if version != self._stored.version:
                return False
            self._stored = Stored(text=text, version=version + 1)
            for loop, event in self._waiting:  # each leaves before its loop closes
                loop.call_soon_threadsafe(event.set)
            return True

    async def changed(self, version: int, timeout_s: float) -> None:
        """Returns when the version is another one, or after ``timeout_s``."""
        waiter = asyncio.get_running_loop(), asyncio.Event()
        with self._lock:
            if version != self._stored.version:
                return
            self._waiting.add(waiter)
        try:
            async with asyncio.timeout(timeout_s):
                await waiter[1].wait()
        except TimeoutError:
            pass
        finally:
            with self._lock:
                self._waiting.discard(waiter)

    async def close(self) -> None:
        """Nothing to let go of: what is in it stays."""
