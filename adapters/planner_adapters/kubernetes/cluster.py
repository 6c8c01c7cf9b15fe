"""A connection to one cluster, and the live copies of its objects; shared by the connectors that use it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from lightkube.config.kubeconfig import SingleConfig

from planner_adapters.kubernetes.api import REQUEST_S, Api, cluster_config, usable
from planner_adapters.kubernetes.kinds import Kind
from planner_adapters.kubernetes.mirror import REWATCH_S, Mirror


class Cluster:
    """One API server. ``Cluster(whole_namespaces=True)`` is for many deployments in one process.

    It then watches each kind once per namespace, instead of each object: two connections for any number of deployments,
    for which the role must allow to list and watch them all. ``config`` is lightkube's; without one it is found as
    kubectl finds it. A request is given up after ``request_s`` and not tried again after ``patience_s`` in all; watches
    are opened anew every ``rewatch_s``. Make it, use it and close it within one event loop.
    """

    def __init__(
        self,
        config: SingleConfig | None = None,
        *,
        whole_namespaces: bool = False,
        patience_s: float = 4.0,
        request_s: float = REQUEST_S,
        rewatch_s: float = REWATCH_S,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.api = Api(cluster_config() if config is None else usable(config), patience_s, request_s, sleep)
        self._whole_namespaces = whole_namespaces
        self._clock, self._sleep, self._rewatch_s = clock, sleep, rewatch_s
        self._mirrors: dict[Any, Mirror] = {}
        self.changes = asyncio.Event()
        """Set for a moment whenever an object that is watched has changed."""

    def mirror(
        self,
        kind: Kind,
        namespace: str,
        *,
        labels: Mapping[str, str] | None = None,
        fields: Mapping[str, str] | None = None,
    ) -> Mirror:
        """The live copy of (at least) the objects that labels and fields select."""
        if self._whole_namespaces:
            labels = fields = None
        key = (kind, namespace, _frozen(labels), _frozen(fields))
        if key not in self._mirrors:
            self._mirrors[key] = Mirror(
                self.api,
                kind,
                namespace,
                labels=labels,
                fields=fields,
                changes=self.changes,
                clock=self._clock,
                sleep=self._sleep,
                rewatch_s=self._rewatch_s,
            )
        return self._mirrors[key]

    async def close(self) -> None:
        """Ends the watches and closes all connections."""
        await asyncio.gather(*(mirror.close() for mirror in self._mirrors.values()))
        self._mirrors.clear()
        await self.api.close()


def _frozen(pairs: Mapping[str, str] | None) -> Any:
    return None if pairs is None else tuple(sorted(pairs.items()))
