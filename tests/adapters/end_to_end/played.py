"""A Prometheus whose hours pass in no time: it scrapes the fluid engines by a played clock, and fails as it is told."""

from __future__ import annotations

import json
import re
from collections import deque
from typing import Any
from urllib.parse import parse_qs

from planner_adapters.environment import Order
from planner_adapters.runner.testing import PlayedClock
from planner_core import Role, WorkerCounts

Key = tuple[tuple[str, str], ...]
SCRAPE_S = 5.0
LOOKBACK_S = 300.0
KEPT = 1000
COMPONENTS = {"prefill": "prefill", "decode": "backend"}
_SELECTOR = re.compile(r"\{(.*)\}(?:\[(\d+)s\])?\Z", re.DOTALL)
_MATCHER = re.compile(r'(\w+)(=~|=)"((?:[^"\\]|\\.)*)"')
_SAMPLE = re.compile(r"([\w:]+)\{(.*)\} (\S+)\Z")


class PlayedPrometheus:
    """Answers the queries that the shell makes. ``fault``: see :meth:`respond`."""

    def __init__(self, clock: PlayedClock, engines: Any) -> None:
        self.clock, self.engines = clock, engines
        self.now_s = clock.at_s
        """Its own time; the engines', too."""
        self.fault: str | None = None
        self._clock_s = clock.at_s
        self._scraped_s = clock.at_s
        self._series: dict[Key, deque[tuple[float, float]]] = {}
        self._present: set[Key] = set()
        self._matched: dict[str, tuple[set[Key], set[Key]]] = {}

    def pass_time(self) -> None:
        """As much as the planner's clock went on; a jump of it is none of ours."""
        went_s = self.clock.at_s - self._clock_s
        self._clock_s = self.clock.at_s
        until_s = self.now_s + (went_s if 0 <= went_s < 1000.0 else 0.0)
        while self._scraped_s + SCRAPE_S <= until_s:
            self.now_s = self._scraped_s = self._scraped_s + SCRAPE_S
            if self.fault != "stale":
                self._scrape()
        self.now_s = until_s

    def _scrape(self) -> None:
        seen = set()
        pages = {("frontend", ""): self.engines.page("/frontend")}
        for role, pool in self.engines.pools.items():
            pages |= {(role, str(n)): self.engines.page(f"/{role}/{n}") for n in range(len(pool.slots))}
        for (role, slot), page in pages.items():
            target = {"instance": f"{role}-{slot}", "dynamo_namespace": "dynamo"}
            if role in COMPONENTS:
                target["dynamo_component"] = COMPONENTS[role]
            for line in filter(None, (page or "").split("\n")):
                found = _SAMPLE.match(line)
                assert found is not None, line
                own = dict(re.findall(r'(\w+)="([^"]*)"', found[2]))
                key = tuple(sorted(({"__name__": found[1]} | target | own).items()))
                self._series.setdefault(key, deque(maxlen=KEPT)).append((self.now_s, float(found[3])))
                seen.add(key)
        self._present = seen

    def respond(self, path: str, form: str) -> Any:
        """What the double of HTTP is to answer."""
        self.pass_time()
        if self.fault in ("drop", "hang"):
            return self.fault
        if self.fault == "500":
            return 500, b"out of memory"
        query = parse_qs(form)["query"][0]
        if query == "time()":
            return self._answer("scalar", [self.now_s, str(self.now_s)])
        found = _SELECTOR.search(query)
        assert found is not None, query
        matching = {} if self.fault == "empty" else self._matching(found[1])
        if found[2] is None:
            alive = {
                key: samples[-1]
                for key, samples in matching.items()
                if key in self._present and self.now_s - samples[-1][0] < LOOKBACK_S
            }
            return self._answer(
                "vector", [{"metric": dict(key), "value": self._written(at)} for key, at in alive.items()]
            )
        from_s = self.now_s - float(found[2])
        ranges = {key: [each for each in samples if each[0] > from_s] for key, samples in matching.items()}
        result = [
            {"metric": dict(key), "values": [self._written(each) for each in samples]}
            for key, samples in ranges.items()
            if samples
        ]
        return self._answer("matrix", result)

    def _matching(self, matchers: str) -> dict[Key, deque[tuple[float, float]]]:
        known, found = self._matched.setdefault(matchers, (set(), set()))
        parsed = _MATCHER.findall(matchers)
        found |= {key for key in self._series.keys() - known if _matches(dict(key), parsed)}
        known |= self._series.keys()
        return {key: samples for key, samples in self._series.items() if key in found}

    def _written(self, sample: tuple[float, float]) -> tuple[float, str]:
        return sample[0], "NaN" if self.fault == "NaN" else repr(sample[1])

    def _answer(self, kind: str, result: Any) -> tuple[int, bytes]:
        return 200, json.dumps({"status": "success", "data": {"resultType": kind, "result": result}}).encode()


def _matches(labels: dict[str, str], matchers: list[tuple[str, str, str]]) -> bool:
    return all(
        re.fullmatch(value, labels.get(label, "")) if how == "=~" else labels.get(label, "") == value
        for label, how, value in matchers
    )


class PlayedGraph:
    """A connector whose orders are carried out at once."""

    def __init__(self, prometheus: PlayedPrometheus, replicas: dict[Role, int]) -> None:
        self._prometheus = prometheus
        self.replicas = dict(replicas)
        self._set()

    async def workers(self) -> dict[Role, WorkerCounts]:
        return {role: WorkerCounts(ready=n, expected=n) for role, n in self.replicas.items()}

    async def scale(self, order: Order) -> None:
        self._prometheus.pass_time()
        self.replicas |= order.replicas
        self._set()

    def _set(self) -> None:
        for role, number in self.replicas.items():
            self._prometheus.engines.set(str(role), [f"{role}-{n}" for n in range(number)])

    async def close(self) -> None:
        pass
