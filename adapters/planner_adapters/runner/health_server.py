"""``/healthz`` and ``/readyz`` over HTTP, on loopback unless told otherwise.

Two answers to two GETs need no framework: this is the standard library's, so that a planner without a dashboard
installs none. It runs in the planner's own event loop, since a loop that is stuck should not look well.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from planner_adapters.runner.health import Health

PATIENCE_S = 5.0
MAX_REQUEST_BYTES = 8192
MAX_CONNECTIONS = 32


@asynccontextmanager
async def serve_health(health: Health, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[int]:
    """Serves while the block runs, and gives the port (with 0: any that is free). ``OSError`` if it is taken."""
    connections: set[asyncio.Task[None]] = set()

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connections.add(task)
        try:
            if len(connections) <= MAX_CONNECTIONS:
                async with asyncio.timeout(PATIENCE_S):
                    head = await reader.readuntil(b"\r\n\r\n")
                    writer.write(respond(head, health))
                    await writer.drain()
        except (TimeoutError, OSError, EOFError, asyncio.LimitOverrunError):
            pass  # whoever asked so badly gets no answer
        finally:
            connections.discard(task)
            writer.close()

    server = await asyncio.start_server(converse, host, port, limit=MAX_REQUEST_BYTES)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
        await server.wait_closed()


def respond(head: bytes, health: Health) -> bytes:
    """The response to a request's head."""
    method, _, rest = head.split(b"\r\n", 1)[0].partition(b" ")
    path = rest.split(b" ")[0].split(b"?")[0]
    status: str
    body: dict[str, Any]
    views = {b"/healthz": health.alive, b"/readyz": health.ready}
    if method not in (b"GET", b"HEAD"):
        status, body = "405 Method Not Allowed", {"error": "only GET"}
    elif path not in views:
        status, body = "404 Not Found", {"error": "there are /healthz and /readyz"}
    else:
        well, report = views[path]()
        status, body = ("200 OK" if well else "503 Service Unavailable"), {"ok": well, **report}
    content = json.dumps(body).encode() + b"\n"
    headers = (
        f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n"
        "Cache-Control: no-store\r\nConnection: close\r\n\r\n"
    )
    return headers.encode() + (b"" if method == b"HEAD" else content)
