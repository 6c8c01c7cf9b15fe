"""A journal of ticks: what went in and what was decided, one JSON line each, appended and never changed.

Since a tick is a pure function, a journal is enough to make every decision again, to ask "what if?", and to
draw reports. Configuration and state of an input are left out where the line before says them already (the
state that goes in is the one that came out), so that a line stays small; the first line of each writer has
both.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from planner_core import Decision, TickInput
from planner_core.codec import CodecError, from_data, to_data


class JournalError(ValueError):
    """A journal that can't be read; one line with file and line number."""


class Journal:
    """Appends ticks to a file. Each line is flushed before :meth:`append` returns; use it with ``with``."""

    def __init__(self, path: str | Path) -> None:
        self._file = Path(path).open("ab+")  # noqa: SIM115  # closed by close()
        self._before: tuple[TickInput, Decision] | None = None
        if self._file.tell():
            self._file.seek(-1, 2)
            if self._file.read(1) != b"\n":  # a writer was killed in the middle of its line
                self._file.write(b"\n")

    def append(self, inputs: TickInput, decision: Decision) -> None:
        """Writes one tick."""
        given = to_data(inputs)
        if self._before is not None:
            last_input, last_decision = self._before
            if inputs.config is last_input.config:
                given["config"] = None
            if inputs.state is last_decision.state:
                given["state"] = None
        line = {"input": given, "decision": to_data(decision)}
        self._file.write(json.dumps(line, separators=(",", ":"), allow_nan=False).encode() + b"\n")
        self._file.flush()
        self._before = inputs, decision

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_journal(path: str | Path) -> Iterator[tuple[TickInput, Decision]]:
    """The ticks of a journal, oldest first. A line that its writer was killed in is no tick, and left out.

    :class:`JournalError` for anything else that can't be read.
    """
    path = Path(path)
    config: Any = None
    state: Any = None
    broken: int | None = None
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    record = json.loads(line)
                except ValueError:
                    if line.endswith(b"\n"):  # may be half a line, if a new writer comes after it
                        broken = broken or number
                    continue
                given, decided = _halves(path, number, record)
                if broken is not None and given.get("config") is None:
                    break
                broken = None
                given["config"] = config = given.get("config") or config
                given["state"] = given.get("state") or state
                state = decided.get("state")
                try:
                    yield from_data(given, TickInput), from_data(decided, Decision)
                except CodecError as error:
                    raise JournalError(f"{path}, line {number}: is no tick: {error}") from None
    except OSError as error:
        raise JournalError(f"{path}: can't be read ({error.strerror or error})") from None
    if broken is not None:
        raise JournalError(f"{path}, line {broken}: is not JSON; is it a journal?")


def _halves(path: Path, number: int, record: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    given = record.get("input") if isinstance(record, dict) else None
    decided = record.get("decision") if isinstance(record, dict) else None
    if not isinstance(given, dict) or not isinstance(decided, dict):
        raise JournalError(f"{path}, line {number}: has no input and decision; is it a journal?")
    return given, decided
