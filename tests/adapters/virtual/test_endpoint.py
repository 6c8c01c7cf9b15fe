"""The same over HTTP: what a scheduler sends, what it gets, and what it may not."""

from __future__ import annotations

import asyncio
import json
import logging
import urllib.error
import urllib.request
from collections.abc import Callable, Coroutine
from typing import Any, ClassVar
from urllib.parse import urlsplit

import pytest

from planner_adapters import guarded_http
from planner_adapters.virtual import MemoryStore, SqliteStore, Store, VirtualClient, connect, serve
from planner_adapters.virtual.endpoint import MOST_WAITING
from planner_core import NextTick, PlannerConfig, Role

BOUND_S = 30.0
TOKEN = "a-token-that-nobody-sees"
CONFIG = PlannerConfig.from_mapping({"mode": "disagg"})


class Two:
    """An order of two decode engines."""

    replicas: ClassVar = {Role.PREFILL: 1, Role.DECODE: 2}
    drain: ClassVar = {Role.PREFILL: ("prefill-1",)}

    @property
    def next_tick(self) -> NextTick:
        raise AssertionError


def ask(url: str, body: Any = None, token: str | None = TOKEN, method: str | None = None) -> tuple[int, Any]:
    """Status and JSON of an answer, by the standard library: any HTTP client will do."""
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    request = urllib.request.Request(url, data, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=BOUND_S) as answer:
            text = answer.read()
            return answer.status, json.loads(text) if text else None
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


Story = Callable[[Store, str], Coroutine[Any, Any, None]]


def served(story: Story, store: Store | None = None) -> None:
    async def main() -> None:
        place = store or MemoryStore()
        async with serve(place, token=TOKEN) as url:
            await story(place, url)

    asyncio.run(main())


async def asked(*args: Any, **named: Any) -> tuple[int, Any]:
    return await asyncio.to_thread(ask, *args, **named)


def test_a_scheduler_waits_scales_and_reports_over_http() -> None:
    async def story(store: Store, url: str) -> None:
        planner = connect(CONFIG, store)
        assert await asked(f"{url}/report", {"num_prefill": 2, "num_decode": 1}) == (204, None)
        waiting = asyncio.create_task(asked(f"{url}/decision?after=0&timeout_s={BOUND_S}"))
        await planner.scale(Two())
        assert await waiting == (
            200,
            {"decision_id": 1, "num_prefill": 1, "num_decode": 2, "drain": {"prefill": ["prefill-1"]}},
        )
        assert await asked(f"{url}/complete", {"decision_id": 1}) == (204, None)
        workers = await planner.workers()
        assert {role: counts.ready for role, counts in workers.items()} == Two.replicas
        assert await asked(f"{url}/decision?after=1&timeout_s=0") == (204, None)

    served(story)


def test_a_connection_that_says_nothing_is_closed_and_one_that_waits_for_its_answer_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(guarded_http, "SILENT_S", 0.2)

    async def story(store: Store, url: str) -> None:
        waiting = asyncio.create_task(asked(f"{url}/decision?timeout_s=1"))
        reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(url).port)
        async with asyncio.timeout(BOUND_S):
            assert await reader.read() == b""
        writer.close()
        assert await waiting == (204, None)

    served(story)


def test_a_decision_that_is_there_is_given_without_waiting(tmp_path: Any) -> None:
    store = SqliteStore(tmp_path / "decisions.db")

    async def story(store: Store, url: str) -> None:
        await connect(CONFIG, store).scale(Two())
        status, decision = await asked(f"{url}/decision?timeout_s=0")
        assert (status, decision["decision_id"]) == (200, 1)
        await store.close()

    served(story, store)


@pytest.mark.parametrize("token", [None, "", "wrong", TOKEN + "x", TOKEN[:-1], "\xff" * 20])
def test_nobody_comes_in_without_the_token(token: str | None) -> None:
    async def story(store: Store, url: str) -> None:
        calls = (
            ("decision?timeout_s=0", None),
            ("complete", {"decision_id": 1}),
            ("report", {"num_agg": 1}),
            ("", None),
        )
        for path, body in calls:
            status, answer = await asked(f"{url}/{path}", body, token=token)
            assert status == 401
            assert answer == {"error": "needs the header 'Authorization: Bearer TOKEN'"}
        assert (await store.read()).text is None

    served(story)


@pytest.mark.parametrize(
    ("path", "body", "status", "says"),
    [
        ("decision?after=-1", None, 400, "after must be a whole number"),
        ("decision?after=1e3", None, 400, "after must be a whole number"),
        ("decision?after=٣", None, 400, "after must be a whole number"),
        ("decision?after=99999999999999999999", None, 400, "after must be a whole number"),
        ("decision?after=7", None, 409, "begin again with after = 0"),
        ("decision?timeout_s=61", None, 400, "from 0 to 60"),
        ("decision?timeout_s=nan", None, 400, "from 0 to 60"),
        ("complete", {"decision_id": 7}, 409, "decision 7 was never made here, the newest is 0"),
        ("complete", {"decision_id": True}, 400, "decision_id must be a whole number"),
        ("complete", {"decision_id": "1"}, 400, "decision_id must be a whole number"),
        ("complete", [], 400, "must be a JSON object"),
        ("complete", b"[" * 4_000, 400, "must be a JSON object"),
        ("complete", b"\xff", 400, "must be a JSON object"),
        ("complete", b"x" * 5_000, 413, "Too Large"),
        ("report", {}, 400, "give some of num_prefill, num_decode, num_agg"),
        ("report", {"num_prefil": 1}, 400, "'num_prefil' is no count"),
        ("report", {"num_prefill": -1}, 400, "num_prefill must be a whole number"),
        ("report", {"num_prefill": 1e400}, 400, "num_prefill must be a whole number"),
        ("nothing", None, 404, "Not Found"),
    ],
)
def test_what_cannot_be_meant_gets_one_line_and_changes_nothing(
    path: str, body: Any, status: int, says: str
) -> None:
    async def story(store: Store, url: str) -> None:
        from urllib.parse import quote

        found, answer = await asked(f"{url}/{quote(path, safe='/?&=')}", body)
        assert found == status
        assert says in answer["error"]
        assert "\n" not in answer["error"]
        assert (await store.read()).text is None

    served(story)


def test_a_wrong_method_is_said_so() -> None:
    async def story(store: Store, url: str) -> None:
        assert (await asked(f"{url}/complete", method="GET"))[0] == 405

    served(story)


def test_a_store_that_fails_is_a_503_with_the_reason(tmp_path: Any) -> None:
    async def story(store: Store, url: str) -> None:
        status, answer = await asked(f"{url}/decision")
        assert status == 503
        assert "unable to open database file" in answer["error"]

    served(story, SqliteStore(tmp_path / "no such folder" / "decisions.db"))


def test_the_endpoint_stops_at_once_although_schedulers_wait() -> None:
    class Noticed(MemoryStore):
        """Tells when somebody waits."""

        def __init__(self) -> None:
            super().__init__()
            self.waits = asyncio.Event()

        async def changed(self, version: int, timeout_s: float) -> None:
            self.waits.set()
            await super().changed(version, timeout_s)

    async def main() -> None:
        store = Noticed()
        async with asyncio.timeout(BOUND_S):
            async with serve(store, token=TOKEN) as url:
                waiting = asyncio.create_task(asked(f"{url}/decision?timeout_s=60"))
                await store.waits.wait()
            assert await waiting == (204, None)

    asyncio.run(main())


def test_too_many_waiting_are_turned_away_and_those_that_hang_up_make_room() -> None:
    import aiohttp

    class Counted(MemoryStore):
        """Knows how many wait."""

        def __init__(self) -> None:
            super().__init__()
            self.num_waiting = 0
            self.moved = asyncio.Condition()

        async def changed(self, version: int, timeout_s: float) -> None:
            await self._move(1)
            try:
                await super().changed(version, timeout_s)
            finally:
                await self._move(-1)

        async def _move(self, by: int) -> None:
            async with self.moved:
                self.num_waiting += by
                self.moved.notify_all()

        async def until(self, num: int) -> None:
            async with asyncio.timeout(BOUND_S), self.moved:
                await self.moved.wait_for(lambda: self.num_waiting == num)

    async def main() -> None:
        store = Counted()
        async with (
            serve(store, token=TOKEN) as url,
            aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0), headers={"Authorization": f"Bearer {TOKEN}"}
            ) as http,
        ):

            async def wait() -> int:
                async with http.get(f"{url}/decision?timeout_s=60") as answer:
                    return answer.status

            waiting = [asyncio.create_task(wait()) for _ in range(MOST_WAITING)]
            await store.until(MOST_WAITING)
            assert await wait() == 503
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
            await store.until(0)
            one = asyncio.create_task(wait())
            await store.until(1)
            await connect(CONFIG, store).scale(Two())
            assert await one == 200

    asyncio.run(main())


def test_the_token_shows_in_no_log_and_no_error(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    async def story(store: Store, url: str) -> None:
        for path in ("decision?timeout_s=0", "nothing", "decision?after=x"):
            for token in (TOKEN, TOKEN + "-not"):
                _, answer = await asked(f"{url}/{path}", token=token)
                assert TOKEN not in json.dumps(answer)

    served(story)
    assert TOKEN not in caplog.text


@pytest.mark.parametrize("token", ["", "short", "with spaces in between", "with\na line break", "ü" * 20])
def test_a_token_that_is_too_weak_or_no_header_is_refused_unseen(token: str) -> None:
    async def main() -> None:
        async with serve(MemoryStore(), token=token):
            raise AssertionError("it was served")

    with pytest.raises(ValueError, match="16 or more printable ASCII characters") as error:
        asyncio.run(main())
    assert token == "" or token not in str(error.value)


def test_nothing_listens_beyond_loopback_unless_asked() -> None:
    async def story(store: Store, url: str) -> None:
        assert url.startswith("http://127.0.0.1:")

    served(story)


def test_an_address_that_is_taken_is_an_os_error_and_leaves_nothing_open() -> None:
    async def story(store: Store, url: str) -> None:
        with pytest.raises(OSError, match="address already in use"):
            async with serve(store, token=TOKEN, port=int(url.rpartition(":")[2])):
                pass

    served(story)


def test_two_schedulers_completing_at_once_agree() -> None:
    async def story(store: Store, url: str) -> None:
        await connect(CONFIG, store).scale(Two())
        answers = await asyncio.gather(*(asked(f"{url}/complete", {"decision_id": 1}) for _ in range(5)))
        assert answers == [(204, None)] * 5
        assert (await VirtualClient(store).wait(0)) is not None

    served(story)
