"""The last reading of each engine, for as long as the next one can be compared with it."""

from __future__ import annotations

from typing import TypeAlias

from planner_adapters.prometheus.readings import Reading
from planner_core import Role

EngineKey: TypeAlias = tuple[Role, str, int]


class History:
    """Bounded by the engines that were read within ``keep_s``."""

    def __init__(self, keep_s: float) -> None:
        self._keep_s = keep_s
        self._last: dict[EngineKey, Reading] = {}
        self._same_since_s: dict[EngineKey, float] = {}

    def swap(self, engine: EngineKey, now: Reading) -> Reading | None:
        """The reading before this one, which takes its place; ``None`` if it is too old to say what happened since."""
        before = self._last.get(engine)
        recent = before is not None and now.at_s - before.at_s <= self._keep_s
        if before is None or before.at_s < now.at_s:
            self._last[engine] = now
            if before is None or not recent or before.values != now.values:
                self._same_since_s[engine] = now.at_s
        return before if recent else None

    def still_for_s(self, engine: EngineKey) -> float:
        """For how long every reading of the engine has been the same."""
        return self._last[engine].at_s - self._same_since_s[engine]

    def forget(self, now_s: float) -> None:
        """Drops the engines that have not been read for too long."""
        self._last = {e: last for e, last in self._last.items() if now_s - last.at_s <= self._keep_s}
        self._same_since_s = {e: since_s for e, since_s in self._same_since_s.items() if e in self._last}

    def __len__(self) -> int:
        return len(self._last)
