"""What each store promises: compare-and-swap, and waking whoever waits."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from planner_adapters.virtual import EtcdStore, MemoryStore, SqliteStore, Store, StoreError, VirtualClient

Connect = Callable[[], Store]
BOUND_S = 30.0


def test_a_new_store_holds_nothing(connect_to_place: Connect) -> None:
    async def main() -> None:
        store = connect_to_place()
        stored = await store.read()
        assert (stored.text, stored.version) == (None, 0)
        await store.close()

    asyncio.run(main())


def test_only_one_of_two_writers_of_a_version_wins(connect_to_place: Connect) -> None:
    async def main() -> None:
        ours, theirs = connect_to_place(), connect_to_place()
        for text in ("first", "second"):
            version = (await ours.read()).version
            won = await asyncio.gather(
                ours.swap(version, f"{text} ours"), theirs.swap(version, f"{text} theirs")
            )
            assert sorted(won) == [False, True]
            stored = await theirs.read()
            assert stored.text == f"{text} {'ours' if won[0] else 'theirs'}"
            assert stored.version != version
        await ours.close()
        await theirs.close()

    asyncio.run(main())


def test_counting_by_many_writers_loses_no_count(connect_to_place: Connect) -> None:
    async def count(times: int) -> None:
        store = connect_to_place()
        while times:
            stored = await store.read()
            times -= await store.swap(stored.version, str(int(stored.text or "0") + 1))
        await store.close()

    async def main() -> None:
        await asyncio.gather(*(count(10) for _ in range(4)))
        store = connect_to_place()
        assert (await store.read()).text == "40"
        await store.close()

    asyncio.run(main())


def test_whoever_waits_is_woken_by_a_write_of_another_connection(connect_to_place: Connect) -> None:
    async def main() -> None:
        ours, theirs = connect_to_place(), connect_to_place()
        for _ in range(3):
            version = (await ours.read()).version

            async def wait(version: int = version) -> None:
                while (await ours.read()).version == version:
                    await ours.changed(version, BOUND_S)

            waiting = asyncio.create_task(wait())
            await asyncio.sleep(0)
            assert await theirs.swap(version, "news")
            async with asyncio.timeout(BOUND_S):
                await waiting
        await ours.close()
        await theirs.close()

    asyncio.run(main())


def test_waiting_for_a_version_that_is_over_returns_at_once(connect_to_place: Connect) -> None:
    async def main() -> None:
        store = connect_to_place()
        await store.swap(0, "news")
        async with asyncio.timeout(BOUND_S):
            await store.changed(0, 10 * BOUND_S)
        await store.close()

    asyncio.run(main())


def test_waiting_ends_in_time_where_nothing_happens(connect_to_place: Connect) -> None:
    async def main() -> None:
        store = connect_to_place()
        async with asyncio.timeout(BOUND_S):
            await store.changed(0, 0.01)
        await store.close()

    asyncio.run(main())


def test_a_memory_store_wakes_another_thread() -> None:
    store = MemoryStore()
    waits = threading.Event()

    async def wait() -> str | None:
        while (stored := await store.read()).version == 0:
            waits.set()
            await store.changed(0, BOUND_S)
        return stored.text

    found: list[str | None] = []
    thread = threading.Thread(target=lambda: found.append(asyncio.run(wait())))
    thread.start()
    assert waits.wait(BOUND_S)
    asyncio.run(store.swap(0, "news"))
    thread.join(BOUND_S)
    assert found == ["news"]


def test_two_deployments_share_a_sqlite_file(tmp_path: Path) -> None:
    async def main() -> None:
        chat, batch = (SqliteStore(tmp_path / "decisions.db", name=name) for name in ("chat", "batch"))
        await chat.swap(0, "of chat")
        assert (await batch.read()).text is None
        await chat.close()
        await batch.close()

    asyncio.run(main())


def test_a_sqlite_file_that_is_none_is_said_so(tmp_path: Path) -> None:
    path = tmp_path / "decisions.db"
    path.write_text("This is a text, and long enough that SQLite looks for its header in it. " * 20)
    with pytest.raises(StoreError, match=r"decisions\.db: file is not a database"):
        asyncio.run(SqliteStore(path).read())


def test_a_sqlite_file_uses_write_ahead_logging(tmp_path: Path) -> None:
    async def main() -> None:
        store = SqliteStore(tmp_path / "decisions.db")
        await store.swap(0, "news")
        await store.close()

    asyncio.run(main())
    file = sqlite3.connect(tmp_path / "decisions.db")
    assert file.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    file.close()


def test_a_new_sqlite_file_is_opened_while_another_process_writes_to_it(tmp_path: Path) -> None:
    async def main() -> None:
        other = sqlite3.connect(tmp_path / "decisions.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        store = SqliteStore(tmp_path / "decisions.db")
        reading = asyncio.create_task(store.read())
        await asyncio.wait({reading}, timeout=0.2)
        other.execute("COMMIT")
        other.close()
        assert (await reading).text is None
        await store.close()

    asyncio.run(main())


def test_an_etcd_that_is_away_is_said_so_by_name() -> None:
    async def main() -> None:
        store = EtcdStore(["http://127.0.0.1:1"], key="planner/chat")
        with pytest.raises(StoreError, match=r"127\.0\.0\.1:1, key='planner/chat'.*127\.0\.0\.1:1"):
            await store.read()
        with pytest.raises(StoreError, match="planner/chat"):
            await store.changed(0, BOUND_S)
        await store.close()

    asyncio.run(main())


def test_the_next_endpoint_of_etcd_is_asked_where_one_is_away(etcd: str) -> None:
    async def main() -> None:
        store = EtcdStore(["http://127.0.0.1:1", etcd], key="tests/failover")
        assert await store.swap(0, "news")
        assert (await store.read()).text == "news"
        await store.close()

    asyncio.run(main())


def test_etcd_needs_a_list_of_addresses() -> None:
    with pytest.raises(ValueError, match="must be a list of addresses"):
        EtcdStore("http://127.0.0.1:2379")


@pytest.mark.parametrize("written", ["nonsense", "[]", '{"asked": 3}', '{"scaled_decision_id": 1.5}'])
def test_a_store_with_something_else_in_it_is_said_so(tmp_path: Path, written: str) -> None:
    async def main() -> None:
        store = SqliteStore(tmp_path / "decisions.db")
        await store.swap(0, written)
        try:
            await VirtualClient(store).complete(1)
        finally:
            await store.close()

    with pytest.raises(StoreError, match="holds something other than decisions"):
        asyncio.run(main())
