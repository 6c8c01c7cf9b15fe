"""Decisions over HTTP, so that a scheduler in any language can carry them out.

``GET /decision?after=ID`` waits for the next decision, ``POST /complete`` acknowledges it, ``POST /report`` says what
runs. Whoever calls shows a token; what is sent is small; and nothing but this machine can connect unless asked.
"""

from __future__ import annotations

import asyncio
import ssl as tls
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from planner_adapters.guarded_http import Tokens, application, json_object, serving
from planner_adapters.virtual.client import VirtualClient
from planner_adapters.virtual.decision import counts_from_wire
from planner_adapters.virtual.extra import require_aiohttp
from planner_adapters.virtual.ledger import UnknownDecisionError
from planner_adapters.virtual.store import Store, StoreError

if TYPE_CHECKING:
    from aiohttp.web import Request, StreamResponse

MOST_WAITING = 100
MOST_WAIT_S = 60.0
_MOST_ID = 2**63 - 1
_EXAMPLE = '{"decision_id": 7}'


@asynccontextmanager
async def serve(
    store: Store,
    *,
    token: str,
    host: str = "127.0.0.1",
    port: int = 0,
    ssl: tls.SSLContext | None = None,
) -> AsyncIterator[str]:
    """Serves the decisions in ``store`` while it is open, and gives its address, such as ``http://127.0.0.1:8125``.

    ``token`` is what callers send as ``Authorization: Bearer …``: 16 characters or more. Port 0 is any free one. With
    a ``host`` beyond loopback give ``ssl`` too, since a token in the clear is no secret. ``OSError`` where the
    address is taken.
    """
    require_aiohttp()
    api = _Api(store)
    served = application(Tokens({"environment": token}), {UnknownDecisionError: 409, StoreError: 503})
    served.router.add_get("/decision", api.decision, allow_head=False)
    served.router.add_post("/complete", api.complete)
    served.router.add_post("/report", api.report)
    async with serving(served, host, port, ssl, at_end=api.stop) as url:
        yield url


class _Api:
    """The three calls."""

    def __init__(self, store: Store) -> None:
        self._client = VirtualClient(store)
        self._waiting: set[asyncio.Timeout] = set()

    def stop(self) -> None:
        """Ends every wait."""
        for deadline in self._waiting:
            if not deadline.expired():
                deadline.reschedule(0.0)

    async def decision(self, request: Request) -> StreamResponse:
        from aiohttp import web

        after = _whole(request.query.get("after", "0"), "after")
        timeout_s = _seconds(request.query.get("timeout_s", "30"), "timeout_s")
        if len(self._waiting) >= MOST_WAITING:
            return web.json_response(
                {"error": f"{MOST_WAITING} callers wait already"}, status=503, headers={"Retry-After": "1"}
            )
        decision = None
        deadline = asyncio.timeout(None)  # reached when the endpoint stops
        try:
            async with deadline:
                self._waiting.add(deadline)
                decision = await self._client.wait(after, timeout_s)
        except TimeoutError:
            pass
        finally:
            self._waiting.discard(deadline)
        return web.Response(status=204) if decision is None else web.json_response(decision.to_wire())

    async def complete(self, request: Request) -> StreamResponse:
        from aiohttp import web

        body = await json_object(request, _EXAMPLE)
        decision_id = body.get("decision_id")
        if not isinstance(decision_id, int) or isinstance(decision_id, bool):
            raise ValueError("decision_id must be a whole number")
        await self._client.complete(decision_id)
        return web.Response(status=204)

    async def report(self, request: Request) -> StreamResponse:
        from aiohttp import web

        await self._client.report(counts_from_wire(await json_object(request, _EXAMPLE)))
        return web.Response(status=204)


def _whole(text: str, name: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 19 and int(text) <= _MOST_ID):
        raise ValueError(f"{name} must be a whole number of at least 0")
    return int(text)


def _seconds(text: str, name: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= MOST_WAIT_S:
        raise ValueError(f"{name} must be a number of seconds from 0 to {MOST_WAIT_S:g}")
    return value
