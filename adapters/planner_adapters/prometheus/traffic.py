"""Traffic and latencies of a deployment, as its frontend or its router counted them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import attrs

from planner_adapters.config_file import namespace_of
from planner_adapters.environment import Unobserved
from planner_adapters.prometheus.api import Api, Clock
from planner_adapters.prometheus.growth import Growth
from planner_adapters.prometheus.http import FetchError, HttpOptions
from planner_adapters.prometheus.quantiles import histogram_quantile
from planner_adapters.prometheus.together import together
from planner_adapters.prometheus.window import Window, WindowReader
from planner_core import ObservedLatencies, PlannerConfig, TrafficObservation
from planner_core.data.checks import config_number

IN_CLUSTER: Final = "http://prometheus-kube-prometheus-prometheus.monitoring.svc.cluster.local:9090"
"""Where kube-prometheus-stack puts Prometheus."""
PREFIX: Final = {"frontend": "dynamo_frontend", "router": "dynamo_component_router"}
ISL, OSL = "input_sequence_tokens", "output_sequence_tokens"
STARTED, DONE, IN_FLIGHT, CACHED = (
    "requests_started_total",
    "requests_total",
    "inflight_requests",
    "cached_tokens",
)
LATENCIES: Final = {
    "ttft_ms": ("time_to_first_token_seconds", 1e3),
    "itl_ms": ("inter_token_latency_seconds", 1e3),
    "request_duration_s": ("request_duration_seconds", 1.0),
}
HIT_RATE: Final = f"{PREFIX['router']}_kv_hit_rate"
DRAFTS: Final = ("vllm:spec_decode_num_drafts_total", "vllm:spec_decode_num_accepted_tokens_total")
ACCEPT_LENGTHS: Final = ("sglang:spec_accept_length", "trtllm_spec_decode_acceptance_length")
"""Gauges; 0 while nothing is drafted."""


@attrs.frozen(kw_only=True)
class PrometheusOptions:
    """How traffic is read from Prometheus."""

    http: HttpOptions = HttpOptions()
    stale_after_s: float = attrs.field(default=90.0, validator=config_number(above=0))
    """Older samples say nothing of now: a few times the scrape interval."""
    matchers: Mapping[str, str] = attrs.field(factory=dict)
    """Labels that the frontend's (or router's) series must have besides namespace and model; ``""``: must not have."""
    engine_matchers: Mapping[str, str] | None = None
    """Labels of the engines' own series, from which the accept length is read; none: those of the namespace."""


def traffic_source(
    config: PlannerConfig, options: PrometheusOptions | None = None, *, clock: Clock | None = None
) -> PrometheusTraffic:
    """Traffic of the deployment that ``config`` describes, from ``prometheus_endpoint`` or the in-cluster address.

    ``clock`` gives the time that queries are evaluated at, for replays; else Prometheus's own is taken.
    """
    return PrometheusTraffic(config, options or PrometheusOptions(), clock)


class PrometheusTraffic:
    """A :class:`~planner_adapters.environment.TrafficSource`. Every increment is counted once.

    Arrivals are what the frontend says it started. Older frontends count completions: there, arrivals are completions
    plus the growth of what is in flight. A router counts requests as it sends them on.
    """

    def __init__(self, config: PlannerConfig, options: PrometheusOptions, clock: Clock | None) -> None:
        shell, source = config.shell, config.shell.throughput_metrics_source
        self._prefix, self._quantile = PREFIX[source], config.sla.quantile
        self._api = Api(shell.prometheus_endpoint or IN_CLUSTER, options.http, clock)
        namespace = namespace_of(config)
        in_router = {"dynamo_namespace": namespace.replace("-", "_")}
        matchers = dict(in_router) if source == "router" else {"dynamo_namespace": namespace}
        if source == "frontend" and shell.model_name:
            matchers["model"] = shell.model_name.lower()
        matchers |= options.matchers

        def reader(names: list[str], labels: Mapping[str, str]) -> WindowReader:
            return WindowReader(self._api, names, labels, options.stale_after_s)

        counted = [f"{self._prefix}_{name}" for name in (STARTED, DONE, IN_FLIGHT)]
        counted += [
            f"{self._prefix}_{name}_{part}" for name in (ISL, OSL, CACHED) for part in ("sum", "count")
        ]
        self._counted = reader(counted, matchers)
        self._hits = reader([f"{HIT_RATE}_{part}" for part in ("sum", "count")], in_router)
        engines = in_router if options.engine_matchers is None else options.engine_matchers
        self._drafts = reader([*DRAFTS, *ACCEPT_LENGTHS], engines)
        histograms = [f"{self._prefix}_{name}" for name, _ in LATENCIES.values()]
        parts = ("sum", "count") if self._quantile is None else ("sum", "count", "bucket")
        self._latencies = reader([f"{name}_{part}" for name in histograms for part in parts], matchers)

    async def traffic(self, window_s: float) -> TrafficObservation | None:
        """Traffic since the last call; ``None`` while there is nothing new.

        ``duration_s`` is the time that the samples cover, not ``window_s``, which counts for the first call alone.
        :class:`~planner_adapters.environment.Unobserved` says in one line why traffic isn't known.
        """
        now_s = await self._now_s()
        counted, hits, drafts = await together(
            (
                self._known(self._counted, window_s, now_s),
                self._extra(self._hits, window_s, now_s),
                self._extra(self._drafts, window_s, now_s),
            )
        )
        if counted is None:
            return None
        isl = counted.mean(f"{self._prefix}_{ISL}")
        hit_rate = _share(hits.mean(HIT_RATE)) if hits else None
        return TrafficObservation(
            duration_s=counted.duration_s,
            num_requests=self._arrivals(counted),
            isl=isl,
            osl=counted.mean(f"{self._prefix}_{OSL}"),
            num_completed=counted.increase(f"{self._prefix}_{OSL}_count"),
            kv_hit_rate=_cached(counted, self._prefix) if hit_rate is None else hit_rate,
            accept_length=_accept_length(drafts) if drafts else None,
        )

    async def latencies(self, window_s: float) -> ObservedLatencies | None:
        """Means since the last call, or the quantile of the SLA if it names one; ``None`` if nothing was measured."""
        window = await self._known(self._latencies, window_s, await self._now_s())
        if window is None:
            return None
        found = {field: self._latency(window, name) for field, (name, _) in LATENCIES.items()}
        scaled = {
            field: value if value is None else value * LATENCIES[field][1] for field, value in found.items()
        }
        return ObservedLatencies(**scaled) if any(v is not None for v in scaled.values()) else None

    async def close(self) -> None:
        """Closes the connections."""
        await self._api.close()

    def _latency(self, window: Window, name: str) -> float | None:
        histogram = f"{self._prefix}_{name}"
        if self._quantile is None:
            return window.mean(histogram)
        return histogram_quantile(self._quantile, _buckets(window, histogram))

    async def _now_s(self) -> float:
        try:
            return await self._api.now_s()
        except FetchError as error:
            raise Unobserved(str(error)) from None

    async def _known(self, reader: WindowReader, window_s: float, now_s: float) -> Window | None:
        try:
            return await reader.read(window_s, now_s)
        except FetchError as error:
            raise Unobserved(str(error)) from None

    async def _extra(self, reader: WindowReader, window_s: float, now_s: float) -> Window | None:
        """What traffic is worth knowing without."""
        try:
            return await reader.read(window_s, now_s)
        except (FetchError, Unobserved):
            return None

    def _arrivals(self, window: Window) -> float | None:
        by_instance = [self._arrivals_of(growths) for growths in window.by_instance().values()]
        known = [arrived for arrived in by_instance if arrived is not None]
        return sum(known) if known else None

    def _arrivals_of(self, growths: list[Growth]) -> float | None:
        def those(name: str) -> list[Growth]:
            return [growth for growth in growths if growth.name == f"{self._prefix}_{name}"]

        if started := those(STARTED):
            return sum(growth.increase for growth in started)
        done, in_flight = those(DONE), those(IN_FLIGHT)
        if not done and not in_flight:
            return None
        return max(0.0, sum(g.increase for g in done) + sum(g.change for g in in_flight))


def _buckets(window: Window, histogram: str) -> dict[float, float]:
    """Cumulated counts by upper bound, over all processes."""
    counts: dict[float, float] = {}
    for growth in window.growths:
        if growth.name == f"{histogram}_bucket":
            try:
                bound = float(growth.labels.get("le", ""))
            except ValueError:
                continue
            counts[bound] = counts.get(bound, 0.0) + growth.increase
    return counts


def _share(value: float | None) -> float | None:
    return None if value is None else min(max(value, 0.0), 1.0)


def _cached(window: Window, prefix: str) -> float | None:
    cached, asked = window.increase(f"{prefix}_{CACHED}_sum"), window.increase(f"{prefix}_{ISL}_sum")
    return _share(cached / asked) if cached is not None and asked else None


def _accept_length(window: Window) -> float | None:
    drafts, accepted = (window.increase(name) for name in DRAFTS)
    if drafts and accepted is not None:
        return 1 + accepted / drafts
    lengths = [growth.last for growth in window.growths if growth.name in ACCEPT_LENGTHS and growth.last >= 1]
    return sum(lengths) / len(lengths) if lengths else None
