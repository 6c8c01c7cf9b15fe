"""FPM messages: the codec of schema version 1, and what a subscription keeps of what publishers send."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator
from typing import Any

import attrs
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner_adapters.dynamo.fpm import MOST_BYTES, FpmError, decode, encode
from planner_adapters.dynamo.fpm_subscription import FpmOptions, Publisher, fpm_source
from planner_core import ConfigError, ForwardPassMetrics, PlannerConfig, Role

zmq = pytest.importorskip("zmq", reason="needs pyzmq: pip install 'planner-core[dynamo]'")
zmq_asyncio = pytest.importorskip("zmq.asyncio")

BOUND_S = 60.0
CONFIG = PlannerConfig.from_mapping({"mode": "disagg"})

numbers = st.integers(0, 2**53).map(float) | st.floats(0, 1e15)
records = st.builds(
    ForwardPassMetrics,
    worker_id=st.text(st.characters(codec="utf-8"), min_size=1, max_size=253),
    dp_rank=st.integers(0, 1024),
    **{field.name: numbers for field in attrs.fields(ForwardPassMetrics)[2:]},
)


@given(records)
def test_what_is_encoded_decodes_to_the_same(record: ForwardPassMetrics) -> None:
    assert decode(encode(record)) == record


MESSAGE = {
    "version": 1,
    "worker_id": "7587884888253033398",
    "dp_rank": 1,
    "counter_id": 42,
    "wall_time": 0.025,
    "scheduled_requests": {
        "num_prefill_requests": 1,
        "sum_prefill_tokens": 512,
        "var_prefill_length": 0.0,
        "sum_prefill_kv_tokens": 128,
        "num_decode_requests": 7,
        "sum_decode_kv_tokens": 9000,
        "var_decode_kv_tokens": 12.5,
    },
    "queued_requests": {
        "num_prefill_requests": 3,
        "sum_prefill_tokens": 4000,
        "var_prefill_length": 3.5,
        "num_decode_requests": 2,
        "sum_decode_kv_tokens": 800,
        "var_decode_kv_tokens": 1.5,
    },
}


def test_a_message_as_the_schema_has_it() -> None:
    assert decode(msgspec.msgpack.encode(MESSAGE)) == ForwardPassMetrics(
        worker_id="7587884888253033398",
        dp_rank=1,
        wall_time_s=0.025,
        num_prefill=1,
        prefill_tokens=512,
        prefill_kv_tokens=128,
        num_decode=7,
        decode_kv_tokens=9000,
        var_decode_kv_tokens=12.5,
        queued_num_prefill=3,
        queued_prefill_tokens=4000,
        queued_var_prefill_length=3.5,
        queued_num_decode=2,
        queued_decode_kv_tokens=800,
        queued_var_decode_kv_tokens=1.5,
    )
    again = msgspec.msgpack.decode(encode(decode(msgspec.msgpack.encode(MESSAGE)), counter_id=42))
    assert again == MESSAGE


def test_an_idle_heartbeat_needs_no_more_than_a_name_and_a_time() -> None:
    message = {"worker_id": 7, "wall_time": 0, "something_new": [1, 2]}
    assert decode(msgspec.msgpack.encode(message)) == ForwardPassMetrics(worker_id="7", wall_time_s=0)


@pytest.mark.parametrize(
    ("message", "says"),
    [
        (MESSAGE | {"version": 2}, "version = 2: must be 1"),
        ({"version": 2, "passes": []}, "version = 2: must be 1"),
        (MESSAGE | {"version": "x" * 1000}, r"version = x{20}: must be 1"),
        ({"wall_time": 1.0}, "missing required field `worker_id`"),
        (MESSAGE | {"wall_time": "soon"}, "Expected `float`"),
        (MESSAGE | {"worker_id": ""}, "worker_id has 0 characters"),
        (MESSAGE | {"worker_id": "x" * 254}, "worker_id has 254 characters"),
        ([1, 2], "Expected `object`"),
        (MESSAGE | {"pad": "x" * MOST_BYTES}, "at most 65536"),
    ],
)
def test_other_messages_are_refused_with_the_reason(message: Any, says: str) -> None:
    with pytest.raises(FpmError, match=says) as error:
        decode(msgspec.msgpack.encode(message))
    assert "\n" not in str(error.value)


@given(st.binary(max_size=300) | st.just(b"\x91" * 5000))
def test_noise_is_refused_and_nothing_worse(noise: bytes) -> None:
    with contextlib.suppress(FpmError):
        decode(noise)


def a_pass(worker_id: str = "a", wall_time_s: float = 0.02, **numbers: float) -> ForwardPassMetrics:
    return ForwardPassMetrics(worker_id=worker_id, wall_time_s=wall_time_s, num_decode=4, **numbers)


class Engines:
    """Publishers on loopback; XPUB tells when a subscriber has come, so that nothing is lost before."""

    def __init__(self) -> None:
        self._context = zmq_asyncio.Context()
        self._sockets: list[Any] = []

    def start(self, role: Role) -> tuple[Any, Publisher]:
        socket = self._context.socket(zmq.XPUB)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.SNDHWM, 0)
        port = socket.bind_to_random_port("tcp://127.0.0.1")
        self._sockets.append(socket)
        return socket, Publisher(endpoint=f"tcp://127.0.0.1:{port}", role=role)

    def stop(self) -> None:
        for socket in self._sockets:
            socket.close()
        self._context.term()


@contextlib.asynccontextmanager
async def listening(
    engines: Engines, publishers: Any, sockets: list[Any], **options: Any
) -> AsyncIterator[tuple[Any, list[float]]]:
    now_s = [0.0]
    source = fpm_source(CONFIG, publishers, options=FpmOptions(**options), clock=lambda: now_s[0])
    try:
        await source.start()
        for socket in sockets:
            assert await asyncio.wait_for(socket.recv(), BOUND_S) == b"\x01"
        yield source, now_s
    finally:
        await source.close()
        engines.stop()


async def send(socket: Any, *passes: ForwardPassMetrics | bytes) -> None:
    for number, one in enumerate(passes):
        payload = one if isinstance(one, bytes) else encode(one)
        await socket.send_multipart([b"", number.to_bytes(8, "big"), payload])


async def until(condition: Any) -> None:
    async with asyncio.timeout(BOUND_S):
        while not condition():
            await asyncio.sleep(0.001)


def test_every_pass_arrives_once_with_its_role_oldest_first() -> None:
    async def run() -> None:
        engines = Engines()
        prefill, decode_ = engines.start(Role.PREFILL), engines.start(Role.DECODE)
        sockets = [prefill[0], decode_[0]]
        async with listening(engines, [prefill[1], decode_[1]], sockets) as (source, _):
            await send(prefill[0], a_pass("p", 0.1), a_pass("p", 0.2))
            await send(decode_[0], a_pass("d", 0.01))
            await until(lambda: source.engines(Role.DECODE) and source.num_kept == 3)
            batches = await source.passes()
            assert batches[Role.PREFILL].wall_time_s.tolist() == [0.1, 0.2]
            assert batches[Role.DECODE].worker_id.tolist() == ["d"]
            assert await source.passes() == {}

    asyncio.run(run())


def test_a_queue_that_stands_in_equal_heartbeats_for_ten_minutes_no_longer_counts() -> None:
    """Trap 42: one stuck queue entry must not block scale-down for ever."""
    stands = ForwardPassMetrics(worker_id="d", wall_time_s=0.0, queued_num_decode=1)
    moves = ForwardPassMetrics(worker_id="d", wall_time_s=0.0, queued_num_decode=2)

    async def run() -> None:
        engines = Engines()
        socket, publisher = engines.start(Role.DECODE)
        async with listening(engines, [publisher], [socket]) as (source, now_s):
            queued = []
            for number, message in enumerate([*[stands] * 32, moves, stands]):
                now_s[0] = 20.0 * number
                await send(socket, message)
                await until(lambda: source.num_kept)
                queued.append(float((await source.passes())[Role.DECODE].queued_num_decode[0]))
            assert queued == [1.0] * 30 + [0.0, 0.0, 2.0, 1.0]

    asyncio.run(run())


def test_a_flood_leaves_the_latest_of_each_engine_in_bounded_memory() -> None:
    async def run() -> None:
        engines = Engines()
        socket, publisher = engines.start(Role.DECODE)
        async with listening(engines, [publisher], [socket], passes_per_engine=10) as (source, _):
            for number in range(20):
                await send(socket, *(a_pass("a", 1 + number + n / 1000) for n in range(200)))
                await asyncio.sleep(0)
                assert source.num_kept <= 10
            await until(lambda: source.dropped == 20 * 200 - 10)
            batch = (await source.passes())[Role.DECODE]
            assert batch.wall_time_s.tolist() == pytest.approx([20.19 + n / 1000 for n in range(10)])

    asyncio.run(run())


def test_more_engines_than_can_be_are_refused() -> None:
    async def run() -> None:
        engines = Engines()
        socket, publisher = engines.start(Role.DECODE)
        async with listening(engines, [publisher], [socket], max_engines=5) as (source, _):
            await send(socket, *(a_pass(f"pod-{n}") for n in range(50)))
            await until(lambda: source.dropped == 45)
            assert len((await source.passes())[Role.DECODE]) == 5

    asyncio.run(run())


def test_bad_messages_are_counted_and_the_good_ones_around_them_kept() -> None:
    async def run() -> None:
        engines = Engines()
        socket, publisher = engines.start(Role.DECODE)
        async with listening(engines, [publisher], [socket]) as (source, _):
            newer = msgspec.msgpack.encode(MESSAGE | {"version": 2})
            await send(socket, a_pass("a"), b"\xc1", newer, b"", a_pass("b"))
            await until(lambda: source.num_kept == 2)
            assert source.refused == {"malformed": 2, "version": 1}
            assert source.last_refusal
            assert len((await source.passes())[Role.DECODE]) == 2

    asyncio.run(run())


def test_engines_are_discovered_and_those_that_are_gone_are_forgotten() -> None:
    async def run() -> None:
        engines = Engines()
        first, second = engines.start(Role.DECODE), engines.start(Role.DECODE)
        known = [first[1]]
        async with listening(engines, lambda: known, [first[0]], expire_after_s=30) as (source, now_s):
            await send(first[0], a_pass("a"))
            await until(lambda: source.num_kept == 1)
            known[:] = [second[1]]
            assert list((await source.passes())[Role.DECODE].worker_id) == ["a"]
            assert await asyncio.wait_for(second[0].recv(), BOUND_S) == b"\x01"
            assert await asyncio.wait_for(first[0].recv(), BOUND_S) == b"\x00"  # no longer listened to
            now_s[0] = 20.0
            await send(second[0], a_pass("b"))
            await until(lambda: source.num_kept == 1)
            assert source.engines(Role.DECODE) == [("a", 0), ("b", 0)]
            now_s[0] = 40.0
            assert set(await source.passes()) == {Role.DECODE}
            assert source.engines(Role.DECODE) == [("b", 0)]

    asyncio.run(run())


def test_an_endpoint_that_is_none_is_named_and_the_others_are_heard() -> None:
    async def run() -> None:
        engines = Engines()
        socket, publisher = engines.start(Role.DECODE)
        wrong = Publisher(endpoint="nowhere", role=Role.DECODE)
        async with listening(engines, [wrong, publisher], [socket]) as (source, _):
            assert "nowhere" in str(source.last_refusal)
            await send(socket, a_pass("a"))
            await until(lambda: source.num_kept == 1)

    asyncio.run(run())


def test_a_publisher_of_another_role_is_refused() -> None:
    with pytest.raises(ConfigError, match="is of the role agg: must be prefill or decode"):
        fpm_source(CONFIG, [Publisher(endpoint="tcp://127.0.0.1:1", role=Role.AGG)])


def test_closing_what_never_listened_is_no_trouble() -> None:
    async def run() -> None:
        await fpm_source(CONFIG, []).close()

    asyncio.run(run())


def test_a_time_that_is_no_number_is_unknown_and_the_rest_is_known() -> None:
    record = decode(msgspec.msgpack.encode(MESSAGE | {"wall_time": math.nan}))
    assert math.isnan(record.wall_time_s)
    assert record.num_decode == 7
