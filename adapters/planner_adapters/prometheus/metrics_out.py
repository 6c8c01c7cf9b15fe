"""The planner's own metrics, to be scraped: what it knows and decides. What isn't known isn't there."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any

import attrs

from planner_adapters.prometheus.exported import (
    BINDING,
    BINDING_MEANING,
    CHOICES,
    CONSTRAINTS,
    GAUGES,
    GPU_HOURS,
    GPU_HOURS_MEANING,
    PER_ENGINE,
    PREFIX,
    EngineValue,
    Tick,
    binding,
    engine_values,
    exported_figures,
)
from planner_core import (
    Decision,
    LoadReason,
    MissingExtraError,
    Role,
    ThroughputReason,
    TickInput,
)

try:
    from prometheus_client import CollectorRegistry, generate_latest, start_http_server
    from prometheus_client.core import GaugeMetricFamily, StateSetMetricFamily
    from prometheus_client.registry import Collector
except ImportError:
    raise MissingExtraError(
        "exporting metrics needs prometheus-client: pip install 'planner-core[prometheus]'"
    ) from None


@attrs.frozen(kw_only=True)
class _Shown:
    """What is scraped: swapped as a whole, so that no scrape sees half a tick."""

    gauges: dict[str, float] = attrs.field(factory=dict)
    choices: dict[str, str] = attrs.field(factory=dict)
    engines: dict[str, tuple[EngineValue, ...]] = attrs.field(factory=dict)
    bound: dict[Role, str] = attrs.field(factory=dict)
    gpu_hours: float | None = None
    gpus: float | None = None
    at_s: float | None = None


class MetricsOut(Collector):
    """Every series of the reference page, in a registry of its own.

    ``port``: serve ``/metrics`` there; 0 takes a free one, ``None`` serves nothing, and then :meth:`text` or
    ``registry`` is for a server of yours. Other machines are served only if ``host`` says so.
    """

    def __init__(self, *, port: int | None = None, host: str = "127.0.0.1") -> None:
        self._shown = _Shown()
        self.registry = CollectorRegistry(auto_describe=False)
        self.registry.register(self)
        self._server: Any = None
        self._thread: threading.Thread | None = None
        if port is not None:
            self._server, self._thread = start_http_server(port, addr=host, registry=self.registry)

    @property
    def port(self) -> int | None:
        """Where the metrics are served; ``None``: nowhere."""
        return None if self._server is None else int(self._server.server_port)

    @property
    def address(self) -> str | None:
        """The address that listens; ``None``: none does."""
        return None if self._server is None else str(self._server.server_address[0])

    def update(self, inputs: TickInput, decision: Decision) -> None:
        """Show what a tick knew and decided."""
        ran, known = _ran(decision), exported_figures(inputs, decision)
        gauges = {}
        for gauge in GAUGES:
            value = known.get(gauge.figure)
            if value is None and gauge.tick not in ran:
                value = self._shown.gauges.get(gauge.name)
            if value is not None:
                gauges[gauge.name] = value
        bound = {
            role: binding(why, self._shown.bound.get(role)) for role, why in decision.explanations.items()
        }
        choices = self._shown.choices | {
            choice.name: choice.read(decision) for choice in CHOICES if choice.tick in ran
        }
        hours, gpus = self._shown.gpu_hours, known.get("gpus")
        if self._shown.gpus is not None and self._shown.at_s is not None:
            hours = (hours or 0.0) + self._shown.gpus * max(0.0, inputs.now_s - self._shown.at_s) / 3600
        elif gpus is not None and hours is None:
            hours = 0.0
        self._shown = _Shown(
            gauges=gauges,
            choices=choices,
            engines={series.name: tuple(engine_values(inputs, series.column)) for series in PER_ENGINE},
            bound={role: word for role, word in bound.items() if word is not None},
            gpu_hours=hours,
            gpus=gpus,
            at_s=inputs.now_s,
        )

    def collect(self) -> Iterable[Any]:
        """For the registry."""
        shown = self._shown
        numbers = [(gauge.name, gauge.meaning, shown.gauges.get(gauge.name)) for gauge in GAUGES]
        for name, meaning, value in (*numbers, (GPU_HOURS, GPU_HOURS_MEANING, shown.gpu_hours)):
            if value is not None:
                yield GaugeMetricFamily(PREFIX + name, meaning + ".", value=value)
        yield from self._engines(shown)
        for choice in CHOICES:
            if (chosen := shown.choices.get(choice.name)) is not None:
                family = StateSetMetricFamily(PREFIX + choice.name, choice.meaning + ".")
                family.add_metric([], {word: word == chosen for word in choice.words})
                yield family
        if shown.bound:
            family = StateSetMetricFamily(PREFIX + BINDING, BINDING_MEANING + ".", labels=["role"])
            for role, chosen in shown.bound.items():
                family.add_metric([str(role)], {word: word == chosen for word in CONSTRAINTS})
            yield family

    @staticmethod
    def _engines(shown: _Shown) -> Iterator[Any]:
        for series in PER_ENGINE:
            family = GaugeMetricFamily(
                PREFIX + series.name, series.meaning + ".", labels=["worker_id", "dp_rank"]
            )
            for worker_id, rank, value in shown.engines.get(series.name, ()):
                family.add_metric([worker_id, rank], value)
            if family.samples:
                yield family

    def text(self) -> str:
        """The metrics in Prometheus's text format."""
        return generate_latest(self.registry).decode()

    def close(self) -> None:
        """Stops serving."""
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()
            self._server = self._thread = None

    def __enter__(self) -> MetricsOut:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _ran(decision: Decision) -> set[Tick]:
    """The loops that ran in this tick."""
    ran: set[Tick] = {"every"}
    if decision.diagnostics.load_reason is not LoadReason.UNSET:
        ran.add("load")
    if decision.diagnostics.throughput_reason is not ThroughputReason.UNSET:
        ran.add("throughput")
    return ran
