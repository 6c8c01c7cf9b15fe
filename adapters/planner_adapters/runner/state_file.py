"""The planner's memory on disk: written whole or not at all, read back at the start, refused if it can't be meant."""

from __future__ import annotations

import os
from pathlib import Path

import attrs

from planner_core import PlannerConfig, PlannerError, PlannerState
from planner_core.codec import CodecError, dumps, loads

MAX_BYTES = 256_000_000


class StateError(PlannerError):
    """A state file that can't be read or doesn't fit the deployment; one line with the file and what to do."""


@attrs.frozen(kw_only=True)
class Saved:
    """What a state file holds: the memory, and the configuration that it was gathered under."""

    config: PlannerConfig
    state: PlannerState


def write_state(path: str | Path, saved: Saved) -> None:
    """Replaces the file at once: whoever reads it, or whatever fails, finds the old one or the new one.

    ``OSError`` leaves the old one. ``CodecError`` for a predictor or model that isn't registered.
    """
    path = Path(path).resolve()  # a link stays one
    temporary = path.with_name(f".{path.name}.new")
    data = memoryview(dumps(saved).encode())
    file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        while data:
            data = data[os.write(file, data) :]
        os.fsync(file)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    finally:
        os.close(file)
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read_state(path: str | Path) -> Saved | None:
    """What was written last; ``None`` if there is no such file. :class:`StateError` if it can't be read."""
    path = Path(path)
    anew = "move it away to begin without a past"
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StateError(f"{path}: can't be read ({error.strerror or error})") from None
    if len(data) > MAX_BYTES:
        raise StateError(f"{path}: is larger than {MAX_BYTES:,} bytes; that is no state: {anew}")
    try:
        return loads(data, Saved)
    except (CodecError, UnicodeDecodeError) as error:
        raise StateError(
            f"{path}: is no state of this planner ({' '.join(str(error).split())}): {anew}"
        ) from None
