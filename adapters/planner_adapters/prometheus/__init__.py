"""Prometheus on both sides: traffic and engines' metrics in, the planner's own metrics out.

- :func:`traffic_source`: requests, lengths, latencies and cache hits of a deployment, from Prometheus;
- :func:`pass_source`: forward passes of vLLM, SGLang and TensorRT-LLM from their public metrics;
- :class:`MetricsOut`: what the planner knows and decides, to be scraped.

All of it needs the extra ``prometheus``.
"""

from __future__ import annotations

from planner_adapters.prometheus.engines import EngineOptions, EnginePasses, Target, pass_source
from planner_adapters.prometheus.http import HttpOptions
from planner_adapters.prometheus.metrics_out import MetricsOut
from planner_adapters.prometheus.traffic import PrometheusOptions, PrometheusTraffic, traffic_source

__all__ = [
    "EngineOptions",
    "EnginePasses",
    "HttpOptions",
    "MetricsOut",
    "PrometheusOptions",
    "PrometheusTraffic",
    "Target",
    "pass_source",
    "traffic_source",
]
