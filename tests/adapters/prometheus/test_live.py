"""The whole way with a real Prometheus: what the planner exports is scraped, stored and found again."""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from typing import Any

from planner_adapters.prometheus import MetricsOut, traffic_source
from planner_core import PlannerConfig, WorkerCounts


def test_a_real_prometheus_scrapes_the_planner(
    prometheus_scraping: Callable[[str], str], promtool: str, bound_s: float, ticked: Any
) -> None:
    config = PlannerConfig.from_mapping({"mode": "agg"})
    with MetricsOut(port=0) as metrics:
        metrics.update(*ticked(config, workers={"agg": WorkerCounts(ready=3)}))
        url = prometheus_scraping(
            "scrape_configs: [{job_name: planner, scrape_interval: 1s, scrape_timeout: 1s, "
            f"static_configs: [{{targets: ['127.0.0.1:{metrics.port}']}}]}}]"
        )
        query = urllib.parse.urlencode({"query": "dynamo_planner_num_decode_replicas"})
        until_s = time.monotonic() + bound_s
        result: list[Any] = []
        while not result and time.monotonic() < until_s:
            with urllib.request.urlopen(f"{url}/api/v1/query?{query}", timeout=10) as answer:
                result = json.load(answer)["data"]["result"]
            time.sleep(0.1)
    assert [found["value"][1] for found in result] == ["3"]


def test_the_time_is_prometheuss_own(prometheus_with: Callable[[str], str]) -> None:
    """A planner whose clock is an hour off still sees fresh samples as fresh."""
    now_s = int(time.time())
    labels = 'dynamo_namespace="dynamo",instance="a"'
    text = "".join(
        f"dynamo_frontend_requests_started_total{{{labels}}} {number} {now_s - 60 + number}\n"
        for number in range(61)
    )

    async def run(url: str) -> float:
        source = traffic_source(PlannerConfig.from_mapping({"prometheus_endpoint": url}))
        traffic = await source.traffic(30)
        await source.close()
        assert traffic is not None
        assert traffic.num_requests is not None
        return traffic.num_requests / traffic.duration_s

    assert asyncio.run(run(prometheus_with(text))) == 1.0


def test_promtool_finds_nothing_but_names_that_are_given(promtool: str, full_metrics: MetricsOut) -> None:
    done = subprocess.run(
        [promtool, "check", "metrics"], input=full_metrics.text(), text=True, capture_output=True, check=False
    )
    unwaived = [
        line
        for line in done.stderr.splitlines()
        if not any(waiver in line for waiver in WAIVED) and line.strip()
    ]
    assert unwaived == [], done.stderr
    assert done.stdout == ""


WAIVED = {
    "observed_ttft_ms": "abbreviated unit",
    "observed_itl_ms": "abbreviated unit",
    "estimated_ttft_ms": "abbreviated unit",
    "estimated_itl_ms": "abbreviated unit",
    "sla_target_ttft_ms": "abbreviated unit",
    "sla_target_itl_ms": "abbreviated unit",
    "gpu_hours": "base unit is seconds",
}
"""What promtool objects to. The names are Dynamo's: dashboards and alerts are written against them."""
