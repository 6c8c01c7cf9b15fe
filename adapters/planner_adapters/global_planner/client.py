"""The local side: counts from where the engines are, orders to the global planner."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping

from planner_adapters.config_file import namespace_of
from planner_adapters.environment import Connector, NotScaled, Order
from planner_adapters.prometheus.http import FetchError, Http, HttpOptions
from planner_adapters.virtual.decision import counts_from_wire, counts_to_wire
from planner_core import ConfigError, PlannerConfig, Role, WorkerCounts

URL, TOKEN = "PLANNER_GLOBAL_URL", "PLANNER_GLOBAL_TOKEN"
CALLER, DEPLOYMENT = "PLANNER_GLOBAL_CALLER", "PLANNER_GLOBAL_DEPLOYMENT"
PORT = 8082


def client_of(
    config: PlannerConfig, engines: Connector, environ: Mapping[str, str] = os.environ
) -> GlobalPlanner:
    """The connector that the configuration and the variables describe; ``engines`` is where replicas are read.

    The address is ``$PLANNER_GLOBAL_URL``, else the service ``global-planner`` of ``global_planner_namespace``.
    :class:`~planner_core.ConfigError` without ``$PLANNER_GLOBAL_TOKEN``.
    """
    if not environ.get(TOKEN):
        raise ConfigError(f"environment = 'global-planner' needs ${TOKEN}, the token of this planner there")
    caller = environ.get(CALLER) or namespace_of(config)
    return GlobalPlanner(
        engines,
        url=environ.get(URL) or f"http://global-planner.{config.shell.global_planner_namespace}:{PORT}",
        token=environ[TOKEN],
        caller=caller,
        deployment=environ.get(DEPLOYMENT) or caller,
    )


class GlobalPlanner:
    """A connector that asks before it scales."""

    def __init__(self, engines: Connector, *, url: str, token: str, caller: str, deployment: str) -> None:
        self._engines = engines
        self._url = f"{url.rstrip('/')}/scale"
        self._names = {"caller": caller, "deployment": deployment}
        self._http = Http(HttpOptions(timeout_s=8.0, bearer_token=token, max_bytes=65_536))

    async def workers(self) -> dict[Role, WorkerCounts]:
        """What the connector of the engines says."""
        return await self._engines.workers()

    async def scale(self, order: Order) -> None:
        """Asks the global planner, which scales.

        :class:`~planner_adapters.environment.NotScaled` where it grants less, refuses, or can't be reached: then
        everything stays as it was, or is as it was granted, and the next tick asks again.
        """
        drain = {str(role): list(ids) for role, ids in order.drain.items() if ids}
        asked = {**self._names, **counts_to_wire(order.replicas), **({"drain": drain} if drain else {})}
        if not order.replicas:
            return
        try:
            answer = json.loads(await self._http.post_json(self._url, json.dumps(asked).encode()))
            granted = counts_from_wire(answer["granted"]) if answer["granted"] else {}
            reason, note = str(answer["reason"]), str(answer["note"])
        except FetchError as error:
            raise NotScaled(f"held, since the global planner doesn't grant it: {error}") from None
        except (ValueError, TypeError, KeyError):
            raise NotScaled(f"held, since {self._url} answers like no global planner") from None
        short = {role: count for role, count in order.replicas.items() if granted.get(role) != count}
        if short:
            told = ", ".join(
                f"{role} {granted.get(role, 'as it is')} for {count}" for role, count in short.items()
            )
            raise NotScaled(f"the global planner grants {told}: {reason}{f', {note}' if note else ''}")

    async def close(self) -> None:
        """Closes the connections, and the connector of the engines."""
        await self._http.close()
        await self._engines.close()
