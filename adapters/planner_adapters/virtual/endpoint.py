"""Decisions over HTTP, so that a scheduler in any language can carry them out.

``GET /decision?after=ID`` waits for the next decision, ``POST /complete`` acknowledges it, ``POST /report`` says what
runs. Whoever calls shows a token; what is sent is small; and nothing but this machine can connect unless asked.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import ssl as tls
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from planner_adapters.virtual.client import VirtualClient
from planner_adapters.virtual.decision import counts_from_wire
from planner_adapters.virtual.extra import require_aiohttp
from planner_adapters.virtual.ledger import UnknownDecisionError
from planner_adapters.virtual.store import Store, StoreError

if TYPE_CHECKING:
    from aiohttp.web import Application, Request, StreamResponse

MOST_BYTES = 4_096
"""Of a request's body."""
MOST_WAITING = 100
MOST_WAIT_S = 60.0
SHORTEST_TOKEN = 16
_MOST_ID = 2**63 - 1


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
    from aiohttp import web

    api = _Api(store, token)
    runner = web.AppRunner(
        _application(api),
        access_log=None,
        handle_signals=False,
        handler_cancellation=True,
        shutdown_timeout=5.0,
    )
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port, ssl_context=ssl)
        await site.start()
        bound_host, bound_port = runner.addresses[0][:2]
        named = f"[{bound_host}]" if ":" in bound_host else bound_host
        yield f"{'https' if ssl else 'http'}://{named}:{bound_port}"
    finally:
        api.stop()
        await runner.cleanup()


def _application(api: _Api) -> Application:
    from aiohttp import web

    @web.middleware
    async def guard(
        request: Request, handler: Callable[[Request], Awaitable[StreamResponse]]
    ) -> StreamResponse:
        """Lets nobody in without the token, and says every error as JSON, in one line."""
        if not api.knows(request.headers.get("Authorization", "")):
            return web.json_response(
                {"error": "needs the header 'Authorization: Bearer TOKEN'"},
                status=401,
                headers={"WWW-Authenticate": "Bearer"},
            )
        try:
            return await handler(request)
        except UnknownDecisionError as error:
            return web.json_response({"error": str(error)}, status=409)
        except ValueError as error:
            return web.json_response({"error": str(error)}, status=400)
        except StoreError as error:
            return web.json_response({"error": str(error)}, status=503, headers={"Retry-After": "1"})
        except web.HTTPException as error:
            headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else None
            return web.json_response({"error": error.reason}, status=error.status, headers=headers)

    application = web.Application(middlewares=[guard], client_max_size=MOST_BYTES)
    application.router.add_get("/decision", api.decision, allow_head=False)
    application.router.add_post("/complete", api.complete)
    application.router.add_post("/report", api.report)
    return application


class _Api:
    """The three calls."""

    def __init__(self, store: Store, token: str) -> None:
        if len(token) < SHORTEST_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
            raise ValueError(
                f"token: must be {SHORTEST_TOKEN} or more printable ASCII characters without spaces, such as "
                "secrets.token_urlsafe() makes"
            )
        self._client = VirtualClient(store)
        self._expected = _digest(f"Bearer {token}")  # the token itself is kept nowhere
        self._waiting: set[asyncio.Timeout] = set()

    def knows(self, authorization: str) -> bool:
        """Whether the header shows the token; takes as long for a wrong one, however wrong."""
        return hmac.compare_digest(_digest(authorization), self._expected)

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

        body = await _object(request)
        decision_id = body.get("decision_id")
        if not isinstance(decision_id, int) or isinstance(decision_id, bool):
            raise ValueError("decision_id must be a whole number")
        await self._client.complete(decision_id)
        return web.Response(status=204)

    async def report(self, request: Request) -> StreamResponse:
        from aiohttp import web

        await self._client.report(counts_from_wire(await _object(request)))
        return web.Response(status=204)


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode(errors="surrogateescape")).digest()


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


async def _object(request: Request) -> dict[str, Any]:
    try:
        body = json.loads(await request.text())
    except (ValueError, RecursionError, LookupError):
        body = None
    if not isinstance(body, dict):
        raise ValueError('the body must be a JSON object, such as {"decision_id": 7}')
    return body
