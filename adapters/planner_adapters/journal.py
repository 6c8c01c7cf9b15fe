"""A journal of ticks: what went in and what was decided, one JSON line each, appended and never changed.

Since a tick is a pure function, a journal is enough to make every decision again, to ask "what if?", and to
draw reports. Configuration and state of an input are left out where the line before says them already (the
state that goes in is the one that came out), so that a line stays small; the first line of each writer has
both.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from planner_core import Decision, TickInput
from planner_core.codec import CodecError, from_data, to_data


class JournalError(ValueError):
    """A journal that can't be read; one line with file and line number."""


class Journal:
    """Appends ticks to a file: a tick is a whole line, in the file before :meth:`append` returns, or it isn't there.

    Use it with ``with``. With ``sync`` a line is on the disk, too, and outlives a power cut.
    """

    def __init__(self, path: str | Path, *, sync: bool = False) -> None:
        self._file = Path(path).open("ab+", buffering=0)  # noqa: SIM115  # closed by close()
        self._sync = sync
        self._before: tuple[TickInput, Decision] | None = None
        self._lost_since = 0
        size = os.fstat(self._file.fileno()).st_size
        # a writer may have been killed in the middle of its line
        self._torn = size > 0 and os.pread(self._file.fileno(), 1, size - 1) != b"\n"
        self.lost = 0
        """Ticks that could not be written."""

    def append(self, inputs: TickInput, decision: Decision) -> None:
        """Writes one tick. ``OSError`` if that can't be done: the tick is counted as lost, and no part of it stays.

        The next line then says everything anew, and under ``lost`` how many are missing before it.
        """
        given = to_data(inputs)
        if self._before is not None:
            last_input, last_decision = self._before
            if inputs.config is last_input.config:
                given["config"] = None
            if inputs.state is last_decision.state:
                given["state"] = None
        lost = {"lost": self._lost_since} if self._lost_since else {}
        line = {**lost, "input": given, "decision": to_data(decision)}
        try:
            self._write(json.dumps(line, separators=(",", ":"), allow_nan=False).encode() + b"\n")
        except OSError:
            self.lost += 1
            self._lost_since += 1
            self._before = None
            raise
        self._lost_since = 0
        self._before = inputs, decision

    def _write(self, line: bytes) -> None:
        """The whole line or nothing."""
        file = self._file.fileno()
        size = os.fstat(file).st_size
        rest = memoryview(b"\n" + line if self._torn else line)
        try:
            while rest:
                rest = rest[os.write(file, rest) :]
            if self._sync:
                os.fsync(file)
        except OSError:
            try:
                os.ftruncate(file, size)
            except OSError:  # such as /dev/full, which keeps nothing anyway
                self._torn = True
            raise
        self._torn = False

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


def last_decision(path: str | Path) -> Decision | None:
    """The last decision of a journal, read from its end, however long it is; ``None`` if it has none or isn't there.

    :class:`JournalError` for a file that is no journal.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            for line in _backwards(file):
                try:
                    record = json.loads(line)
                except ValueError:  # half a line
                    continue
                return from_data(_halves(path, None, record)[1], Decision)
            if file.seek(0, os.SEEK_END):
                raise JournalError(f"{path}: holds no tick; is it a journal?")
    except FileNotFoundError:
        return None
    except CodecError as error:
        raise JournalError(f"{path}, last line: is no tick: {error}") from None
    except OSError as error:
        raise JournalError(f"{path}: can't be read ({error.strerror or error})") from None
    return None


def _backwards(file: IO[bytes], block: int = 1 << 16) -> Iterator[bytes]:
    """The lines of a file, last one first."""
    position, tail = file.seek(0, os.SEEK_END), b""
    while position:
        start = max(0, position - block)
        file.seek(start)
        first, *lines = (file.read(position - start) + tail).split(b"\n")
        yield from (line for line in reversed(lines) if line)
        position, tail = start, first
    if tail:
        yield tail


def _halves(path: Path, number: int | None, record: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    given = record.get("input") if isinstance(record, dict) else None
    decided = record.get("decision") if isinstance(record, dict) else None
    if not isinstance(given, dict) or not isinstance(decided, dict):
        where = "last line" if number is None else f"line {number}"
        raise JournalError(f"{path}, {where}: has no input and decision; is it a journal?")
    return given, decided
