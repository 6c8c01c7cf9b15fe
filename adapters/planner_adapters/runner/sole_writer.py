"""One planner per file: two that write the same memory or journal would undo each other's ticks without a word."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from planner_adapters.runner.logs import log, logfmt
from planner_core import PlannerError

_NO_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS}
_FULL = {errno.ENOSPC, errno.EDQUOT}


class InUseError(PlannerError):
    """A file that another process writes; one line with the file, the process and what to do."""


@contextmanager
def sole_writer(*paths: Path | None) -> Iterator[None]:
    """Keeps every other process from entering with one of these files, while it is open.

    The system holds the locks, on ``.NAME.lock`` beside each file, and lets go of them however this process ends; the
    lock files stay. :class:`InUseError` where another process is in, ``OSError`` where the folder can't
    be written. What is no file, such as ``/dev/null``, is anybody's. A file system without locks, or a full one, stops
    nothing: the log says so.
    """
    with ExitStack() as stack:
        for path in paths:
            if path is not None and (path.is_file() or not path.exists()):
                stack.enter_context(_locked(path))
        yield


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    real = path.resolve()  # two links to one file are one file
    try:
        lock = os.open(real.with_name(f".{real.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        if error.errno not in _FULL:
            raise OSError(error.errno, error.strerror, str(path)) from None
        log.warning(logfmt("not locked", file=path, error=error.strerror))
        yield
        return
    try:
        _take(lock, path)
        yield
    finally:
        os.close(lock)


def _take(lock: int, path: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.truncate(lock, 0)
        os.write(lock, str(os.getpid()).encode())
    except BlockingIOError:
        process = os.read(lock, 20).decode(errors="replace")
        raise InUseError(
            f"{path}: another planner writes it (process {process or 'unknown'}): stop that one, or name another file"
        ) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS | _FULL:
            raise
        log.warning(logfmt("not locked", file=path, error=error.strerror))
