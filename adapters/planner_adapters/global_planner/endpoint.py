"""Scaling over HTTP: ``POST /scale`` names caller, deployment and targets; the answer is the grant and its reason."""

from __future__ import annotations

import ssl as tls
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from planner_adapters.environment import NotScaled
from planner_adapters.global_planner.arbiter import Arbiter
from planner_adapters.guarded_http import Tokens, application, json_object, serving
from planner_adapters.runner.logs import log, logfmt
from planner_adapters.virtual.decision import counts_from_wire, counts_to_wire
from planner_adapters.virtual.extra import require_aiohttp
from planner_core import Role

if TYPE_CHECKING:
    from aiohttp.web import Request, Response

MOST_BYTES = 65_536
"""Of a request: a drain list may name a thousand engines."""
_EXAMPLE = '{"caller": "chat", "deployment": "chat", "num_decode": 4}'


class NotAllowedError(Exception):
    """The caller may not ask for this deployment."""


@asynccontextmanager
async def serve(
    arbiter: Arbiter,
    *,
    tokens: Mapping[str, str],
    host: str = "127.0.0.1",
    port: int = 0,
    ssl: tls.SSLContext | None = None,
) -> AsyncIterator[str]:
    """Serves scale requests while it is open, and gives its address, such as ``http://127.0.0.1:8082``.

    ``tokens`` by caller: 16 characters or more, sent as ``Authorization: Bearer …``. Port 0 is any free one. With a
    ``host`` beyond loopback give ``ssl`` too. ``OSError`` where the address is taken.
    """
    require_aiohttp()
    known = Tokens(tokens)
    served = application(known, {NotAllowedError: 403, NotScaled: 503}, most_bytes=MOST_BYTES)

    async def scale(request: Request) -> Response:
        from aiohttp import web

        body = await json_object(request, _EXAMPLE)
        caller, name = body.pop("caller", None), body.pop("deployment", None)
        drain = _drain(body.pop("drain", {}))
        _authorise(arbiter, known.caller(request), caller, name)
        replicas = counts_from_wire(body)
        foreign = [role for role in replicas if role not in arbiter.deployments[name].config.engines]
        if foreign:
            raise ValueError(f"deployment {name!r} has no role {' or '.join(foreign)}")
        grant = await arbiter.ask(name, replicas, drain)
        return web.json_response(
            {"granted": counts_to_wire(grant.replicas), "reason": grant.reason, "note": grant.note}
        )

    served.router.add_post("/scale", scale)
    async with serving(served, host, port, ssl) as url:
        yield url


def _authorise(arbiter: Arbiter, shown: str | None, caller: Any, name: Any) -> None:
    """The token must be the caller's, and the deployment one that it may ask for. Which there are isn't told."""
    managed = arbiter.deployments.get(name) if isinstance(name, str) else None
    if shown is None or caller != shown or managed is None or shown not in managed.callers:
        log.warning(logfmt("not allowed", caller=shown, says=str(caller)[:80], deployment=str(name)[:80]))
        raise NotAllowedError("this caller may not scale this deployment, or there is none of this name")


def _drain(wire: Any) -> dict[Role, tuple[str, ...]]:
    try:
        drain = {Role(role): tuple(ids) for role, ids in wire.items() if isinstance(ids, list)}
    except (AttributeError, ValueError):
        drain = None
    if (
        drain is None
        or len(drain) < len(wire)
        or not all(isinstance(i, str) for ids in drain.values() for i in ids)
    ):
        raise ValueError('drain must hold worker ids by role, such as {"decode": ["worker-3"]}')
    return drain
