"""ForwardPassMetrics as Dynamo's engines publish them: msgpack on ZMQ, schema version 1, one message per pass.

A message is a map. On the wire it is the last frame; publishers put a topic and a sequence number before it.
"""

from __future__ import annotations

from typing import Any

import msgspec

from planner_core import ForwardPassMetrics, PlannerError

VERSION = 1
MOST_BYTES = 65_536
"""Longer messages are refused unread."""
LONGEST_ID = 253
"""Characters of a worker's name; columns of ids are as wide as the longest."""


class FpmError(PlannerError):
    """A message that can't be read; one line that says why."""


class _Scheduled(msgspec.Struct, frozen=True, gc=False):
    num_prefill_requests: float = 0
    sum_prefill_tokens: float = 0
    var_prefill_length: float = 0.0
    sum_prefill_kv_tokens: float = 0
    num_decode_requests: float = 0
    sum_decode_kv_tokens: float = 0
    var_decode_kv_tokens: float = 0.0


class _Queued(msgspec.Struct, frozen=True, gc=False):
    num_prefill_requests: float = 0
    sum_prefill_tokens: float = 0
    var_prefill_length: float = 0.0
    num_decode_requests: float = 0
    sum_decode_kv_tokens: float = 0
    var_decode_kv_tokens: float = 0.0


class _Message(msgspec.Struct, frozen=True, gc=False):
    worker_id: str | int
    wall_time: float
    version: int = VERSION
    dp_rank: int = 0
    counter_id: int = 0
    scheduled_requests: _Scheduled = _Scheduled()
    queued_requests: _Queued = _Queued()


_DECODER = msgspec.msgpack.Decoder(_Message)
_ENCODER = msgspec.msgpack.Encoder()


def decode(payload: bytes) -> ForwardPassMetrics:
    """The pass that a message tells. Fields that are missing are 0, as the schema says; unknown ones are passed over.

    :class:`FpmError` if it is no such message, has another version, or is too long.
    """
    if len(payload) > MOST_BYTES:
        raise FpmError(f"a message of {len(payload)} bytes: at most {MOST_BYTES} are read")
    try:
        message = _DECODER.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        version = _version_of(payload)
        if version not in (None, VERSION):
            raise _wrong_version(version) from None
        raise FpmError(f"a message that is no ForwardPassMetrics: {error}") from None
    if message.version != VERSION:
        raise _wrong_version(message.version)
    worker_id = str(message.worker_id)
    if not 0 < len(worker_id) <= LONGEST_ID:
        raise FpmError(f"worker_id has {len(worker_id)} characters: must have 1 to {LONGEST_ID}")
    now, queued = message.scheduled_requests, message.queued_requests
    return ForwardPassMetrics(
        worker_id=worker_id,
        dp_rank=message.dp_rank,
        wall_time_s=message.wall_time,
        num_prefill=now.num_prefill_requests,
        prefill_tokens=now.sum_prefill_tokens,
        prefill_kv_tokens=now.sum_prefill_kv_tokens,
        var_prefill_length=now.var_prefill_length,
        num_decode=now.num_decode_requests,
        decode_kv_tokens=now.sum_decode_kv_tokens,
        var_decode_kv_tokens=now.var_decode_kv_tokens,
        queued_num_prefill=queued.num_prefill_requests,
        queued_prefill_tokens=queued.sum_prefill_tokens,
        queued_var_prefill_length=queued.var_prefill_length,
        queued_num_decode=queued.num_decode_requests,
        queued_decode_kv_tokens=queued.sum_decode_kv_tokens,
        queued_var_decode_kv_tokens=queued.var_decode_kv_tokens,
    )


def encode(record: ForwardPassMetrics, *, counter_id: int = 0) -> bytes:
    """The message that tells a pass: ``decode(encode(record)) == record``."""
    return _ENCODER.encode(
        _Message(
            version=VERSION,
            worker_id=record.worker_id,
            dp_rank=record.dp_rank,
            counter_id=counter_id,
            wall_time=record.wall_time_s,
            scheduled_requests=_Scheduled(
                num_prefill_requests=record.num_prefill,
                sum_prefill_tokens=record.prefill_tokens,
                var_prefill_length=record.var_prefill_length,
                sum_prefill_kv_tokens=record.prefill_kv_tokens,
                num_decode_requests=record.num_decode,
                sum_decode_kv_tokens=record.decode_kv_tokens,
                var_decode_kv_tokens=record.var_decode_kv_tokens,
            ),
            queued_requests=_Queued(
                num_prefill_requests=record.queued_num_prefill,
                sum_prefill_tokens=record.queued_prefill_tokens,
                var_prefill_length=record.queued_var_prefill_length,
                num_decode_requests=record.queued_num_decode,
                sum_decode_kv_tokens=record.queued_decode_kv_tokens,
                var_decode_kv_tokens=record.queued_var_decode_kv_tokens,
            ),
        )
    )


def _version_of(payload: bytes) -> Any:
    """What another schema calls itself; ``None`` if it doesn't."""
    try:
        data = msgspec.msgpack.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return data.get("version") if isinstance(data, dict) else None


def _wrong_version(version: Any) -> FpmError:
    return FpmError(
        f"version = {str(version)[:20]}: must be {VERSION}, the schema that is read here; update one of both"
    )
