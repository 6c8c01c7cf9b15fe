"""Log lines: one per event, as ``key=value`` (logfmt), whatever the values hold."""

from __future__ import annotations

import json
import logging
import re
import time
from typing import Any

from planner_core import Decision

log = logging.getLogger("planner")

_PLAIN = re.compile(r"[\w.:/+*,%@-]+", re.ASCII)
MAX_VALUE = 4_000
"""Characters of one value; the rest of a longer one is cut off, and the cut shown."""


def logfmt(event: str, **fields: Any) -> str:
    """``event=decision prefill=3 why="…"``; a field that is ``None`` is left out.

    Line breaks, terminal codes and other characters that don't show are escaped, so that no name of an engine can forge
    a line.
    """
    return " ".join(
        f"{key}={_value(value)}" for key, value in {"event": event, **fields}.items() if value is not None
    )


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    text = f"{value:.3f}" if isinstance(value, float) else str(value)
    if len(text) > MAX_VALUE:
        text = f"{text[:MAX_VALUE]}… ({len(text) - MAX_VALUE} more)"
    if _PLAIN.fullmatch(text):
        return text
    quoted = json.dumps(text, ensure_ascii=False)
    return quoted if quoted.isprintable() else "".join(map(_shown, quoted))


def _shown(character: str) -> str:
    return character if character.isprintable() else json.dumps(character)[1:-1]


def decision_line(now_s: float, decision: Decision, **fields: Any) -> str:
    """A decision on one line: the replicas of each role, and why."""
    replicas = {str(role): count for role, count in decision.replicas.items()}
    why = " | ".join(explanation.sentence() for explanation in decision.explanations.values())
    return logfmt("decision", at_s=float(now_s), **replicas, **fields, why=why)


class LogfmtFormatter(logging.Formatter):
    """Time and level before a message that is logfmt already."""

    def __init__(self) -> None:
        super().__init__("time=%(asctime)s.%(msecs)03dZ level=%(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S")
        self.converter = time.gmtime

    def format(self, record: logging.LogRecord) -> str:
        """One line; that of a foreign library becomes a field."""
        if record.name != log.name:
            record = logging.makeLogRecord(
                {
                    **record.__dict__,
                    "msg": logfmt("log", logger=record.name, message=record.getMessage()),
                    "args": (),
                    "exc_info": None,
                    "exc_text": None,
                    "stack_info": None,
                }
            )
        return super().format(record)
