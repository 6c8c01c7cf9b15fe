"""What a planner's health is: does its loop turn, and is it fed?

A planner without inputs holds everything as it is, which looks like peace. So an input that was asked for and didn't
come is a health problem, with its age.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import attrs

from planner_adapters.environment import Measured
from planner_core import NextTick, PlannerConfig

GRACE_S = 60.0
"""A tick that is overdue by more than this is taken for a loop that no longer turns."""
STALE_S = 60.0
"""An input that failed to come is missed once it was last had this long ago."""


@attrs.frozen(kw_only=True)
class Feed:
    """When an input was asked for last, and when it came."""

    asked_s: float
    came_s: float | None = None
    """``None``: never."""
    first_s: float
    """When it was asked for first."""

    def fed(self, now_s: float) -> bool:
        """Whether it came when it was asked for last, or not long ago."""
        return self.came_s is not None and (self.came_s >= self.asked_s or now_s - self.came_s < STALE_S)

    def age_s(self, now_s: float) -> float:
        """How long ago it came; if it never did, since when it has been missed."""
        return now_s - (self.first_s if self.came_s is None else self.came_s)


def came(name: str, measured: Measured) -> bool:
    """Whether an input, such as ``workers.prefill`` or ``traffic``, is among what was measured."""
    kind, _, role = name.partition(".")
    if kind == "traffic":
        traffic = measured.get("traffic")
        return traffic is not None and traffic.num_requests is not None
    found: Mapping[Any, Any] = measured.get(kind) or {}  # type: ignore[assignment]  # a key of Measured
    return found.get(role) is not None and (kind != "fpm" or len(found[role]) > 0)


def inputs_of(config: PlannerConfig, upcoming: NextTick) -> list[str]:
    """The inputs that a tick asks for, by role where they are told by role."""
    names = [
        f"{need}.{role}" for need in ("workers", "fpm") if need in upcoming.needs for role in config.engines
    ]
    return [*names, *(["traffic"] if "traffic" in upcoming.needs else [])]


class Health:
    """Noted by the loop, read by whoever asks. Times are those of a monotonic clock."""

    def __init__(
        self,
        *,
        faults: Callable[[], Mapping[str, str]] = dict,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """``faults`` gives the errors of sources by name: ``workers``, ``fpm``, ``traffic``."""
        self._faults, self._monotonic = faults, monotonic
        self._ticked_s: float | None = None
        self._due_s = monotonic()
        self._feeds: dict[str, Feed] = {}
        self.problems: dict[str, str] = {}
        """What else is wrong, by name: ``scale``, ``config``, ``records``, ``tick``."""

    def waits(self, duration_s: float) -> None:
        """The loop waits so long for its next tick."""
        self._due_s = self._monotonic() + max(0.0, duration_s)

    def observed(self, config: PlannerConfig, upcoming: NextTick, measured: Measured) -> None:
        """What was asked for, and what came."""
        now_s = self._monotonic()
        for name in inputs_of(config, upcoming):
            before = self._feeds.get(name) or Feed(asked_s=now_s, first_s=now_s)
            here = came(name, measured)
            self._feeds[name] = attrs.evolve(before, asked_s=now_s, came_s=now_s if here else before.came_s)

    def ticked(self) -> None:
        """A tick is done."""
        self._ticked_s = self._monotonic()

    def note(self, name: str, problem: str | None) -> None:
        """A problem, or that there is none any more."""
        if problem is None:
            self.problems.pop(name, None)
        else:
            self.problems[name] = problem

    def unfed(self) -> str | None:
        """The inputs that are missing, with their ages, on one line; ``None`` if there are none."""
        now_s = self._monotonic()
        missing = [
            f"{name} {feed.age_s(now_s):.0f} s{'' if feed.came_s is not None else ' (never came)'}"
            for name, feed in self._feeds.items()
            if not feed.fed(now_s)
        ]
        return ", ".join(missing) or None

    def alive(self) -> tuple[bool, dict[str, Any]]:
        """Whether the loop turns."""
        now_s = self._monotonic()
        overdue_s = max(0.0, now_s - self._due_s)
        age_s = None if self._ticked_s is None else round(now_s - self._ticked_s, 3)
        return overdue_s <= GRACE_S, {"last_tick_age_s": age_s, "overdue_s": round(overdue_s, 3)}

    def ready(self) -> tuple[bool, dict[str, Any]]:
        """Whether a tick was made, and every input that was asked for comes."""
        now_s = self._monotonic()
        faults = self._faults()
        inputs = {
            name: {
                "fed": feed.fed(now_s),
                "age_s": round(feed.age_s(now_s), 3),
                "ever": feed.came_s is not None,
                "error": faults.get(name.partition(".")[0]),
            }
            for name, feed in self._feeds.items()
        }
        fed = self._ticked_s is not None and all(entry["fed"] for entry in inputs.values())
        alive = self.alive()
        return fed and alive[0], {**alive[1], "inputs": inputs, "problems": dict(self.problems)}
