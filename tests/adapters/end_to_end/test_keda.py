"""`planner run` behind KEDA: a real API server, the command line, and a gRPC client that asks as KEDA does."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("grpc", reason="needs the extra keda")
pytest.importorskip("google.protobuf", reason="needs the extra keda")
pytest.importorskip("lightkube", reason="needs the extra kubernetes")
pytest.importorskip("yaml", reason="needs the extra cli")

import grpc

from planner_adapters.keda import METRIC, messages

BOUND_S = 120.0


def test_keda_hears_from_planner_run_how_many_there_should_be(
    kube: Any, planner: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from planner_adapters.kubernetes.kinds import DEPLOYMENT

    kube.deployment("llama", 1)
    kube.controllers.settle()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    monkeypatch.setenv("PLANNER_WORKLOADS", "agg=deployment/llama")
    monkeypatch.setenv("PLANNER_KEDA_LISTEN", f"127.0.0.1:{port}")
    monkeypatch.setenv("PLANNER_ENGINE_TARGETS", "agg=http://127.0.0.1:9/metrics")
    config = tmp_path / "planner.yaml"
    config.write_text("{mode: agg, namespace: chat, min_endpoint: 3, live_dashboard_port: 0}")

    ref = messages.ScaledObjectRef(scalerMetadata={"deployment": "chat", "role": "agg"})
    sent = messages.GetMetricsRequest(scaledObjectRef=ref, metricName=METRIC).SerializeToString()
    with (
        planner("--config", config, "--health", "off") as log,
        grpc.insecure_channel(
            f"127.0.0.1:{port}", options=[("grpc.max_reconnect_backoff_ms", 500)]
        ) as channel,
    ):
        ask, end = (
            channel.unary_unary("/externalscaler.ExternalScaler/GetMetrics"),
            time.monotonic() + BOUND_S,
        )
        while True:
            try:
                answer = messages.GetMetricsResponse.FromString(ask(sent, timeout=5))
                break
            except grpc.RpcError as error:
                early = error.code() is grpc.StatusCode.UNAVAILABLE  # not up, or nothing decided yet
                if not early or time.monotonic() > end:
                    pytest.fail(log())
                time.sleep(0.2)
    assert [each.metricValue for each in answer.metricValues] == [3]
    assert kube.replicas(DEPLOYMENT, "llama") == 1
