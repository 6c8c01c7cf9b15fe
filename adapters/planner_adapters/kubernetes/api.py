"""Requests to the API server: bounded in time, tried again where that helps, and failures in one line.

429, 5xx and broken connections are tried again with a growing pause, or the one that ``Retry-After`` asks for. A 409 is
not: whoever wrote has to look again first. A 403 says which verb on which resource is missing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Any, TypeVar

import httpx2
from lightkube import AsyncClient
from lightkube.config.kubeconfig import KubeConfig, SingleConfig
from lightkube.core.exceptions import ApiError
from lightkube.core.exceptions import ConfigError as LightkubeConfigError
from lightkube.types import PatchType

from planner_adapters.kubernetes.kinds import Kind, Object, resource_name
from planner_core import ConfigError

T = TypeVar("T")

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 2.0
REQUEST_S = 10.0
"""A single request is given up after this time."""
_FAILURES = (httpx2.HTTPError, LightkubeConfigError, KeyError, ValueError)
"""What lightkube raises: HTTP and transport errors, no token; the last two for an answer that isn't JSON."""


class RequestFailedError(Exception):
    """A request that failed for good; its text is one line for an operator."""

    def __init__(self, text: str, code: int | None) -> None:
        super().__init__(text)
        self.code = code
        """The HTTP status; ``None``: no answer, or none that could be read."""


class Api:
    """The requests that the connector makes, each with ``patience_s`` for all of its attempts together."""

    def __init__(
        self,
        config: SingleConfig,
        patience_s: float = 4.0,
        request_s: float = REQUEST_S,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._client = AsyncClient(config, timeout=httpx2.Timeout(request_s), field_manager="planner-core")
        self.namespace: str = self._client.namespace
        """Of the kubeconfig's context, or the one that the pod runs in."""
        self.server: str = config.cluster.server
        self._patience_s = patience_s
        self._sleep = sleep

    async def get(self, kind: Kind, name: str, namespace: str) -> Object:
        """One object, or the scale of one."""
        get = self._client.get
        return await self._ask("get", kind, namespace, lambda: get(kind, name, namespace=namespace), name)

    async def patch(
        self, kind: Kind, name: str, namespace: str, patch: Mapping[str, Any] | list[dict[str, Any]]
    ) -> Object:
        """The object after a merge patch (a mapping) or a JSON patch (a list of operations)."""
        how = PatchType.JSON if isinstance(patch, list) else PatchType.MERGE
        send = self._client.patch
        return await self._ask(
            "patch",
            kind,
            namespace,
            lambda: send(kind, name, patch, namespace=namespace, patch_type=how),
            name,
        )

    async def list(
        self, kind: Kind, namespace: str, labels: Mapping[str, str] | None, fields: Mapping[str, str] | None
    ) -> tuple[list[Object], str]:
        """All objects, in pages, and the resource version that they were seen at."""

        async def pages() -> tuple[list[Object], str]:
            found = self._client.list(
                kind, namespace=namespace, chunk_size=500, labels=_selector(labels), fields=_selector(fields)
            )
            return [item async for item in found], found.resourceVersion

        return await self._ask("list", kind, namespace, pages)

    async def touch(
        self, kind: Kind, namespace: str, labels: Mapping[str, str] | None, fields: Mapping[str, str] | None
    ) -> None:
        """Returns if the server answers: a list of one object at most. A watch alone can't tell silence from death."""

        async def first() -> None:
            found: Any = self._client.list(
                kind, namespace=namespace, chunk_size=1, labels=_selector(labels), fields=_selector(fields)
            )
            async with aclosing(aiter(found)) as items:
                await anext(items, None)

        await self._ask("list", kind, namespace, first)

    async def watch(
        self,
        kind: Kind,
        namespace: str,
        labels: Mapping[str, str] | None,
        fields: Mapping[str, str] | None,
        version: str,
    ) -> AsyncGenerator[tuple[str, Object], None]:
        """What changes after ``version``. :class:`RequestFailedError` with code 410 if the server has forgotten it."""
        changes: Any = self._client.watch(
            kind,
            namespace=namespace,
            labels=_selector(labels),
            fields=_selector(fields),
            resource_version=version,
        )
        try:
            async with aclosing(changes):
                async for event, item in changes:
                    yield event, item
        except _FAILURES as error:
            raise self._failure(error, "watch", kind, namespace) from None

    async def close(self) -> None:
        """Closes all connections."""
        await self._client.close()

    async def _ask(
        self, verb: str, kind: Kind, namespace: str, send: Callable[[], Awaitable[T]], name: str = ""
    ) -> T:
        pause_s, spent_s = FIRST_PAUSE_S, 0.0
        now_s = asyncio.get_running_loop().time
        while True:
            began_s = now_s()
            try:
                return await send()
            except _FAILURES as error:
                code, asked_s = _code(error), _retry_after_s(error)
                rest_s = max(pause_s, asked_s)
                spent_s += now_s() - began_s + rest_s
                passing = code is None or code == 429 or code >= 500
                if not passing or spent_s > self._patience_s:
                    raise self._failure(error, verb, kind, namespace, name) from None
            await self._sleep(rest_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _failure(
        self, error: Exception, verb: str, kind: Kind, namespace: str, name: str = ""
    ) -> RequestFailedError:
        code, said = _code(error), " ".join(str(error).split())[:300]
        what = f"{verb} {resource_name(kind)}{f' {name!r}' if name else ''} in namespace {namespace!r}"
        if code == 403:
            text = (
                f'may not {what}: give the planner\'s role the verb "{verb}" on {resource_name(kind)}; '
                f"the API server says: {said}"
            )
        elif code == 401:
            text = (
                f"{self.server} refuses the credentials for {what}: renew the token or the certificate (401)"
            )
        elif code is None:
            text = f"{self.server} gives no answer to {what} ({type(error).__name__}: {said or 'no details'})"
        else:
            text = f"{what} failed with {code}: {said}"
        return RequestFailedError(text, code)


def cluster_config() -> SingleConfig:
    """How to reach the cluster: as the pod's service account, else ``$KUBECONFIG``, else ``~/.kube/config``."""
    try:
        return usable(KubeConfig.from_env().get())
    except (LightkubeConfigError, OSError, KeyError, ValueError) as error:
        raise ConfigError(
            f"no Kubernetes cluster to talk to ({error}): run in a pod with a service account, or set KUBECONFIG"
        ) from None


def usable(config: SingleConfig | None) -> SingleConfig:
    """A configuration with a user; :class:`~planner_core.ConfigError` for one without."""
    if config is None or config.user is None:
        raise ConfigError(
            "the kubeconfig names no user in its current context: log in, or choose another one"
        )
    return config


def _selector(pairs: Mapping[str, str] | None) -> Any:
    return dict(pairs) if pairs else None


def _code(error: Exception) -> int | None:
    if isinstance(error, ApiError) and error.status.code is not None:
        return int(error.status.code)
    return error.response.status_code if isinstance(error, httpx2.HTTPStatusError) else None


def _retry_after_s(error: Exception) -> float:
    response = getattr(error, "response", None)
    asked = response.headers.get("Retry-After", "") if response is not None else ""
    return float(asked) if asked.isdecimal() else 0.0
