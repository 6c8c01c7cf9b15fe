"""Passes of a fleet from its engines' own metrics, scraped directly or read from Prometheus; no event plane needed."""

from __future__ import annotations

import asyncio
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

import attrs

from planner_adapters.environment import Unobserved
from planner_adapters.prometheus.api import Api, Clock, Series
from planner_adapters.prometheus.derive import EngineId, MissingQuantityError, passes_between, shows_progress
from planner_adapters.prometheus.engine_series import SERIES, Framework, missing, names_of
from planner_adapters.prometheus.history import History
from planner_adapters.prometheus.http import FetchError, Http, HttpOptions
from planner_adapters.prometheus.promql import selector
from planner_adapters.prometheus.readings import MalformedMetricsError, Sample, parse, readings
from planner_adapters.prometheus.together import together
from planner_adapters.prometheus.traffic import IN_CLUSTER
from planner_core import ConfigError, ForwardPassMetrics, FpmBatch, PlannerConfig, Role
from planner_core.data.checks import config_number

LONGEST_ID = 253
"""Characters of a worker's name, as for a pod's; columns of ids are as wide as the longest."""


@attrs.frozen(kw_only=True)
class Target:
    """One worker's metrics endpoint."""

    worker_id: str
    """The name by which the environment knows the worker, such as its pod's."""
    url: str
    """Such as ``http://10.0.0.7:8000/metrics``; TensorRT-LLM's is ``/prometheus/metrics``."""
    role: Role


Targets: TypeAlias = Iterable[Target] | Callable[[], Iterable[Target]]


@attrs.frozen(kw_only=True)
class EngineOptions:
    """How engines are read."""

    http: HttpOptions = HttpOptions(timeout_s=2.0, retries=0, max_bytes=8_000_000)
    max_concurrent: int = attrs.field(default=20, validator=config_number(whole=True, least=1))
    """Scrapes at a time."""
    stale_after_s: float = attrs.field(default=60.0, validator=config_number(above=0))
    """An engine whose last scrape is older is left out and forgotten."""
    stuck_after_s: float = attrs.field(default=600.0, validator=config_number(above=0))
    """What an engine has in hand no longer counts once nothing of what it says has changed for so long."""
    worker_label: str = "pod"
    """Through Prometheus: the label with the worker's name; ``instance`` where it is absent."""


def pass_source(
    config: PlannerConfig,
    *,
    targets: Targets | None = None,
    in_prometheus: Mapping[Role, Mapping[str, str]] | None = None,
    options: EngineOptions | None = None,
    clock: Clock | None = None,
) -> EnginePasses:
    """Passes of the engines that ``config`` describes, from their metrics.

    ``targets`` are scraped directly: workers, or a function that tells them at each call. ``in_prometheus`` reads what
    Prometheus has scraped: for each role the labels that tell its engines' series, such as
    ``{Role.PREFILL: {"dynamo_component": "prefill"}, Role.DECODE: {"dynamo_component": "backend"}}``.
    """
    backend = config.shell.backend
    framework: Framework = "vllm" if backend == "mocker" else backend  # the mocker speaks vLLM's names
    options = options or EngineOptions()
    if (targets is None) == (in_prometheus is None):
        raise ConfigError("pass_source needs either targets or in_prometheus")
    if targets is not None:
        return EnginePasses(config, _Direct(framework, targets, options, clock or time.monotonic), options)
    assert in_prometheus is not None
    if set(in_prometheus) != set(config.engines):
        raise ConfigError(
            f"in_prometheus names the labels of {', '.join(in_prometheus) or 'no role'}: must be those of "
            f"{', '.join(config.engines)}"
        )
    api = Api(config.shell.prometheus_endpoint or IN_CLUSTER, options.http, clock)
    return EnginePasses(config, _Scraped(framework, in_prometheus, options, api), options)


Worker: TypeAlias = tuple[Role, str]


@attrs.frozen
class _Found:
    """What was read of all workers: samples by time, oldest first, and what stood in the way."""

    now_s: float
    scrapes: Mapping[Worker, list[tuple[float, list[Sample]]]]
    problems: Mapping[Worker, str]


class EnginePasses:
    """A :class:`~planner_adapters.environment.PassSource` over engines' metrics."""

    def __init__(self, config: PlannerConfig, reader: Any, options: EngineOptions) -> None:
        self._engines = config.engines
        self._reader = reader
        self._history = History(options.stale_after_s)
        self._stuck_after_s = options.stuck_after_s
        self._in_hand: dict[Worker, list[ForwardPassMetrics]] = {}
        self.problems: dict[str, str] = {}
        """Why workers, or what they have in hand, were left out of the last :meth:`passes`, by worker id."""

    async def passes(self) -> dict[Role, FpmBatch]:
        """The passes since the last call; an engine that can't be read is left out.

        :class:`~planner_adapters.environment.Unobserved` if none of several can be read.
        """
        try:
            found = await self._reader.read()
        except FetchError as error:
            raise Unobserved(str(error)) from None
        problems = dict(found.problems)
        rows: dict[Role, list[ForwardPassMetrics]] = {}
        in_hand, self._in_hand = self._in_hand, {}
        for worker, scrapes in found.scrapes.items():
            try:
                # Nothing new is no silence: what was in hand at the last scrape is still the latest that is known.
                new = self._rows(worker, scrapes, problems) if scrapes else in_hand.get(worker, [])
                rows.setdefault(worker[0], []).extend(new)
                self._in_hand[worker] = list({row.dp_rank: row for row in new}.values())
            except MissingQuantityError as error:
                problems[worker] = (
                    f"{worker[1][:LONGEST_ID]}: {missing(self._reader.framework, error.quantity)}"
                )
        self._history.forget(found.now_s)
        self.problems = {worker_id[:LONGEST_ID]: problem for (_, worker_id), problem in problems.items()}
        batches = {role: FpmBatch.of(rows[role]) for role in Role if rows.get(role)}
        if problems and not batches:
            first = next(iter(self.problems.values()))
            others = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
            raise Unobserved(f"no engine's metrics can be read: {first}{others}")
        return batches

    @property
    def num_remembered(self) -> int:
        """Engines whose last scrape is kept, to compare the next one with."""
        return len(self._history)

    def _rows(
        self, worker: Worker, scrapes: list[tuple[float, list[Sample]]], problems: dict[Worker, str]
    ) -> list[ForwardPassMetrics]:
        role, worker_id = worker
        rows: list[ForwardPassMetrics] = []
        for at_s, samples in scrapes:
            for rank, now in readings(samples, self._reader.framework, at_s).items():
                before = self._history.swap((role, worker_id, rank), now)
                if before is not None and before.at_s >= at_s:
                    continue
                engine = EngineId(worker_id=worker_id, dp_rank=rank, role=role)
                found = passes_between(engine, before, now, self._engines[role])
                still_s = self._history.still_for_s((role, worker_id, rank))
                if still_s >= self._stuck_after_s and found[-1].wall_time_s != 0 and shows_progress(now):
                    problems[worker] = (
                        f"{worker_id[:LONGEST_ID]}: what it has in hand no longer counts: it hasn't made a pass for "
                        f"{still_s:.0f} s, nor has its queue changed"
                    )
                    found = [ForwardPassMetrics(worker_id=worker_id, dp_rank=rank, wall_time_s=0.0)]
                rows += found
        if any(not math.isfinite(row.queued_prefill_tokens) for row in rows):
            raise MissingQuantityError("prompts")
        return rows

    async def close(self) -> None:
        """Closes the connections."""
        await self._reader.close()


class _Direct:
    """Each worker's /metrics, many at a time."""

    def __init__(self, framework: Framework, targets: Targets, options: EngineOptions, clock: Clock) -> None:
        self.framework = framework
        self._targets = targets
        self._clock = clock
        self._http = Http(options.http, keep_alive=False)
        self._gate = asyncio.Semaphore(options.max_concurrent)

    async def read(self) -> _Found:
        targets = list(self._targets() if callable(self._targets) else self._targets)
        results = await asyncio.gather(*map(self._scrape, targets))
        scrapes, problems = {}, {}
        for target, result in zip(targets, results, strict=True):
            worker = (target.role, target.worker_id)
            if isinstance(result, str):
                problems[worker] = f"{target.worker_id[:LONGEST_ID]}: {result}"
            else:
                scrapes[worker] = [result]
        return _Found(self._clock(), scrapes, problems)

    async def _scrape(self, target: Target) -> tuple[float, list[Sample]] | str:
        if not 0 < len(target.worker_id) <= LONGEST_ID:
            return f"its name has {len(target.worker_id)} characters, must have 1 to {LONGEST_ID}"
        async with self._gate:
            asked_s = self._clock()
            try:
                body = await self._http.get(target.url, accept="text/plain;version=0.0.4")
                samples = parse(body.decode("utf-8"), self.framework)
            except FetchError as error:
                return str(error)
            except (MalformedMetricsError, UnicodeDecodeError) as error:
                return f"its metrics can't be read: {error}"
            return (asked_s + self._clock()) / 2, samples

    async def close(self) -> None:
        await self._http.close()


class _Scraped:
    """What Prometheus has scraped, with the times of the scrapes."""

    def __init__(
        self,
        framework: Framework,
        labels: Mapping[Role, Mapping[str, str]],
        options: EngineOptions,
        api: Api,
    ) -> None:
        self.framework = framework
        names = list(names_of(framework))
        running = [named.series for named in SERIES[framework]["running"]]
        self._selectors = {role: selector(names, matchers) for role, matchers in labels.items()}
        self._going_on = {role: selector(running, matchers) for role, matchers in labels.items()}
        self._label = options.worker_label
        self._stale_after_s = options.stale_after_s
        self._api = api
        self._read_to_s: dict[Worker, float] = {}

    async def read(self) -> _Found:
        now_s, reach_s = await self._api.now_s(), 2 * self._stale_after_s
        found = await together(self._api.samples(of_role, reach_s) for of_role in self._selectors.values())
        # Asked after the samples: who ends in between is left out, and who begins has no samples yet.
        latest = await together(self._api.latest(of_role) for of_role in self._going_on.values())
        alive = {
            (role, self._name(series))
            for role, every in zip(self._going_on, latest, strict=True)
            for series in every
        }
        by_worker: dict[Worker, dict[float, list[Sample]]] = defaultdict(dict)
        for role, every in zip(self._selectors, found, strict=True):
            for series in every:
                at = by_worker[role, self._name(series)]
                for at_s, value in series.samples:
                    at.setdefault(at_s, []).append(Sample(series.name, series.labels, value))
        by_worker = {worker: at for worker, at in by_worker.items() if at}
        if not by_worker:
            raise Unobserved(
                f"{self._api.name}: there are no engines' series {next(iter(self._selectors.values()))[-200:]}; "
                "compare the labels with those of your engines"
            )
        problems = {
            worker: f"{worker[1][:LONGEST_ID]}: its last sample is {now_s - max(at):.0f} s old"
            + (", and none followed: it is gone, or can't be scraped" if worker not in alive else "")
            for worker, at in by_worker.items()
            if now_s - max(at) > self._stale_after_s or worker not in alive
        }
        problems |= {w: "its name is too long or empty" for w in by_worker if not 0 < len(w[1]) <= LONGEST_ID}
        scrapes = {
            worker: [(at_s, at[at_s]) for at_s in sorted(at) if at_s > self._read_to_s.get(worker, -math.inf)]
            for worker, at in by_worker.items()
            if worker not in problems
        }
        self._read_to_s = {worker: max(by_worker[worker]) for worker in scrapes}
        return _Found(now_s, scrapes, problems)

    def _name(self, series: Series) -> str:
        return series.labels.get(self._label) or series.labels.get("instance", "")

    async def close(self) -> None:
        await self._api.close()
