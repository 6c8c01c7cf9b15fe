"""The dashboard's server: one page, and a stream of events per browser that is never waited for.

It has a thread with an event loop of its own, and what has been seen belongs to that thread: the planner's loop hands
ticks over, and pays neither for what is made of them nor for what is sent.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import ipaddress
import json
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from types import TracebackType
from typing import Any

from planner_adapters import guarded_http
from planner_adapters.dashboard.client import Client
from planner_adapters.report.builder import Added, SeriesBuilder
from planner_adapters.report.page import (
    changes_of,
    data_of,
    lanes_of,
    live_page,
    now_of,
    page_js,
    part,
    plotly_js,
)
from planner_core import Decision, MissingExtraError, PlannerConfig, TickInput

try:
    from aiohttp import web
except ImportError:
    raise MissingExtraError("a dashboard needs aiohttp: pip install 'planner-core[dashboard]'") from None

USUAL_HOURS = 24.0
"""How far back the page looks where no ``report_interval_hours`` says it."""
MOST_CLIENTS = 100
TICKS_BETWEEN_SNAPSHOTS = 720
"""After so many ticks every page begins anew, so that it doesn't grow for ever."""
CHUNK_BYTES = 1 << 16
STUCK_S = 60.0
"""A browser that takes no more bytes for so long is let go."""
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
LIVE = '<p id="link"></p>\n'

Health = Callable[[], tuple[bool, Mapping[str, Any]]]


class Dashboard:
    """Serves what has been seen of a run; of the last ``report_interval_hours``, or 24.

    ``async with Dashboard(config, port=8080) as dashboard:`` serves while the block runs (port 0: any free one;
    ``OSError`` if it is taken), to this machine alone unless ``host`` says otherwise. :meth:`update` is for the loop.
    ``health`` gives problems to show, as :meth:`planner_adapters.runner.Health.ready` does; it is asked in the loop of
    the block.
    """

    def __init__(
        self, config: PlannerConfig, *, port: int, host: str = "127.0.0.1", health: Health | None = None
    ) -> None:
        self._builder = SeriesBuilder(keep_s=3600 * (config.shell.report_interval_hours or USUAL_HOURS))
        self._asked_port, self._host, self._health = port, host, health
        self._home: asyncio.AbstractEventLoop | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._clients: set[Client] = set()
        self._streams: set[asyncio.Task[Any]] = set()
        self._runner: web.AppRunner | None = None
        self._files: dict[str, tuple[str, bytes]] = {}
        self._num_ticks = 0
        self._ticked_s: float | None = None
        self._snapshot: tuple[int, asyncio.Task[bytes]] | None = None

    @property
    def port(self) -> int:
        """Where it listens; 0 before it does."""
        return int(self._runner.addresses[0][1]) if self._runner is not None and self._runner.addresses else 0

    @property
    def num_clients(self) -> int:
        """Browsers that are connected."""
        return len(self._clients)

    @property
    def num_waiting(self) -> int:
        """Events that wait to be sent, over all browsers."""
        return sum(map(len, list(self._clients)))

    def update(self, inputs: TickInput, decision: Decision) -> None:
        """Shows a tick. Never waits, and costs as much with a hundred browsers as with none."""
        if self._loop is None:
            self._take(inputs, decision, self._problems())
        else:
            with suppress(RuntimeError):  # it has ended
                self._loop.call_soon_threadsafe(self._take, inputs, decision, self._problems())

    def _problems(self) -> list[str]:
        report = {} if self._health is None else self._health()[1]
        return [f"{name}: {problem}" for name, problem in report.get("problems", {}).items()]

    # From here on in the server's thread

    def _take(self, inputs: TickInput, decision: Decision, problems: list[str]) -> None:
        before = self._builder.last
        added = self._builder.add(inputs, decision)
        if added is None:
            return
        self._num_ticks += 1
        self._ticked_s = time.monotonic()
        is_news = before is None or before[0].config != inputs.config
        if is_news or self._num_ticks % TICKS_BETWEEN_SNAPSHOTS == 0:
            for client in self._clients:
                client.begin_anew()
        elif self._clients:
            event = _event("tick", self._tick(added, problems))
            for client in self._clients:
                client.put(event)

    def _tick(self, added: Added, problems: list[str]) -> dict[str, Any]:
        """What ``planner.append`` of page.js takes. Times are whole ones: each browser's page has its own start."""
        return {
            "values": added.values,
            "lanes": lanes_of(added.timelines(), 0.0),
            "changes": changes_of(added.changes(), 0.0),
            "now": self._now(problems),
        }

    def _now(self, problems: list[str]) -> dict[str, Any]:
        builder, last = self._builder, self._builder.last
        age_s = None if self._ticked_s is None else round(time.monotonic() - self._ticked_s, 3)
        more = {"made_s_ago": age_s, "problems": problems}
        if last is None:
            return {**now_of(0.0, None, {}, (), {}), **more}
        inputs, decision = last
        shown = now_of(inputs.now_s, inputs.config, decision.explanations, builder.feeds(), builder.totals())
        return {**shown, **more}

    # Snapshots

    async def _snapshot_event(self) -> bytes:
        """The whole page's data, made once for all who ask between two ticks."""
        if self._snapshot is None or self._snapshot[0] != self._num_ticks:
            self._snapshot = self._num_ticks, asyncio.create_task(self._make_snapshot(self._builder.frozen()))
        return await asyncio.shield(self._snapshot[1])

    async def _make_snapshot(self, frozen: SeriesBuilder) -> bytes:
        now = self._now([])
        return await asyncio.to_thread(_snapshot, frozen, now | {"problems": await self._problems_at_home()})

    async def _problems_at_home(self) -> list[str]:
        """In the planner's loop, to which its health belongs."""

        async def ask() -> list[str]:
            return self._problems()

        assert self._home is not None
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(ask(), self._home))

    # The thread, and HTTP

    async def __aenter__(self) -> Dashboard:
        self._files = await asyncio.to_thread(_files)
        self._home = asyncio.get_running_loop()
        started: Future[None] = Future()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve(started)), name="planner-dashboard", daemon=True
        )
        self._thread.start()
        try:
            await asyncio.wrap_future(started)
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._end()

    async def _end(self) -> None:
        if self._loop is not None:
            with suppress(RuntimeError):  # it ended by itself
                self._loop.call_soon_threadsafe(self._stop.set)
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)
            self._thread = None

    async def _serve(self, started: Future[None]) -> None:
        self._stop = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        app = web.Application(middlewares=[self._guarded])
        app.router.add_get("/events", self._events)
        app.router.add_get("/{name:.*}", self._file)
        runner = web.AppRunner(
            app, access_log=None, keepalive_timeout=guarded_http.SILENT_S, shutdown_timeout=1.0
        )
        try:
            await runner.setup()
            await web.TCPSite(runner, self._host, self._asked_port).start()
            self._runner = runner
            with suppress(InvalidStateError):  # nobody waits for it any more
                started.set_result(None)
                await self._stop.wait()
        except OSError as error:
            with suppress(InvalidStateError):
                started.set_exception(error)
        finally:
            tasks = [*self._streams, *([self._snapshot[1]] if self._snapshot is not None else [])]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await runner.cleanup()
            self._runner = None

    @web.middleware
    async def _guarded(self, request: web.Request, handler: Any) -> web.StreamResponse:
        """On loopback only for who asks for loopback by name: else any page could, through a name of its own."""
        asked = request.url.host or ""
        if _is_loopback(self._host) and not _is_loopback(asked):
            raise web.HTTPForbidden(
                text=f"{asked!r} is not this machine; ask for localhost\n", headers=HEADERS
            )
        response: web.StreamResponse = await handler(request)
        return response

    async def _file(self, request: web.Request) -> web.Response:
        found = self._files.get(request.match_info["name"])
        if found is None:
            raise web.HTTPNotFound(text="there are /, /events and what these need\n", headers=HEADERS)
        kind, body = found
        headers = dict(HEADERS)
        if "v" in request.query:  # named by its content
            headers["Cache-Control"] = "max-age=31536000, immutable"
        if "gzip" in request.headers.get("Accept-Encoding", ""):
            headers["Content-Encoding"] = "gzip"
        else:
            body = await asyncio.to_thread(gzip.decompress, body)
        return web.Response(body=body, content_type=kind, charset="utf-8", headers=headers)

    async def _events(self, request: web.Request) -> web.StreamResponse:
        if len(self._clients) >= MOST_CLIENTS:
            text = f"{MOST_CLIENTS} browsers are looking already\n"
            raise web.HTTPServiceUnavailable(text=text, headers={**HEADERS, "Retry-After": "30"})
        response = web.StreamResponse(headers={**HEADERS, "Content-Type": "text/event-stream"})
        client, task = Client(), asyncio.current_task()
        assert task is not None
        self._clients.add(client)
        self._streams.add(task)
        try:
            await response.prepare(request)
            while True:
                event = await client.next_event(self._snapshot_event)
                for start in range(0, len(event), CHUNK_BYTES):
                    async with asyncio.timeout(STUCK_S):
                        await response.write(event[start : start + CHUNK_BYTES])
        except (TimeoutError, OSError):
            with suppress(AttributeError):  # the transport is None once it is closed
                request.transport.abort()  # type: ignore[union-attr]
        finally:
            self._clients.discard(client)
            self._streams.discard(task)
        return response


def _event(name: str, data: Mapping[str, Any]) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data, separators=(',', ':'), allow_nan=False)}\n\n".encode()


def _snapshot(frozen: SeriesBuilder, now: Mapping[str, Any]) -> bytes:
    return _event("snapshot", {**data_of(frozen.series()), "now": now})


def _files() -> dict[str, tuple[str, bytes]]:
    """What the page consists of, by name, compressed: several browsers ask for a megabyte each."""
    bodies = {
        "plotly.js": ("text/javascript", plotly_js()),
        "page.js": ("text/javascript", page_js()),
        "live.js": ("text/javascript", part("live.js", of="planner_adapters.dashboard")),
        "page.css": ("text/css", part("page.css")),
    }
    url = {
        name: f"{name}?v={hashlib.sha256(text.encode()).hexdigest()[:12]}"
        for name, (_, text) in bodies.items()
    }
    scripts = "\n".join(
        f'<script src="{url[name]}"></script>' for name in ("plotly.js", "page.js", "live.js")
    )
    head = f'<link rel="stylesheet" href="{url["page.css"]}">'
    bodies[""] = "text/html", live_page(title="Planner", head=head, foot=scripts, live=LIVE)
    return {name: (kind, gzip.compress(text.encode(), 6)) for name, (kind, text) in bodies.items()}


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
