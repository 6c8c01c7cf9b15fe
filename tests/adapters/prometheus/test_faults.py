"""Prometheus in every kind of trouble: unknown with a reason in one line, within a bounded time, never zero."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner_adapters.environment import Unobserved
from planner_adapters.prometheus import HttpOptions, PrometheusOptions, traffic_source
from planner_adapters.prometheus.promql import any_of, quoted, selector
from planner_core import ConfigError, PlannerConfig, TrafficObservation

NOW_S = 1_700_000_000
FAST = {"timeout_s": 0.3, "retries": 2, "backoff_s": 0.0}


def answer(*samples: tuple[str, list[tuple[float, str]]], **labels: str) -> bytes:
    """Prometheus's answer with these series."""
    result = [
        {"metric": {"__name__": name, "instance": "a", **labels}, "values": values}
        for name, values in samples
    ]
    return json.dumps({"status": "success", "data": {"resultType": "matrix", "result": result}}).encode()


STARTED = ("dynamo_frontend_requests_started_total", [(NOW_S - 30, "5"), (NOW_S, "35")])


def ask(
    double: Any, respond: Any, http: dict[str, Any] | None = None, **changes: Any
) -> tuple[TrafficObservation | Unobserved | None, Any]:
    async def run() -> tuple[Any, Any]:
        async with double(respond) as server:
            config = PlannerConfig.from_mapping({"prometheus_endpoint": server.url, **changes})
            options = PrometheusOptions(http=HttpOptions(**FAST | (http or {})))
            source = traffic_source(config, options, clock=lambda: NOW_S)
            try:
                return await source.traffic(30), server
            except Unobserved as error:
                return error, server
            finally:
                await source.close()

    return asyncio.run(run())


def test_an_answer_becomes_traffic(double: Any) -> None:
    traffic, _ = ask(double, lambda path, form: (200, answer(STARTED)))
    assert traffic == TrafficObservation(duration_s=30, num_requests=30)


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("hang", "no answer within 0.3 s"),
        ("drip", "no answer within 0.3 s"),
        ("drop", "disconnected"),
        ((500, b"on\n fire"), "HTTP 500: on fire"),
        ((503, b""), "HTTP 503"),
        ((403, b"forbidden: token"), "HTTP 403: forbidden"),
        ((200, b"<html>sign in</html>"), "not that of Prometheus's API"),
        ((200, b'{"status":"success","data":{"resultType":"vector","result":[]}}'), "answered with a vector"),
        (
            (200, b'{"status":"success","data":{"resultType":"matrix","result":[{}]}}'),
            "not that of Prometheus's API",
        ),
        ((200, b'{"status":"error","error":"query timed out"}'), "query timed out"),
        ((200, b"[" * 100_000), "not that of Prometheus's API"),
    ],
)
def test_trouble_is_unknown_in_one_line(double: Any, kind: Any, says: str) -> None:
    error, server = ask(double, lambda path, form: kind)
    assert isinstance(error, Unobserved)
    assert says in str(error)
    assert str(error).startswith((f"Prometheus at {server.url}", server.url))
    assert "\n" not in str(error)


def test_prometheus_that_is_down_is_unknown(double: Any) -> None:
    async def run() -> None:
        async with double(lambda path, form: (200, b"")) as server:
            pass
        source = traffic_source(PlannerConfig.from_mapping({"prometheus_endpoint": server.url}))
        try:
            with pytest.raises(Unobserved, match="connection"):
                await source.traffic(30)
        finally:
            await source.close()

    asyncio.run(run())


def test_it_takes_no_longer_than_its_tries(double: Any) -> None:
    began_s = time.monotonic()
    ask(double, lambda path, form: "hang", {"timeout_s": 0.1, "retries": 1})
    assert time.monotonic() - began_s < 30  # two tries of 0.1 s, on the slowest of machines


def test_one_failure_is_tried_again_and_a_refusal_is_not(double: Any) -> None:
    failed: set[str] = set()

    def once(path: str, form: str) -> Any:
        first = form not in failed
        failed.add(form)
        return (500, b"") if first else (200, answer(STARTED))

    traffic, _ = ask(double, once)
    assert traffic == TrafficObservation(duration_s=30, num_requests=30)
    _, server = ask(double, lambda path, form: (403, b""))
    assert len(server.requests) == 3  # one of each query


def test_an_answer_without_end_is_cut_off(double: Any) -> None:
    error, _ = ask(double, lambda path, form: (200, b" " * 2_000_000), {"max_bytes": 1_000_000})
    assert "longer than 1000000 bytes" in str(error)


def test_values_that_are_no_numbers_are_left_out(double: Any) -> None:
    bad = [(NOW_S - 30, "NaN"), (NOW_S - 15, "+Inf"), (NOW_S, "NaN")]
    error, _ = ask(double, lambda path, form: (200, answer((STARTED[0], bad))))
    assert "no series" in str(error)


def test_the_token_is_sent_and_never_shown(double: Any, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("s3cret\n")
    for http in ({"bearer_token": "s3cret"}, {"bearer_token_file": file}):
        error, server = ask(double, lambda path, form: (401, b"no"), http)
        assert {headers["authorization"] for _, headers, _ in server.requests} == {"Bearer s3cret"}
        assert "s3cret" not in str(error)
        assert "s3cret" not in repr(HttpOptions(**http))


def test_a_password_in_the_address_is_never_shown() -> None:
    async def run() -> None:
        config = PlannerConfig.from_mapping({"prometheus_endpoint": "http://me:s3cret@127.0.0.1:1"})
        source = traffic_source(config)
        with pytest.raises(Unobserved) as error:
            await source.traffic(30)
        await source.close()
        assert "s3cret" not in str(error.value)

    asyncio.run(run())


def test_a_user_in_the_address_beside_a_token_is_refused_and_neither_shown() -> None:
    async def run() -> None:
        config = PlannerConfig.from_mapping({"prometheus_endpoint": "http://me:s3cret@127.0.0.1:1"})
        options = PrometheusOptions(http=HttpOptions(bearer_token="t0ken"))
        source = traffic_source(config, options)
        with pytest.raises(Unobserved, match="has a user beside a token") as error:
            await source.traffic(30)
        await source.close()
        assert "s3cret" not in str(error.value)
        assert "t0ken" not in str(error.value)

    asyncio.run(run())


def test_a_redirect_is_not_followed(double: Any) -> None:
    error, server = ask(double, lambda path, form: (302, b""), {"bearer_token": "s3cret"})
    assert "HTTP 302" in str(error)
    assert len(server.requests) == 3


def test_a_token_file_that_cannot_be_read_is_named(double: Any, tmp_path: Path) -> None:
    error, _ = ask(
        double, lambda path, form: (200, answer(STARTED)), {"bearer_token_file": tmp_path / "none"}
    )
    assert f"{tmp_path / 'none'}: the token can't be read" in str(error)


def test_authorities_that_cannot_be_read_are_refused_when_the_source_is_built(tmp_path: Path) -> None:
    options = PrometheusOptions(http=HttpOptions(ca_file=tmp_path / "none.pem"))
    with pytest.raises(ConfigError, match=r"ca_file = .*none\.pem"):
        traffic_source(PlannerConfig.from_mapping({}), options)


HOSTILE = ['prod"} or vector(1e9) #', "a\\", 'b"', "c\nd", "e\x00f", "🦙", "\ud800", "x|.*", ".*", "}", "{}"]


@pytest.mark.parametrize("value", HOSTILE)
def test_hostile_names_stay_inside_their_quotes(prometheus_with: Any, value: str) -> None:
    """Prometheus itself must find the one series, and no other one."""
    from planner_adapters.prometheus.api import Api

    clean = value.encode("utf-8", "replace").decode("utf-8")
    escaped = clean.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    url = prometheus_with(f'x{{job="{escaped}"}} 1 {NOW_S}\nx{{job="other"}} 1 {NOW_S}\n')

    async def run() -> list[str]:
        api = Api(url, HttpOptions(), clock=lambda: NOW_S)
        by_value = await api.samples(selector(["x"], {"job": value}), 60)
        by_pattern = await api.samples(f"x{{job=~{quoted(any_of([value]))}}}", 60)
        await api.close()
        assert [s.labels for s in by_value] == [s.labels for s in by_pattern]
        return [s.labels["job"] for s in by_value]

    assert asyncio.run(run()) == [clean]


@given(st.text())
def test_a_quoted_value_has_no_way_out(value: str) -> None:
    inside = quoted(value)[1:-1]
    assert "\n" not in inside
    assert '"' not in inside.replace("\\\\", "").replace('\\"', "")


@pytest.mark.parametrize("label", ["a-b", "x=~", "", "__name__", 'a"b'])
def test_names_that_are_none_are_refused(label: str) -> None:
    with pytest.raises(ConfigError, match="is no name of a metric or label"):
        selector(["x"], {label: "y"})
