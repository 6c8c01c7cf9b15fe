from __future__ import annotations

import asyncio

from planner_adapters.dashboard.client import MOST_WAITING, Client


async def snapshot() -> bytes:
    return b"snapshot"


async def next_of(client: Client) -> bytes:
    return await client.next_event(snapshot)


def test_each_browser_begins_with_a_snapshot_and_gets_every_event_after_it() -> None:
    async def talk() -> list[bytes]:
        client = Client()
        client.put(b"before")  # the snapshot knows it
        got = [await next_of(client)]
        for number in range(3):
            client.put(b"%d" % number)
        return [*got, *[await next_of(client) for _ in range(3)]]

    assert asyncio.run(talk()) == [b"snapshot", b"0", b"1", b"2"]


def test_an_event_during_a_snapshot_comes_after_it() -> None:
    async def talk() -> list[bytes]:
        client = Client()

        async def slow() -> bytes:
            client.put(b"meanwhile")
            return b"snapshot"

        return [await client.next_event(slow), await next_of(client)]

    assert asyncio.run(talk()) == [b"snapshot", b"meanwhile"]


def test_who_falls_behind_loses_what_waits_and_begins_anew() -> None:
    async def talk() -> tuple[int, list[bytes]]:
        client = Client()
        await next_of(client)
        longest = 0
        for number in range(10 * MOST_WAITING + 1):
            client.put(b"%d" % number)
            longest = max(longest, len(client))
        got = [await next_of(client)]
        client.put(b"new")
        return longest, [*got, await next_of(client)]

    assert asyncio.run(talk()) == (MOST_WAITING, [b"snapshot", b"new"])
