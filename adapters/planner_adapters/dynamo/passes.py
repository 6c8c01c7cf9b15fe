"""Forward passes from files: JSON lines, each one pass of one engine.

Two spellings are read, plain or gzipped, in one file or in the ``.jsonl`` files of a folder:

- the fields of :class:`~planner_core.ForwardPassMetrics`, flat; all but ``worker_id`` and ``wall_time_s`` may be left
  out;
- Dynamo's messages: ``worker_id``, ``dp_rank``, ``wall_time`` and the objects ``scheduled_requests`` and
  ``queued_requests`` (schema version 1).

``role`` may say ``prefill``, ``decode`` or ``agg``; else the file's name does, as in ``prefill.jsonl``; else what the
engine did: prompts, decodes, or both.
"""

from __future__ import annotations

import difflib
import gzip
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs

from planner_core import ForwardPassMetrics, FpmBatch, PlannerError, Role

SUFFIXES = (".jsonl", ".ndjson")
_FIELDS = {field.name for field in attrs.fields(ForwardPassMetrics)}
_SCHEDULED = {
    "num_prefill_requests": "num_prefill",
    "sum_prefill_tokens": "prefill_tokens",
    "var_prefill_length": "var_prefill_length",
    "sum_prefill_kv_tokens": "prefill_kv_tokens",
    "num_decode_requests": "num_decode",
    "sum_decode_kv_tokens": "decode_kv_tokens",
    "var_decode_kv_tokens": "var_decode_kv_tokens",
}
"""Dynamo's names and ours. Those of the queue are the same, and ours begin with ``queued_``."""


class PassesError(PlannerError):
    """Passes that can't be read; one line that names the file, the line and the mend."""


def load_passes(path: str | Path) -> dict[Role, FpmBatch]:
    """The passes at ``path`` by the role of their engine, oldest first as they stand in the files."""
    path = Path(path)
    files = sorted(f for f in path.iterdir() if _is_lines(f)) if path.is_dir() else [path]
    if not files:
        raise PassesError(f"{path}: holds no {' or '.join(SUFFIXES)} files; write one pass per line")
    by_engine: dict[tuple[str, str], list[ForwardPassMetrics]] = {}
    for file in files:
        for role, record in _records(file):
            by_engine.setdefault((role, record.worker_id), []).append(record)
    if not by_engine:
        raise PassesError(f"{path}: holds no pass; write one JSON object per line")
    by_role: dict[Role, list[ForwardPassMetrics]] = {}
    for (role, _), records in by_engine.items():
        by_role.setdefault(Role(role) if role else _role_of(records), []).extend(records)
    return {role: FpmBatch.of(by_role[role]) for role in Role if role in by_role}


def _is_lines(file: Path) -> bool:
    return file.is_file() and any(suffix in SUFFIXES for suffix in file.suffixes[-2:])


def _role_of(records: list[ForwardPassMetrics]) -> Role:
    prompts = any(record.prefill_tokens > 0 for record in records)
    decodes = any(record.num_decode > 0 for record in records)
    return Role.AGG if prompts and decodes else Role.PREFILL if prompts else Role.DECODE


def _records(file: Path) -> Iterator[tuple[str, ForwardPassMetrics]]:
    by_name = next((str(role) for role in Role if role in file.name.lower()), "")
    try:
        with (gzip.open if file.suffix == ".gz" else open)(file, "rt", encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield _record(f"{file}:{number}", line, by_name)
    except (OSError, EOFError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "is neither text nor gzip"
        raise PassesError(f"{file}: {reason}") from None


def _record(where: str, line: str, role: str) -> tuple[str, ForwardPassMetrics]:
    try:
        data = json.loads(line)
    except (ValueError, RecursionError):
        raise PassesError(f"{where}: is no JSON; write one object per line") from None
    if not isinstance(data, dict):
        raise PassesError(f"{where}: is a {type(data).__name__}; write one object per line")
    role = data.pop("role", role)
    if role not in ("", *Role):
        raise PassesError(f"{where}: role = {role!r}: must be one of {', '.join(Role)}")
    values = _from_dynamo(where, data) if "wall_time" in data else data
    for name, value in values.items():
        if name not in _FIELDS:
            near = difflib.get_close_matches(name, _FIELDS, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise PassesError(f"{where}: there is no field {name!r}{hint}")
        if name != "worker_id" and (isinstance(value, bool) or not isinstance(value, (int, float))):
            raise PassesError(f"{where}: {name} = {value!r}: must be a number")
    missing = {"worker_id", "wall_time_s"} - values.keys()
    if missing:
        raise PassesError(f"{where}: lacks {' and '.join(sorted(missing))}")
    return role, ForwardPassMetrics(**values | {"worker_id": str(values["worker_id"])})


def _from_dynamo(where: str, data: Mapping[str, Any]) -> dict[str, Any]:
    if data.get("version", 1) != 1:
        raise PassesError(f"{where}: version = {data['version']!r}: must be 1, the schema that is read here")
    values = {"worker_id": data.get("worker_id", ""), "wall_time_s": data["wall_time"]}
    values["dp_rank"] = data.get("dp_rank", 0)
    for section, prefix in (("scheduled_requests", ""), ("queued_requests", "queued_")):
        part = data.get(section) or {}
        if not isinstance(part, dict):
            raise PassesError(f"{where}: {section} = {part!r}: must be an object")
        values |= {prefix + ours: part[theirs] for theirs, ours in _SCHEDULED.items() if theirs in part}
    values.pop("queued_prefill_kv_tokens", None)  # nobody knows yet what the cache will serve
    return values
