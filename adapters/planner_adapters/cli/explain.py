"""Explain one decision of a journal: what was seen, what was decided, what would have changed it.

With --what-if the same tick is made again under another configuration.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import deque
from collections.abc import Mapping
from typing import Any

import attrs

from planner_adapters.config_file import read_value
from planner_adapters.explain import Story, Turned, story_of, turning_points, with_config
from planner_adapters.explain.story import changes
from planner_adapters.journal import JournalError, read_journal
from planner_core import Decision, TickInput, tick
from planner_core.codec import to_data

HELP = "why was that decided? One tick of a journal, and what would have changed it"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``planner explain``."""
    add = parser.add_argument
    add("journal", metavar="JOURNAL", help="as written by planner run or replay with --journal")
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--tick", type=int, metavar="N", help="the N-th tick, from 1; negative: from the end (default: -1)"
    )
    which.add_argument(
        "--at",
        type=float,
        metavar="TIME",
        help="the last tick at or before this time, in seconds of the journal",
    )
    add(
        "--what-if",
        type=_setting,
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="make the tick again with this key changed; may be given several times",
    )
    add("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Prints."""
    number, inputs, recorded = _find(arguments.journal, arguments.tick, arguments.at)
    decision = tick(inputs)
    story, turned = story_of(inputs, decision), turning_points(inputs)
    other = tick(with_config(inputs, dict(arguments.what_if))) if arguments.what_if else None
    if arguments.json:
        print(json.dumps(_data(number, inputs, decision, story, turned, recorded, other)))  # noqa: T201
        return 0
    _say(f"{number}. {story.title}")
    _say(*story.lines, *(("would change", each.sentence()) for each in turned))
    if decision.replicas != recorded.replicas:
        _say(("note", "the journal says otherwise: it was written by another version"))
    if other is not None:
        asked = ", ".join(f"{key}={value}" for key, value in arguments.what_if)
        found = changes(decision.replicas, other.replicas) or ["the same replicas"]
        _say(f"with {asked}: {', '.join(found)}")
        _say(*((str(role), why.sentence()) for role, why in other.explanations.items()))
    return 0


def _say(*lines: str | tuple[str, str]) -> None:
    for line in lines:
        text = line if isinstance(line, str) else f"  {line[0]:<13} {line[1]}"
        print(text)  # noqa: T201


def _setting(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise argparse.ArgumentTypeError(f"{text!r} has no KEY=VALUE")
    return key.strip(), read_value(value)


def _find(path: str, number: int | None, at_s: float | None) -> tuple[int, TickInput, Decision]:
    """The tick that was asked for, with its number from 1."""
    if number is None and at_s is None:
        number = -1
    kept: deque[tuple[int, TickInput, Decision]] = deque(maxlen=1 if number is None else max(1, -number))
    count = 0
    for count, (inputs, decision) in enumerate(read_journal(path), 1):
        if at_s is not None and inputs.now_s > at_s:
            break
        kept.append((count, inputs, decision))
        if count == number:
            break
    if not kept or (number is not None and (number == 0 or count < abs(number))):
        wanted = f"number {number}" if at_s is None else f"at or before {at_s:g} s"
        raise JournalError(f"{path}: has no tick {wanted}; it holds {count:,}")
    return kept[0]


def _data(
    number: int,
    inputs: TickInput,
    decision: Decision,
    story: Story,
    turned: list[Turned],
    recorded: Decision,
    other: Decision | None,
) -> dict[str, Any]:
    return {
        "tick": number,
        "at_s": inputs.now_s,
        "replicas": {str(role): count for role, count in decision.replicas.items()},
        "recorded_replicas": {str(role): count for role, count in recorded.replicas.items()},
        "explanations": {str(role): to_data(why) for role, why in decision.explanations.items()},
        "diagnostics": to_data(decision.diagnostics),
        "story": [{"about": about, "says": says} for about, says in story.lines],
        "candidates": {
            str(role): [_finite(attrs.asdict(candidate)) for candidate in each]
            for role, each in story.candidates.items()
        },
        "would_change": [
            {
                "quantity": each.quantity,
                "unit": each.unit,
                "was": each.was,
                "value": each.value,
                "replicas": {str(role): count for role, count in each.replicas.items()},
            }
            for each in turned
        ],
        "what_if": None
        if other is None
        else {
            "replicas": {str(role): count for role, count in other.replicas.items()},
            "explanations": {str(role): to_data(why) for role, why in other.explanations.items()},
        },
    }


def _finite(values: Mapping[str, Any]) -> dict[str, Any]:
    """JSON knows no infinity: ``null`` is a latency without end."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in values.items()
    }
