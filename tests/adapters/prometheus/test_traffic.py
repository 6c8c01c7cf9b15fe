"""Traffic from a real Prometheus, with samples that are known to the last one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

import pytest

from planner_adapters.environment import Unobserved
from planner_adapters.prometheus import PrometheusOptions, traffic_source
from planner_core import ObservedLatencies, PlannerConfig, TrafficObservation

T0 = 1_700_000_000
STEP_S = 15
Start = Callable[[str], str]
Point = tuple[float, float]

FRONTEND = 'dynamo_namespace="prod",model="llama",instance="10.0.0.1:8000",job="frontend"'


def series(name: str, points: Iterable[Point], labels: str = FRONTEND) -> str:
    """OpenMetrics lines; times are seconds after T0."""
    return "".join(f"{name}{{{labels}}} {value} {T0 + at_s}\n" for at_s, value in points)


def every(step_per_sample: float, until_s: int = 600, start: float = 1000.0, from_s: int = 0) -> list[Point]:
    """A counter that grows steadily."""
    times = range(from_s, until_s + 1, STEP_S)
    return [(at_s, start + number * step_per_sample) for number, at_s in enumerate(times)]


def a_frontend(labels: str = FRONTEND, until_s: int = 600, **per_sample: float) -> str:
    """A frontend with 30 requests per scrape, of 1000 tokens in and 100 out."""
    counters = {
        "requests_started_total": 30,
        "requests_total": 30,
        "input_sequence_tokens_sum": 30_000,
        "input_sequence_tokens_count": 30,
        "output_sequence_tokens_sum": 3_000,
        "output_sequence_tokens_count": 30,
        "cached_tokens_sum": 7_500,
        "cached_tokens_count": 30,
    } | per_sample
    return "".join(series(f"dynamo_frontend_{n}", every(g, until_s), labels) for n, g in counters.items())


def config(url: str, **changes: object) -> PlannerConfig:
    return PlannerConfig.from_mapping(
        {
            "prometheus_endpoint": url,
            "namespace": "prod",
            "model_name": "LLaMA",
            "optimization_target": "sla",
            **changes,
        }
    )


def read(
    url: str, *, at_s: Iterable[float] = (600,), window_s: float = 180, **changes: object
) -> list[TrafficObservation | None]:
    """What one source says at these times after T0."""
    now_s = [0.0]

    async def run() -> list[TrafficObservation | None]:
        source = traffic_source(config(url, **changes), clock=lambda: now_s[0])
        found = []
        try:
            for now in at_s:
                now_s[0] = T0 + now
                found.append(await source.traffic(window_s))
        finally:
            await source.close()
        return found

    return asyncio.run(run())


def test_a_window_holds_what_arrived_in_it(prometheus_with: Start) -> None:
    assert read(prometheus_with(a_frontend())) == [
        TrafficObservation(
            duration_s=180, num_requests=360, isl=1000, osl=100, num_completed=360, kv_hit_rate=0.25
        )
    ]


def test_each_request_is_counted_in_one_window(prometheus_with: Start) -> None:
    url = prometheus_with(a_frontend())
    found = read(url, at_s=[300, 305, 310, 316, 480, 600], window_s=5)
    counted = [traffic and (traffic.duration_s, traffic.num_requests) for traffic in found]
    assert counted == [(15, 30), None, None, (15, 30), (165, 330), (120, 240)]


def test_arrivals_count_and_not_completions_where_a_frontend_tells_them(prometheus_with: Start) -> None:
    url = prometheus_with(a_frontend(requests_started_total=50))
    (traffic,) = read(url)
    assert traffic is not None
    assert (traffic.num_requests, traffic.num_completed) == (600, 360)


def test_an_older_frontends_arrivals_are_completions_and_the_growth_of_what_is_in_flight(
    prometheus_with: Start,
) -> None:
    text = series("dynamo_frontend_requests_total", every(30))
    text += series("dynamo_frontend_inflight_requests", every(10, start=0))
    (traffic,) = read(prometheus_with(text))
    assert traffic is not None
    assert traffic.num_requests == 360 + 120


def test_an_idle_frontend_is_zero_requests_of_unknown_length(prometheus_with: Start) -> None:
    idle = dict.fromkeys(
        (
            "requests_started_total",
            "requests_total",
            "input_sequence_tokens_sum",
            "input_sequence_tokens_count",
            "output_sequence_tokens_sum",
            "output_sequence_tokens_count",
            "cached_tokens_sum",
            "cached_tokens_count",
        ),
        0.0,
    )
    assert read(prometheus_with(a_frontend(**idle))) == [
        TrafficObservation(duration_s=180, num_requests=0, num_completed=0)
    ]


def test_a_frontend_that_restarts_counts_on_from_zero(prometheus_with: Start) -> None:
    before, after = every(30, 480), [(at_s, 30.0 * n) for n, at_s in enumerate(range(495, 601, STEP_S), 1)]
    (traffic,) = read(prometheus_with(series("dynamo_frontend_requests_started_total", before + after)))
    assert traffic is not None
    assert traffic.num_requests == 360


def test_a_label_that_appears_with_its_first_requests_counts_them(prometheus_with: Start) -> None:
    text = series("dynamo_frontend_requests_total", every(30), FRONTEND + ',status="success"')
    text += series("dynamo_frontend_requests_total", [(585, 7), (600, 7)], FRONTEND + ',status="error"')
    first, second = read(prometheus_with(text), at_s=[570, 600])
    assert first is not None
    assert second is not None
    assert (second.duration_s, second.num_requests) == (30, 67)


def test_frontends_add_up(prometheus_with: Start) -> None:
    other = FRONTEND.replace("10.0.0.1", "10.0.0.2")
    (traffic,) = read(prometheus_with(a_frontend() + a_frontend(other)))
    assert traffic is not None
    assert (traffic.duration_s, traffic.num_requests, traffic.isl) == (180, 720, 1000)


def test_frontends_scraped_at_different_times_give_the_true_rate(prometheus_with: Start) -> None:
    name, other = "dynamo_frontend_requests_started_total", FRONTEND.replace("10.0.0.1", "10.0.0.2")
    shifted = [(at_s + 7, value) for at_s, value in every(30)]
    found = read(
        prometheus_with(series(name, every(30)) + series(name, shifted, other)), at_s=range(300, 601, 5)
    )
    known = [traffic for traffic in found if traffic]
    assert sum(t.num_requests or 0 for t in known) / sum(t.duration_s for t in known) == pytest.approx(
        4.0, rel=0.03
    )


def test_other_models_and_namespaces_are_not_counted(prometheus_with: Start) -> None:
    others = FRONTEND.replace("llama", "qwen"), FRONTEND.replace("prod", "staging")
    (traffic,) = read(prometheus_with(a_frontend() + a_frontend(others[0]) + a_frontend(others[1])))
    assert traffic is not None
    assert traffic.num_requests == 360


def test_the_router_can_be_the_source(prometheus_with: Start) -> None:
    labels, prefix = 'dynamo_namespace="my_prod",instance="r",job="router"', "dynamo_component_router_"
    growth = {
        "requests_total": 60,
        "input_sequence_tokens_sum": 60_000,
        "input_sequence_tokens_count": 60,
        "output_sequence_tokens_sum": 3000,
        "output_sequence_tokens_count": 30,
        "kv_hit_rate_sum": 24,
        "kv_hit_rate_count": 60,
    }
    url = prometheus_with("".join(series(prefix + name, every(g), labels) for name, g in growth.items()))
    assert read(url, namespace="my-prod", throughput_metrics_source="router") == [
        TrafficObservation(
            duration_s=180, num_requests=720, isl=1000, osl=100, num_completed=360, kv_hit_rate=0.4
        )
    ]


def test_the_engines_tell_the_accept_length(prometheus_with: Start) -> None:
    engine = 'dynamo_namespace="prod",instance="e",model_name="LLaMA"'
    text = series("vllm:spec_decode_num_drafts_total", every(100), engine)
    text += series("vllm:spec_decode_num_accepted_tokens_total", every(150), engine)
    (traffic,) = read(prometheus_with(a_frontend() + text))
    assert traffic is not None
    assert traffic.accept_length == 2.5


def test_series_that_are_not_there_are_unknown_and_not_zero(prometheus_with: Start) -> None:
    url = prometheus_with(a_frontend())
    with pytest.raises(Unobserved, match=r'there is no series \{.*dynamo_namespace="elsewhere"'):
        read(url, namespace="elsewhere")


def test_stale_series_are_unknown_with_their_age(prometheus_with: Start) -> None:
    url = prometheus_with(a_frontend(until_s=0) + a_frontend(until_s=600))
    with pytest.raises(Unobserved, match="is stale, its last sample is 600 s old"):
        read(url, at_s=[600, 1200])


def test_after_an_outage_of_ten_minutes_nothing_is_lost_or_counted_twice(prometheus_with: Start) -> None:
    name = "dynamo_frontend_requests_started_total"
    points = [(at_s, value) for at_s, value in every(30, 1800) if at_s <= 600 or at_s >= 1200]
    url = prometheus_with(series(name, points))
    first, second = read(url, at_s=[600, 1230])
    assert first is not None
    assert second is not None
    assert (second.duration_s, second.num_requests) == (630, 1260)


def test_not_a_number_is_unknown(prometheus_with: Start) -> None:
    points = [(at_s, float("nan")) for at_s, _ in every(1)]
    with pytest.raises(Unobserved, match="no series"):
        read(prometheus_with(series("dynamo_frontend_requests_started_total", points)))


def test_a_frontend_that_cannot_be_scraped_leaves_traffic_unknown_and_one_that_is_gone_does_not(
    prometheus_with: Start,
) -> None:
    down = FRONTEND.replace("10.0.0.1", "10.0.0.2")
    text = a_frontend() + a_frontend(down, until_s=300)
    up = [
        (at_s, 1.0 if at_s <= 300 else 0.0) for at_s in range(0, 451, STEP_S)
    ]  # later it is no target any more
    url = prometheus_with(text + series("up", up, 'instance="10.0.0.2:8000",job="frontend"'))
    with pytest.raises(Unobserved, match=r"10\.0\.0\.2:8000 can't be scraped for 150 s"):
        read(url, at_s=[300, 450])
    _, second = read(url, at_s=[300, 600])
    assert second is not None
    assert (second.duration_s, second.num_requests) == (300, 600)


def test_latencies_are_means(prometheus_with: Start) -> None:
    assert latencies(prometheus_with(histograms())) == ObservedLatencies(
        ttft_ms=250.0, itl_ms=20.0, request_duration_s=4.0
    )


def test_latencies_are_the_quantile_that_the_sla_names(prometheus_with: Start) -> None:
    found = latencies(prometheus_with(histograms()), sla_quantile=0.9)
    assert found is not None
    assert (found.ttft_ms, found.itl_ms) == (
        pytest.approx(460.0),
        10.0,
    )  # above the highest bound nothing is known


def histograms() -> str:
    """100 requests per scrape: TTFT 0.25 s on average, of which 80 below 0.2 s and 90 below 0.46 s."""
    text = ""
    for name, mean, buckets in (
        ("time_to_first_token_seconds", 0.25, {"0.2": 80, "0.46": 90, "+Inf": 100}),
        ("inter_token_latency_seconds", 0.02, {"0.01": 50, "+Inf": 100}),
        ("request_duration_seconds", 4.0, {"8.0": 100, "+Inf": 100}),
    ):
        full = f"dynamo_frontend_{name}"
        text += series(f"{full}_sum", every(100 * mean)) + series(f"{full}_count", every(100))
        for bound, count in buckets.items():
            text += series(f"{full}_bucket", every(count), f'{FRONTEND},le="{bound}"')
    return text


def latencies(url: str, **changes: object) -> ObservedLatencies | None:
    async def run() -> ObservedLatencies | None:
        source = traffic_source(config(url, **changes), PrometheusOptions(), clock=lambda: T0 + 600.0)
        try:
            return await source.latencies(180)
        finally:
            await source.close()

    return asyncio.run(run())
