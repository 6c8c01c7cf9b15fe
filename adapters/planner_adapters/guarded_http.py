"""An HTTP endpoint that only callers with a token get into, for the shells that others talk to.

What is sent is small, every error is JSON in one line, and nothing but this machine can connect unless asked.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import ssl as tls
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aiohttp.web import Application, Request, StreamResponse

MOST_BYTES = 4_096
"""Of a request's body."""
SHORTEST_TOKEN = 16
SILENT_S = 60.0
"""A connection that brings no request for so long is closed; aiohttp by itself waits for an hour."""


class Tokens:
    """Whose tokens let them in. The tokens themselves are kept nowhere."""

    def __init__(self, tokens: Mapping[str, str]) -> None:
        """``tokens`` by caller; ``ValueError`` for one that is easily guessed or fits no header."""
        for token in tokens.values():
            if len(token) < SHORTEST_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
                raise ValueError(
                    f"token: must be {SHORTEST_TOKEN} or more printable ASCII characters without spaces, such as "
                    "secrets.token_urlsafe() makes"
                )
        self._expected = {caller: _digest(f"Bearer {token}") for caller, token in tokens.items()}

    def caller(self, request: Request) -> str | None:
        """Whose token the request shows, if anybody's; takes as long for a wrong one, however wrong."""
        shown, found = _digest(request.headers.get("Authorization", "")), None
        for caller, expected in self._expected.items():
            if hmac.compare_digest(shown, expected):
                found = caller
        return found


def application(
    tokens: Tokens, statuses: Mapping[type[Exception], int], *, most_bytes: int = MOST_BYTES
) -> Application:
    """An application without routes yet, that answers nobody without a token and takes bodies of ``most_bytes``.

    ``statuses`` of what handlers raise, with the message as the answer; any other ``ValueError`` is 400.
    """
    from aiohttp import web

    errors: tuple[type[Exception], ...] = (ValueError, *statuses)

    @web.middleware
    async def guard(
        request: Request, handler: Callable[[Request], Awaitable[StreamResponse]]
    ) -> StreamResponse:
        """Lets nobody in without a token, and says every error as JSON, in one line."""
        if tokens.caller(request) is None:
            return web.json_response(
                {"error": "needs the header 'Authorization: Bearer TOKEN'"},
                status=401,
                headers={"WWW-Authenticate": "Bearer"},
            )
        try:
            return await handler(request)
        except web.HTTPException as error:
            allow = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else None
            return web.json_response({"error": error.reason}, status=error.status, headers=allow)
        except errors as error:
            status = next((code for kind, code in statuses.items() if isinstance(error, kind)), 400)
            later = {"Retry-After": "1"} if status == 503 else None
            return web.json_response({"error": str(error)}, status=status, headers=later)

    return web.Application(middlewares=[guard], client_max_size=most_bytes)


@asynccontextmanager
async def serving(
    served: Application,
    host: str,
    port: int,
    ssl: tls.SSLContext | None,
    *,
    at_end: Callable[[], None] = lambda: None,
) -> AsyncIterator[str]:
    """Serves while it is open, and gives its address, such as ``http://127.0.0.1:8125``; ``at_end`` is called first."""
    from aiohttp import web

    runner = web.AppRunner(
        served,
        access_log=None,
        handle_signals=False,
        handler_cancellation=True,
        keepalive_timeout=SILENT_S,
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
        at_end()
        await runner.cleanup()


async def json_object(request: Request, example: str) -> dict[str, Any]:
    """The body; ``ValueError`` if it is no JSON object such as ``example``."""
    try:
        body = json.loads(await request.text())
    except (ValueError, RecursionError, LookupError):
        body = None
    if not isinstance(body, dict):
        raise ValueError(f"the body must be a JSON object, such as {example}")
    return body


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode(errors="surrogateescape")).digest()
