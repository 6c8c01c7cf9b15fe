"""A store in a SQLite file, for planner and environment in two processes of one machine.

Write-ahead logging lets one read while the other writes. Every write is on the disk before ``swap`` returns, and a
process that is killed at any point leaves the text of before or of after, never half of it.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from planner_adapters.config_file import DEFAULT_NAMESPACE
from planner_adapters.virtual.store import Stored, StoreError

T = TypeVar("T")

BUSY_S = 10.0
"""How long to wait for another process that writes."""
POLL_S = 0.05
"""How often a file is looked at for a change: SQLite tells nobody."""


class SqliteStore:
    """A store in ``path``, which is made if it isn't there; ``name`` tells deployments in one file apart.

    :class:`StoreError` says what is wrong with the file when it is first used.
    """

    def __init__(self, path: str | Path, *, name: str = DEFAULT_NAMESPACE) -> None:
        self._path = Path(path)
        self._name = name
        self._lock = threading.Lock()
        self._file: sqlite3.Connection | None = None

    def __repr__(self) -> str:
        return f"SqliteStore({str(self._path)!r}, name={self._name!r})"

    async def read(self) -> Stored:
        """The newest text."""

        def select(file: sqlite3.Connection) -> Stored:
            rows = file.execute("SELECT text, version FROM ledger WHERE name = ?", (self._name,))
            text, version = rows.fetchone() or (None, 0)
            return Stored(text=text, version=version)

        return await self._run(select)

    async def swap(self, version: int, text: str) -> bool:
        """Writes if the version is still this one: one statement, so one transaction."""

        def write(file: sqlite3.Connection) -> bool:
            if version == 0:
                rows = file.execute(
                    "INSERT INTO ledger VALUES (?, ?, 1) ON CONFLICT DO NOTHING", (self._name, text)
                )
            else:
                rows = file.execute(
                    "UPDATE ledger SET text = ?, version = version + 1 WHERE name = ? AND version = ?",
                    (text, self._name, version),
                )
            return rows.rowcount == 1

        return await self._run(write)

    async def changed(self, version: int, timeout_s: float) -> None:
        """Returns when the version is another one, or after ``timeout_s``."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while (await self.read()).version == version:
                    await asyncio.sleep(POLL_S)

    async def close(self) -> None:
        """Closes the file."""
        with self._lock:
            if self._file is not None:
                self._file.close()
            self._file = None

    async def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return await asyncio.to_thread(self._locked, work)  # a disk, or another writer, may take its time

    def _locked(self, work: Callable[[sqlite3.Connection], T]) -> T:
        with self._lock:
            try:
                if self._file is None:
                    self._file = self._open()
                return work(self._file)
            except sqlite3.Error as error:
                raise StoreError(f"{self._path}: {error}") from None

    def _open(self) -> sqlite3.Connection:
        file = sqlite3.connect(self._path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
        try:
            _log_ahead(file)
            file.execute("PRAGMA synchronous = FULL")  # else the last decisions are lost with the power
            file.execute(
                "CREATE TABLE IF NOT EXISTS ledger"
                " (name TEXT PRIMARY KEY, text TEXT NOT NULL, version INTEGER NOT NULL)"
            )
        except sqlite3.Error:
            file.close()
            raise
        return file


def _log_ahead(file: sqlite3.Connection) -> None:
    """Write-ahead logging from now on.

    While another process writes, SQLite refuses to change over at once, whatever its timeout, so the waiting is ours:
    two that open a new file together both get in.
    """
    until = time.monotonic() + BUSY_S
    while True:
        try:
            file.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
            time.sleep(POLL_S)
