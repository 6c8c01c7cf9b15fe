"""The planner's side: replicas as the environment reports them, and decisions for it to carry out."""

from __future__ import annotations

import time
from collections.abc import Callable

from planner_adapters.config_file import namespace_of
from planner_adapters.environment import NotScaled, Order, Unobserved
from planner_adapters.virtual import ledger as ledgers
from planner_adapters.virtual.address import store_of_environment
from planner_adapters.virtual.store import Store, StoreError, read, update
from planner_core import PlannerConfig, Role, WorkerCounts

TIMEOUT_S = 1_800.0
"""How long the planner counts on a decision that nobody acknowledges."""


def connect(
    config: PlannerConfig,
    store: Store | None = None,
    *,
    timeout_s: float = TIMEOUT_S,
    clock: Callable[[], float] = time.time,
) -> Virtual:
    """The connector of a deployment whose environment reads its decisions from ``store``.

    Without one, it is that which ``PLANNER_VIRTUAL_STORE`` names, an address as of ``open_store``, under the
    namespace of the configuration, else ``dynamo``; :class:`~planner_core.ConfigError` where it names none. ``clock``
    gives seconds that go on over restarts of the planner; only the planner reads it.
    """
    if store is None:
        store = store_of_environment(namespace_of(config))
    return Virtual(tuple(config.engines), store, timeout_s=timeout_s, clock=clock)


class Virtual:
    """Replicas in an environment that somebody else runs. Keeps nothing to itself: all of it is in the store."""

    def __init__(
        self, roles: tuple[Role, ...], store: Store, *, timeout_s: float, clock: Callable[[], float]
    ) -> None:
        self._roles = roles
        self._store = store
        self._timeout_s = timeout_s
        self._clock = clock

    async def workers(self) -> dict[Role, WorkerCounts]:
        """What the environment says it runs, and what it has been asked to start, with ages.

        Roles that it hasn't spoken of are left out; ``Unobserved`` where that leaves none.
        """
        try:
            ledger, _ = await read(self._store)
        except StoreError as error:
            raise Unobserved(f"replica counts: {error}") from None
        counts = ledgers.worker_counts(ledger, now_s=self._clock(), timeout_s=self._timeout_s)
        known = {role: counts[role] for role in self._roles if role in counts}
        if not known:
            others = f", only of {', '.join(counts)}" if counts else ""
            raise Unobserved(
                f"replica counts: the environment behind {self._store!r} hasn't spoken of "
                f"{' and '.join(self._roles)} yet{others}: let it report what it runs when it starts"
            )
        return known

    async def scale(self, order: Order) -> None:
        """Writes a decision, unless the same replicas are asked for already, or run and nothing else is asked for.

        ``NotScaled`` where the store can't be written, and where this decision replaces one that wasn't
        acknowledged in time.
        """
        now_s = self._clock()
        replicas = {role: count for role, count in order.replicas.items() if role in self._roles}
        try:
            before, after = await update(
                self._store,
                lambda ledger: ledgers.decide(
                    ledger, replicas, order.drain, now_s=now_s, timeout_s=self._timeout_s
                ),
            )
        except StoreError as error:
            raise NotScaled(f"it isn't known whether the decision was written: {error}") from None
        if before.overdue(now_s, self._timeout_s):
            raise NotScaled(
                f"decision {before.decision_id} wasn't acknowledged within {self._timeout_s:g} s and is given up; "
                f"decision {after.decision_id} replaces it: is the environment running, and does it complete "
                "what it carries out?"
            )

    async def close(self) -> None:
        """Closes the store."""
        await self._store.close()
