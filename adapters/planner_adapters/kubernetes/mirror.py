"""Objects of one kind as the API server has them: listed once, kept fresh by a watch, listed anew now and then.

A watch is opened anew every ``REWATCH_S``, after a request that shows that the server answers, so that neither a dead
connection nor a server that hangs is taken for a quiet one. Everything is listed anew every ``RESYNC_S``, or when the
server has forgotten where the watch was (410). What can't be kept fresh is said to be unknown after ``GRACE_S``; it is
never taken for empty.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Any

from planner_adapters.environment import Unobserved
from planner_adapters.kubernetes.api import Api, RequestFailedError
from planner_adapters.kubernetes.kinds import Kind, Object, resource_name
from planner_adapters.kubernetes.selectors import Selector

REWATCH_S = 30.0
RESYNC_S = 300.0
GRACE_S = 10.0
FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 5.0


class RefusedError(Unobserved):
    """The cluster answers, and the answer is no: a right or an object is missing. Waiting alone doesn't help."""


class Mirror:
    """A live copy of some objects.

    ``changes`` wakes whoever waits for it when the objects change, or what is known about them. ``clock`` counts
    seconds, of any clock that goes on.
    """

    def __init__(
        self,
        api: Api,
        kind: Kind,
        namespace: str,
        *,
        labels: Mapping[str, str] | None = None,
        fields: Mapping[str, str] | None = None,
        changes: asyncio.Event,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        rewatch_s: float = REWATCH_S,
    ) -> None:
        self._what = (kind, namespace, labels, fields)
        self._name = f"{resource_name(kind)} in namespace {namespace!r}"
        self._api, self._clock, self._sleep, self._rewatch_s = api, clock, sleep, rewatch_s
        self._objects: dict[str, Object] = {}
        self._by_selector: dict[Selector, dict[str, Object]] = {}
        self._changes = changes
        self._synced = False
        self._trouble: tuple[RequestFailedError, float] | None = None
        self._task = asyncio.create_task(self._keep_fresh())
        self._task.add_done_callback(lambda _: self._tell())

    def objects(self) -> Mapping[str, Object]:
        """By name. :class:`Unobserved` while they aren't known."""
        self._check()
        return self._objects

    def selected(self, selector: Selector) -> list[Object]:
        """Those that a selector matches; quick however many there are. :class:`Unobserved` likewise."""
        self._check()
        if selector not in self._by_selector:
            self._by_selector[selector] = {
                name: found for name, found in self._objects.items() if selector.matches(_labels(found))
            }
        return list(self._by_selector[selector].values())

    async def synced(self) -> None:
        """Returns when the objects are known; :class:`Unobserved` with the first trouble in the way."""
        while not self._synced and self._trouble is None and not self._task.done():
            await self._changes.wait()
        self._check()

    async def close(self) -> None:
        """Stops watching."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def _check(self) -> None:
        if self._task.done():
            self._task.result()  # a mistake of ours is raised, not waited for
        if self._trouble is not None:
            failure, since_s = self._trouble
            for_s = self._clock() - since_s
            if not self._synced or for_s > GRACE_S:
                refused = failure.code is not None and 400 <= failure.code < 500 and failure.code != 429
                error = RefusedError if refused else Unobserved
                raise error(f"Kubernetes: {self._name} not known for {for_s:.0f} s: {failure}")
        elif not self._synced:
            raise Unobserved(f"Kubernetes: {self._name} not listed yet")

    # Keeping fresh

    async def _keep_fresh(self) -> None:
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                items, version = await self._api.list(*self._what)
                self._replace(items)
                pause_s = FIRST_PAUSE_S
                await self._follow(version)
            except RequestFailedError as failure:
                if failure.code == 410:  # what has happened meanwhile is in the next list
                    await self._sleep(FIRST_PAUSE_S)
                    continue
                since_s = self._trouble[1] if self._trouble else self._clock()
                self._trouble = (failure, since_s)
                self._tell()
                await self._sleep(pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def _follow(self, version: str) -> None:
        resync_at_s = self._clock() + RESYNC_S
        while self._clock() < resync_at_s:
            try:
                async with (
                    asyncio.timeout(self._rewatch_s),
                    aclosing(self._api.watch(*self._what, version)) as seen,
                ):
                    async for event, item in seen:
                        version = item["metadata"]["resourceVersion"]
                        self._apply(event, item)
            except TimeoutError:
                await self._api.touch(*self._what)

    def _replace(self, items: list[Object]) -> None:
        self._objects = {item["metadata"]["name"]: item for item in items}
        self._by_selector.clear()
        self._synced, self._trouble = True, None
        self._tell()

    def _apply(self, event: str, item: Object) -> None:
        name = item["metadata"]["name"]
        if event == "DELETED":
            self._objects.pop(name, None)
        elif event in ("ADDED", "MODIFIED"):
            self._objects[name] = item
        else:
            return
        labels = _labels(item)
        for selector, found in self._by_selector.items():
            if event != "DELETED" and selector.matches(labels):
                found[name] = item
            else:
                found.pop(name, None)
        self._tell()

    def _tell(self) -> None:
        self._changes.set()
        self._changes.clear()


def _labels(item: Object) -> dict[str, Any]:
    return item["metadata"].get("labels") or {}
