"""The environment's side: wait for a decision, scale, report it as done."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from types import TracebackType

from planner_adapters.virtual import ledger as ledgers
from planner_adapters.virtual.decision import VirtualDecision
from planner_adapters.virtual.ledger import UnknownDecisionError
from planner_adapters.virtual.store import Store, read, update
from planner_core import Role

LOOK_S = 30.0
"""A waiting client looks for itself this often, whatever the store says."""


class VirtualClient:
    """For a scheduler that is written with asyncio. Its methods raise ``StoreError`` where the store can't be had."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def wait(self, after: int = 0, timeout_s: float | None = None) -> VirtualDecision | None:
        """The newest decision, once its id is greater than ``after``; ``None`` after ``timeout_s`` without one.

        Decisions in between are superseded and never seen. With 0, as after a restart, it is the one in force.
        :class:`UnknownDecisionError` where ``after`` was never made.
        """
        until = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            ledger, version = await read(self._store)
            if ledger.decision_id > after:
                return ledger.latest
            if ledger.decision_id < after:
                raise UnknownDecisionError(
                    f"decision {after} was never made here, the newest is {ledger.decision_id}: "
                    "was the store emptied? begin again with after = 0"
                )
            left = LOOK_S if until is None else until - time.monotonic()
            if left <= 0:
                return None
            await self._store.changed(version, min(left, LOOK_S))

    async def complete(self, decision_id: int) -> None:
        """Says that the decision is carried out: its replicas run. Again changes nothing.

        :class:`UnknownDecisionError` where it was never made.
        """
        await update(self._store, lambda ledger: ledgers.complete(ledger, decision_id))

    async def report(self, running: Mapping[Role, int]) -> None:
        """Says what runs: at the start, where a replica was lost or came by another hand, or half way."""
        await update(self._store, lambda ledger: ledgers.report(ledger, running))

    async def close(self) -> None:
        """Closes the store."""
        await self._store.close()


class BlockingClient:
    """:class:`VirtualClient` for a scheduler without asyncio; use it with ``with``, in one thread."""

    def __init__(self, store: Store) -> None:
        self._client = VirtualClient(store)
        self._runner = asyncio.Runner()

    def wait(self, after: int = 0, timeout_s: float | None = None) -> VirtualDecision | None:
        """:meth:`VirtualClient.wait`."""
        return self._runner.run(self._client.wait(after, timeout_s))

    def complete(self, decision_id: int) -> None:
        """:meth:`VirtualClient.complete`."""
        self._runner.run(self._client.complete(decision_id))

    def report(self, running: Mapping[Role, int]) -> None:
        """:meth:`VirtualClient.report`."""
        self._runner.run(self._client.report(running))

    def close(self) -> None:
        """Closes the store."""
        self._runner.run(self._client.close())
        self._runner.close()

    def __enter__(self) -> BlockingClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
