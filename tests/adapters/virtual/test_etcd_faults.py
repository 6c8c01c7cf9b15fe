"""An etcd that restarts, and one that wants a password."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import urllib.request
from typing import Any

import pytest

from planner_adapters.virtual import EtcdStore, StoreError, VirtualClient
from planner_core import Role

BOUND_S = 30.0


def _call(url: str, path: str, body: dict[str, Any], token: str | None = None) -> dict[str, Any]:
    headers = {"Authorization": token} if token else {}
    request = urllib.request.Request(f"{url}/v3/{path}", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=BOUND_S) as answer:
        found: dict[str, Any] = json.load(answer)
        return found


def test_what_was_written_is_there_after_etcd_was_killed(etcd_of_its_own: Any) -> None:
    async def main() -> None:
        store = EtcdStore([etcd_of_its_own.url])
        assert await store.swap(0, "news")
        version = (await store.read()).version
        waiting = asyncio.create_task(store.changed(version, BOUND_S))
        await asyncio.sleep(0)
        etcd_of_its_own.stop()
        with pytest.raises(StoreError):
            await store.read()
        await asyncio.wait([waiting], timeout=BOUND_S)
        assert waiting.done()  # a watch that breaks off ends, with an error or without
        waiting.exception()
        etcd_of_its_own.start()
        assert (await store.read()).text == "news"
        assert await store.swap(version, "more news")
        await store.close()

    asyncio.run(main())


def test_an_etcd_with_users_is_spoken_to_as_one_and_the_password_shows_nowhere(etcd_of_its_own: Any) -> None:
    url, password = etcd_of_its_own.url, "not-to-be-seen"
    for user in ("root", "planner"):
        _call(url, "auth/user/add", {"name": user, "password": password})
    for role in ("root", "planner"):
        _call(url, "auth/role/add", {"name": role})
        _call(url, "auth/user/grant", {"user": role, "role": role})
    key = base64.b64encode(b"planner/dynamo").decode()
    _call(url, "auth/role/grant", {"name": "planner", "perm": {"permType": "READWRITE", "key": key}})
    _call(url, "auth/enable", {})

    async def main() -> None:
        store = EtcdStore([url], username="planner", password=password)
        client = VirtualClient(store)
        await client.report({Role.AGG: 1})
        root = _call(url, "auth/authenticate", {"name": "root", "password": password})["token"]
        # A changed password makes every token of the user invalid, as time does.
        _call(url, "auth/user/changepw", {"name": "planner", "password": password}, token=root)
        await client.report({Role.AGG: 2})
        await store.close()

        for stranger in (EtcdStore([url]), EtcdStore([url], username="planner", password="wrong-and-unseen")):
            with pytest.raises(StoreError) as error:
                await stranger.read()
            assert "unseen" not in str(error.value)
            assert "unseen" not in repr(stranger)
            await stranger.close()
        assert password not in repr(store)

    asyncio.run(main())


def test_a_server_that_is_no_etcd_is_said_so(tmp_path: Any) -> None:
    import sys

    with subprocess.Popen(
        [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as server:
        assert server.stdout is not None
        port = server.stdout.readline().split("port ")[1].split()[0]

        async def main() -> None:
            store = EtcdStore([f"http://127.0.0.1:{port}"])
            try:
                await store.read()
            finally:
                await store.close()

        with pytest.raises(StoreError, match="answers 501"):
            asyncio.run(main())
        server.kill()
