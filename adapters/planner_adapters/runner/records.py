"""What a tick leaves behind, in the order that makes a kill at any point harmless.

First the journal, then the state file, and only then is the order carried out. So every order that an environment has
seen stands in the journal; and where a planner was killed between the two files, the last line of the journal is the
newer memory, and the next tick goes on from it. An order that was still to be carried out is not carried out late: the
next tick decides on what it finds, and targets are absolute.
"""

from __future__ import annotations

import errno
from pathlib import Path

from planner_adapters.journal import Journal, last_decision
from planner_adapters.runner.state_file import Saved, StateError, read_state, write_state
from planner_core import Decision, PlannerConfig, PlannerState, TickInput

_MAY_PASS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}
"""Failures of a disk that work may go on with; others (no such folder, not allowed) are mistakes to be told."""


class Records:
    """Journal and state file, either or both. A full disk stops nothing: what was lost is counted and said."""

    def __init__(self, *, journal: str | Path | None = None, state: str | Path | None = None) -> None:
        self._state = None if state is None else Path(state)
        self._journal = None if journal is None else Journal(journal, sync=True)
        self.lost_states = 0
        """State files that could not be written."""
        self.problem: str | None = None
        """What went wrong at the last tick; ``None``: all was written."""

    @property
    def lost_ticks(self) -> int:
        """Ticks that are missing in the journal."""
        return 0 if self._journal is None else self._journal.lost

    def begin(self, config: PlannerConfig, state: PlannerState) -> None:
        """Writes the first state. ``OSError`` if the file can never be written, ``CodecError`` likewise."""
        try:
            self._save(config, state)
        except OSError as error:
            if error.errno not in _MAY_PASS:
                raise

    def write(self, inputs: TickInput, decision: Decision) -> None:
        """Journal, then state."""
        problems = []
        try:
            if self._journal is not None:
                self._journal.append(inputs, decision)
        except OSError as error:
            problems.append(f"journal: {error.strerror} ({self.lost_ticks} ticks lost)")
        try:
            self._save(inputs.config, decision.state)
        except OSError as error:
            self.lost_states += 1
            problems.append(f"state: {error.strerror} ({self.lost_states} not written)")
        self.problem = "; ".join(problems) or None

    def _save(self, config: PlannerConfig, state: PlannerState) -> None:
        if self._state is not None:
            write_state(self._state, Saved(config=config, state=state))

    def close(self) -> None:
        """Closes the journal."""
        if self._journal is not None:
            self._journal.close()


def remembered(*, state: str | Path | None, journal: str | Path | None) -> Saved | None:
    """The newest memory: that of the state file, or of the journal's last line if that is a tick ahead of it.

    ``None`` if there is no state file yet. :class:`StateError` or ``JournalError`` if one of them can't be read.
    """
    saved = None if state is None else read_state(state)
    if saved is None or journal is None:
        return saved
    last = last_decision(journal)
    if last is None or last.state.schedule.last_tick_s <= saved.state.schedule.last_tick_s:
        return saved
    if set(last.state.roles) != set(saved.config.engines):
        raise StateError(f"{journal} and {state} are of different deployments; name those of one")
    return Saved(config=saved.config, state=last.state)
