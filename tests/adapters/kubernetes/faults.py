"""A reverse proxy before the API server that injects faults: plain HTTP in, TLS out, one request per connection."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from urllib.parse import urlsplit

Fault = Callable[[str, str], "bytes | str | None"]
"""Method and path → the bytes to answer, ``hang``, ``cut``, a path to ask instead, or ``None``: the server answers."""


class Proxy:
    def __init__(self, server: str) -> None:
        self._to = urlsplit(server)
        self._tls = ssl.create_default_context()
        self._tls.check_hostname, self._tls.verify_mode = False, ssl.CERT_NONE
        self._open: dict[asyncio.Task[None], socket.socket] = {}
        self._port = 0
        self.fault: Fault = lambda method, path: None
        self.requests: list[tuple[str, str]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    async def start(self) -> None:
        """Listens, after the first time on the same port again."""
        self._socket = socket.create_server(("127.0.0.1", self._port), backlog=128)
        self._socket.setblocking(False)
        self._port = self._socket.getsockname()[1]
        asyncio.get_running_loop().add_reader(self._socket, self._accept)

    async def stop(self) -> None:
        """Refuses connections, and cuts those that are open, as a server that goes down."""
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()
        await self.cut()

    async def cut(self) -> None:
        """Cuts all open connections, watches above all."""
        cut = self.tasks
        for task in cut:
            task.cancel()
        await asyncio.gather(*cut, return_exceptions=True)

    @property
    def tasks(self) -> set[asyncio.Task[None]]:
        return set(self._open)

    def count(self, method: str, part: str) -> int:
        return sum(method == done and part in path for done, path in self.requests)

    def _accept(self) -> None:
        # By hand, since asyncio.Server loses a connection that comes while it closes (Python 3.11).
        with suppress(BlockingIOError):
            connection, _ = self._socket.accept()
            task = asyncio.create_task(self._serve(connection))
            self._open[task] = connection
            task.add_done_callback(lambda done: self._open.pop(done).close())

    async def _serve(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=connection)
        upstream = None
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                head = await reader.readuntil(b"\r\n\r\n")
                method, path = head.split(b" ", 2)[:2]
                self.requests.append((method.decode(), path.decode()))
                answer = self.fault(method.decode(), path.decode())
                lines = [line for line in head.split(b"\r\n") if line]
                fields = {
                    key.lower(): value for key, _, value in (line.partition(b": ") for line in lines[1:])
                }
                body = await reader.readexactly(int(fields.get(b"content-length", b"0")))
                if answer == "hang":
                    await asyncio.Event().wait()
                elif isinstance(answer, bytes):
                    writer.write(answer)
                    await writer.drain()
                elif answer is None or answer.startswith("/"):
                    assert self._to.port is not None
                    back, upstream = await asyncio.open_connection("127.0.0.1", self._to.port, ssl=self._tls)
                    if answer is not None:
                        lines[0] = lines[0].replace(path, answer.encode())
                    kept = [
                        line
                        for line in lines
                        if not line.lower().startswith((b"connection:", b"accept-encoding:"))
                    ]
                    upstream.write(b"\r\n".join([*kept, b"Connection: close", b"", body]))
                    while chunk := await back.read(65536):
                        writer.write(chunk)
                        await writer.drain()
        finally:
            for each in (writer, upstream):
                if each is not None:
                    await _closed(each)


async def _closed(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


def answer(code: int, message: str = "injected", **headers: str) -> bytes:
    """An error as the API server sends it."""
    status = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "code": code,
    }
    return _response(code, json.dumps(status).encode(), headers)


def watch_error(code: int) -> bytes:
    """A watch that ends with an error event, as one does that is too old."""
    status = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": "too old",
        "code": code,
    }
    return _response(200, json.dumps({"type": "ERROR", "object": status}).encode() + b"\n", {})


def _response(code: int, body: bytes, headers: dict[str, str]) -> bytes:
    more = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    head = f"HTTP/1.1 {code} X\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n{more}"
    return (head + "Connection: close\r\n\r\n").encode() + body
