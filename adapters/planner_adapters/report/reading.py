"""A journal, read for a report: several times as fast as whole, since what a planner remembers isn't looked at."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from planner_adapters.journal import JournalError
from planner_core import (
    Decision,
    Diagnostics,
    Explanation,
    FpmBatch,
    NextTick,
    ObservedLatencies,
    PlannerConfig,
    Role,
    TickInput,
    TrafficForecast,
    TrafficObservation,
    WorkerCounts,
    initial_state,
)
from planner_core.codec import CodecError, from_data


def skim_journal(
    path: str | Path, *, done: Callable[[float], None] = lambda share: None
) -> Iterator[tuple[TickInput, Decision]]:
    """The ticks of a journal, oldest first, as ``read_journal`` gives them, but for two things.

    States are those of a planner that has just begun, and of each role's passes there is the latest one alone. A line
    that its writer was killed in is left out; :class:`~planner_adapters.journal.JournalError` for anything else that
    can't be read. ``done`` is told the share of the file that was read.
    """
    path = Path(path)
    config: PlannerConfig | None = None
    broken: int | None = None
    try:
        with path.open("rb") as file:
            size, position = max(1, os.fstat(file.fileno()).st_size), 0
            for number, line in enumerate(file, 1):
                position += len(line)
                done(position / size)
                record = _record(line)
                if record is None:
                    broken = broken or (number if line.endswith(b"\n") else None)
                    continue
                given, decided = (_part(path, number, record, name) for name in ("input", "decision"))
                if broken is not None and given.get("config") is None:
                    break
                broken = None  # half a line, and a new writer came after it
                try:
                    if given.get("config") is not None:
                        config = from_data(given["config"], PlannerConfig)
                        state = initial_state(config, 0.0)
                    if config is None:
                        raise CodecError("it has no configuration, and none stands before it")
                    yield _input(given, config, state), _decision(decided, state)
                except (CodecError, KeyError) as error:
                    raise JournalError(f"{path}, line {number}: is no tick: {error}") from None
    except OSError as error:
        raise JournalError(f"{path}: can't be read ({error.strerror or error})") from None
    if broken is not None:
        raise JournalError(f"{path}, line {broken}: is not JSON; is it a journal?")


def _record(line: bytes) -> Any:
    for decode in (
        msgspec.json.decode,
        json.loads,
    ):  # the second knows half a surrogate pair in an engine's name
        try:
            return decode(line)
        except ValueError:
            continue
    return None


def _part(path: Path, number: int, record: Any, name: str) -> dict[str, Any]:
    part = record.get(name) if isinstance(record, dict) else None
    if not isinstance(part, dict):
        raise JournalError(f"{path}, line {number}: has no {name}; is it a journal?")
    return part


def _input(given: dict[str, Any], config: PlannerConfig, state: Any) -> TickInput:
    latest = {
        role: {name: column[-1:] for name, column in columns.items()}
        for role, columns in (given.get("fpm") or {}).items()
    }
    return TickInput(
        config=config,
        state=state,
        now_s=from_data(given["now_s"], float),
        workers=from_data(given.get("workers") or {}, dict[Role, WorkerCounts]),
        fpm=from_data(latest, dict[Role, FpmBatch]),
        traffic=_optional(given, "traffic", TrafficObservation),
        forecast=_optional(given, "forecast", TrafficForecast),
        observed=_optional(given, "observed", ObservedLatencies),
    )


def _optional(given: dict[str, Any], name: str, cls: Any) -> Any:
    return None if given.get(name) is None else from_data(given[name], cls)


def _decision(decided: dict[str, Any], state: Any) -> Decision:
    return Decision(
        replicas=from_data(decided["replicas"], dict[Role, int]),
        drain=from_data(decided["drain"], dict[Role, tuple[str, ...]]),
        explanations=from_data(decided["explanations"], dict[Role, Explanation]),
        diagnostics=from_data(decided["diagnostics"], Diagnostics),
        state=state,
        next_tick=from_data(decided["next_tick"], NextTick),
    )
