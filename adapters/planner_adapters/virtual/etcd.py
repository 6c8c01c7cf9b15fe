"""A store in etcd v3, for planner and environment on different machines.

It speaks to etcd's JSON gateway, which every etcd since 3.4 serves on its client port. Two calls and a watch are all
that is needed, so a gRPC client would bring two packages of 22 MB, without type hints, for what the HTTP library of
the endpoint does as well.
"""

from __future__ import annotations

import asyncio
import json
import ssl as tls
from base64 import b64decode, b64encode
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from planner_adapters.config_file import DEFAULT_NAMESPACE
from planner_adapters.virtual.extra import require_aiohttp
from planner_adapters.virtual.store import Stored, StoreError

if TYPE_CHECKING:
    from aiohttp import ClientResponse, ClientSession

MOST_BYTES = 4 << 20
"""Of an answer; etcd itself refuses requests above 1.5 MB."""
REQUEST_S = 5.0
RETRY_S = 0.1


class EtcdStore:
    """A store under one key of an etcd cluster; each deployment has its own, ``planner/NAME``.

    ``endpoints`` as ``http://host:2379``; the next one is tried where one can't be had. ``username`` and ``password``
    are those of an etcd user with read and write permission for ``key``; ``ssl`` is a context of the user's own.
    """

    def __init__(
        self,
        endpoints: Sequence[str],
        *,
        key: str = f"planner/{DEFAULT_NAMESPACE}",
        username: str | None = None,
        password: str | None = None,
        ssl: tls.SSLContext | None = None,
    ) -> None:
        if isinstance(endpoints, str) or not endpoints:
            raise ValueError(
                "EtcdStore.endpoints: must be a list of addresses, such as ['http://127.0.0.1:2379']"
            )
        if (username is None) != (password is None):
            raise ValueError("EtcdStore: username and password go together")
        self._endpoints = [endpoint.rstrip("/") for endpoint in endpoints]
        self._name = key
        self._key = b64encode(key.encode()).decode()
        self._user = {"name": username, "password": password} if username is not None else None
        self._token: str | None = None
        self._ssl = ssl
        self._http: ClientSession | None = None
        require_aiohttp()

    def __repr__(self) -> str:
        return f"EtcdStore({', '.join(self._endpoints)}, key={self._name!r})"

    async def read(self) -> Stored:
        """The newest text, as a majority of the cluster knows it."""
        answer = await self._call("kv/range", {"key": self._key})
        for found in answer.get("kvs", ()):
            return Stored(text=b64decode(found["value"]).decode(), version=int(found["mod_revision"]))
        return Stored(text=None, version=0)

    async def swap(self, version: int, text: str) -> bool:
        """Writes if the version, the key's revision, is still this one: a transaction of etcd."""
        unchanged = {"key": self._key, "target": "MOD", "result": "EQUAL", "mod_revision": str(version)}
        put = {"key": self._key, "value": b64encode(text.encode()).decode()}
        answer = await self._call("kv/txn", {"compare": [unchanged], "success": [{"request_put": put}]})
        return bool(answer.get("succeeded"))

    async def changed(self, version: int, timeout_s: float) -> None:
        """Returns when the version is another one, after ``timeout_s``, or where the watch breaks off."""
        from aiohttp import ClientError

        try:
            async with asyncio.timeout(timeout_s):
                watch = {"create_request": {"key": self._key}}
                async with await self._post("watch", watch, total_s=None) as answer:
                    await answer.content.readany()  # it watches from now on, so that a look misses nothing
                    if (await self.read()).version != version or await answer.content.readany():
                        return
                await asyncio.sleep(RETRY_S)  # hung up: whoever comes back at once would spin
        except TimeoutError:
            pass
        except (ClientError, OSError):
            await asyncio.sleep(RETRY_S)

    async def close(self) -> None:
        """Closes the connections."""
        if self._http is not None:
            await self._http.close()
        self._http = None

    async def _call(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """What etcd answers."""
        from aiohttp import ClientError

        try:
            async with await self._post(path, body, total_s=REQUEST_S) as answer:
                text = b""
                async for chunk in answer.content.iter_any():
                    text += chunk
                    if len(text) > MOST_BYTES:
                        raise StoreError(f"{self!r} answers with more than {MOST_BYTES} bytes")
        except (ClientError, OSError) as error:
            raise StoreError(f"{self!r}: {_words(error)}") from None
        try:
            found = json.loads(text)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise StoreError(f"{self!r} answers with something other than a JSON object: is it etcd?")
        return found

    async def _post(self, path: str, body: dict[str, Any], *, total_s: float | None) -> ClientResponse:
        """A good answer, its body unread, of the first endpoint that gives one.

        The next endpoint may see a request that the one before has carried out: a swap is then refused, and whoever
        asked looks again.
        """
        from aiohttp import ClientError, ClientSession, ClientTimeout

        if self._http is None:
            self._http = ClientSession()
        error = ""
        for _ in range(len(self._endpoints) + 1):  # and one more, with a new token
            if self._user is not None and self._token is None and path != "auth/authenticate":
                self._token = str((await self._call("auth/authenticate", self._user)).get("token"))
            endpoint = self._endpoints[0]
            try:
                answer = await self._http.post(
                    f"{endpoint}/v3/{path}",
                    json=body,
                    headers={"Authorization": self._token} if self._token else None,
                    ssl=self._ssl or True,
                    timeout=ClientTimeout(total=total_s, sock_connect=REQUEST_S),
                    allow_redirects=False,
                )
                if answer.status == 200:
                    return answer
                async with answer:
                    text = (await answer.content.read(500)).decode(errors="replace")
                error = f"{endpoint} answers {answer.status}: {' '.join(text.split())}"
                if answer.status == 401 and self._token is not None:
                    self._token = None  # they expire
                    continue
                if answer.status < 500:
                    break
            except (ClientError, OSError) as failure:
                error = f"{endpoint}: {_words(failure)}"
            self._endpoints = [*self._endpoints[1:], endpoint]
        raise StoreError(f"{self!r}: {error}")


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__
