"""KEDA's side is a real gRPC client over loopback."""

from __future__ import annotations

import asyncio
import math
import shutil
import struct
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("grpc", reason="needs the extra keda")
pytest.importorskip("google.protobuf", reason="needs the extra keda")

import grpc

from planner_adapters.keda import METRIC, Decided, connect, credentials_in, messages, serve
from planner_adapters.runner import run
from planner_adapters.simulation import PRESETS, Cluster, PoolSpec
from planner_adapters.simulation.environment import SimulatedEnvironment
from planner_core import ConfigError, PlannerConfig, Role

ROLES = (Role.PREFILL, Role.DECODE)
ANSWERS = {
    "IsActive": messages.IsActiveResponse,
    "GetMetricSpec": messages.GetMetricSpecResponse,
    "GetMetrics": messages.GetMetricsResponse,
}


class Asking:
    """What KEDA does with the address and the metadata of a trigger."""

    def __init__(self, channel: Any) -> None:
        self.channel = channel

    async def __call__(self, call: str, *, metric: str = METRIC, **metadata: str) -> Any:
        ref = messages.ScaledObjectRef(name="llama", namespace="llm", scalerMetadata=metadata)
        asked = (
            messages.GetMetricsRequest(scaledObjectRef=ref, metricName=metric)
            if call == "GetMetrics"
            else ref
        )
        return ANSWERS[call].FromString(await self.raw(call, asked.SerializeToString()))

    async def raw(self, call: str, sent: bytes) -> bytes:
        received: bytes = await self.channel.unary_unary(f"/externalscaler.ExternalScaler/{call}")(
            sent, timeout=20
        )
        return received

    def stream(self, **metadata: str) -> Any:
        ref = messages.ScaledObjectRef(scalerMetadata=metadata)
        call = self.channel.unary_stream("/externalscaler.ExternalScaler/StreamIsActive")
        return call(ref.SerializeToString(), timeout=20)


@asynccontextmanager
async def keda(decided: Decided, **options: Any) -> AsyncIterator[Asking]:
    async with (
        serve(decided, **options) as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        yield Asking(channel)


def asked(decided: Decided, ask: Callable[[Asking], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        async with keda(decided) as asking:
            return await ask(asking)

    return asyncio.run(main())


def refusal(decided: Decided, call: str, **metadata: str) -> tuple[str, str]:
    """The status and the words of an answer that is none."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        asked(decided, lambda asking: asking(call, **metadata))
    assert "\n" not in caught.value.details()
    return caught.value.code().name, caught.value.details()


@pytest.fixture
def decided() -> Decided:
    found = Decided()
    found.expect("chat", ROLES)
    found.publish("chat", {Role.PREFILL: 3, Role.DECODE: 0})
    return found


def test_the_value_of_the_metric_is_the_decided_count_and_its_target_is_one(decided: Decided) -> None:
    async def ask(asking: Asking) -> tuple[Any, Any]:
        place = {"deployment": "chat", "role": "prefill", "scalerAddress": "planner:9090"}
        return await asking("GetMetricSpec", **place), await asking("GetMetrics", **place)

    spec, metrics = asked(decided, ask)
    assert [(each.metricName, each.targetSize, each.targetSizeFloat) for each in spec.metricSpecs] == [
        (METRIC, 1, 1.0)
    ]
    assert [(each.metricName, each.metricValue, each.metricValueFloat) for each in metrics.metricValues] == [
        (METRIC, 3, 3.0)
    ]


def test_the_bytes_are_those_of_kedas_protocol(decided: Decided) -> None:
    """Field numbers and types by hand, since client and server here share one description of them."""

    def text(number: int, value: bytes) -> bytes:
        return bytes([number << 3 | 2, len(value)]) + value

    entries = [(b"deployment", b"chat"), (b"role", b"prefill")]
    metadata = b"".join(text(3, text(1, key) + text(2, value)) for key, value in entries)
    ref = text(1, b"llama") + text(2, b"llm") + metadata
    sent = text(1, ref) + text(2, METRIC.encode())
    answer = asked(decided, lambda asking: asking.raw("GetMetrics", sent))
    value = text(1, METRIC.encode()) + bytes([2 << 3, 3]) + bytes([3 << 3 | 1]) + struct.pack("<d", 3.0)
    assert answer == text(1, value)
    spec = text(1, METRIC.encode()) + bytes([2 << 3, 1]) + bytes([3 << 3 | 1]) + struct.pack("<d", 1.0)
    assert asked(decided, lambda asking: asking.raw("GetMetricSpec", ref)) == text(1, spec)
    assert asked(decided, lambda asking: asking.raw("IsActive", ref)) == bytes([1 << 3, 1])


def test_a_workload_is_active_unless_zero_is_decided(decided: Decided) -> None:
    async def ask(asking: Asking) -> list[bool]:
        return [(await asking("IsActive", deployment="chat", role=role)).result for role in ROLES]

    assert asked(decided, ask) == [True, False]


def test_what_is_not_decided_is_unavailable_and_never_zero(decided: Decided) -> None:
    """KEDA scales nothing to zero on an error, and does what its fallback says."""
    decided.expect("search", [Role.AGG])
    place = {"deployment": "search", "role": "agg"}
    for call in ("IsActive", "GetMetrics"):
        assert refusal(decided, call, **place) == (
            "UNAVAILABLE",
            "nothing is decided for agg of 'search' yet",
        )
    assert len(asked(decided, lambda asking: asking("GetMetricSpec", **place)).metricSpecs) == 1


def test_a_decision_that_nobody_makes_again_becomes_unavailable() -> None:
    times = [0.0]
    decided = Decided(clock=lambda: times[0])
    decided.expect("chat", [Role.AGG], valid_s=60.0)
    decided.publish("chat", {Role.AGG: 4})
    times[0] = 60.0
    assert decided.replicas("chat", "agg") == 4
    times[0] = 61.0
    status, words = refusal(decided, "GetMetrics", deployment="chat", role="agg")
    assert status == "UNAVAILABLE"
    assert "61 s old" in words


@pytest.mark.parametrize(
    ("metadata", "status", "words"),
    [
        ({}, "INVALID_ARGUMENT", "lack deployment and role"),
        ({"deployment": "chat"}, "INVALID_ARGUMENT", "lack role"),
        ({"deployment": "chat", "role": ""}, "INVALID_ARGUMENT", "lack role"),
        ({"deployment": "chit", "role": "decode"}, "NOT_FOUND", "'chit': it is one of chat"),
        ({"deployment": "chat", "role": "agg"}, "NOT_FOUND", "no role 'agg': it is one of decode, prefill"),
        ({"deployment": "chat", "role": "PREFILL"}, "NOT_FOUND", "'PREFILL'"),
        ({"deployment": "__class__", "role": "__init__"}, "NOT_FOUND", "'__class__'"),
        ({"deployment": "a\nb\r\x00", "role": "agg"}, "NOT_FOUND", r"'a\nb\r\x00'"),
        ({"deployment": "x" * 10_000, "role": "agg"}, "NOT_FOUND", "x…'"),
        ({"deployment": "chat", "role": "♥" * 3_000}, "NOT_FOUND", "♥…'"),
    ],
)
def test_metadata_that_name_nothing_get_one_line(
    decided: Decided, metadata: dict[str, str], status: str, words: str
) -> None:
    for call in ANSWERS:
        found, line = refusal(decided, call, **metadata)
        assert found == status
        assert words in line
        assert len(line) < 300


def test_another_metric_is_not_found(decided: Decided) -> None:
    place = {"deployment": "chat", "role": "prefill"}
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        asked(decided, lambda asking: asking("GetMetrics", metric="s0-cpu\n" * 99, **place))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert METRIC in caught.value.details()


@pytest.mark.parametrize(
    "sent", [b"\xff" * 50, b"\x0a\x7f", b"\x1a\x04\x0a\x02\xff\xfe", b"\x0a" + b"\xff" * 9 + b"\x7f"]
)
def test_bytes_that_are_no_message_hurt_nobody(decided: Decided, sent: bytes) -> None:
    async def ask(asking: Asking) -> bool:
        for call in ANSWERS:
            with pytest.raises(grpc.aio.AioRpcError):
                await asking.raw(call, sent)
        found = await asking("IsActive", deployment="chat", role="prefill")
        return bool(found.result)

    assert asked(decided, ask)


def test_a_request_that_is_too_large_is_refused(decided: Decided) -> None:
    assert refusal(decided, "IsActive", deployment="x" * 20_000)[0] == "RESOURCE_EXHAUSTED"


def test_a_push_trigger_hears_of_each_change_between_zero_and_more(decided: Decided) -> None:
    decided.expect("search", [Role.AGG])

    async def main() -> list[bool]:
        async with keda(decided) as asking:
            call = asking.stream(deployment="search", role="agg")
            seen = []
            for replicas in (0, 1, 5, 0):
                decided.publish("search", {Role.AGG: replicas})
                if len(seen) < 3 and replicas != 5:
                    seen.append(messages.IsActiveResponse.FromString(await call.read()).result)
            call.cancel()
            return seen

    assert asyncio.run(main()) == [False, True, False]


def test_only_this_machine_is_served_unless_asked_and_a_taken_port_is_an_error(decided: Decided) -> None:
    async def main() -> None:
        async with serve(decided) as address:
            host, _, port = address.rpartition(":")
            assert host == "127.0.0.1"
            with pytest.raises(OSError, match="can't be served"):
                async with serve(decided, port=int(port)):
                    pass

    asyncio.run(main())


def test_with_an_authority_only_its_certificates_are_served(decided: Decided, tmp_path: Path) -> None:
    if not shutil.which("openssl"):
        # Certificates are made here, and Python makes none without a further library.
        pytest.skip("needs openssl, to make certificates")
    make = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 -subj /CN=planner"
    )
    files = ("-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "tls.key", "-out", "tls.crt")
    subprocess.run([*make.split(), *files], cwd=tmp_path, check=True, capture_output=True)
    key, certificate = ((tmp_path / name).read_bytes() for name in ("tls.key", "tls.crt"))
    (tmp_path / "ca.crt").write_bytes(certificate)

    async def main() -> list[str]:
        found = []
        async with serve(decided, credentials=credentials_in(tmp_path)) as address:
            for shown in ((key, certificate), (None, None)):
                credentials = grpc.ssl_channel_credentials(certificate, *shown)
                async with grpc.aio.secure_channel(address, credentials) as channel:
                    try:
                        answer = await Asking(channel)("IsActive", deployment="chat", role="prefill")
                        found.append(f"{answer.result}")
                    except grpc.aio.AioRpcError as error:
                        found.append(error.code().name)
        return found

    assert asyncio.run(main()) == ["True", "UNAVAILABLE"]


def test_a_certificate_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"tls\.crt: No such file"):
        credentials_in(tmp_path)


def hpa(value: float, target: float, replicas: int, tolerance: float) -> int:
    """A HorizontalPodAutoscaler's rule for an external metric of type AverageValue."""
    if abs(value / (target * replicas) - 1) <= tolerance:
        return replicas
    return math.ceil(value / target)


def test_an_hpa_has_the_decided_count_at_any_size_without_tolerance_and_up_to_nine_with_the_usual() -> None:
    sizes = range(1, 200)
    assert all(hpa(d, 1.0, n, 0.0) == d for n in sizes for d in range(200))
    assert all(hpa(d, 1.0, n, 0.1) == d for n in range(1, 10) for d in range(200))
    assert hpa(9, 1.0, 10, 0.1) == 10
    assert hpa(21, 1.0, 20, 0.1) == 20


def test_a_fleet_behind_keda_grows_with_its_load_and_shrinks_after_it() -> None:
    """Simulated engines, the planner's loop, and a client that does what KEDA and an HPA without tolerance do."""
    engine = PRESETS["llama-3.1-8b-fp8-h200"]
    cluster = Cluster(roles={Role.AGG: PoolSpec(engine=engine, replicas=1, startup_s=20.0)})
    num_requests = 3_000
    cluster.submit(
        arrival_s=[120 * n / num_requests for n in range(num_requests)],
        input_tokens=[3_000] * num_requests,
        output_tokens=[300] * num_requests,
    )
    keys: dict[str, Any] = {"mode": "agg", "namespace": "chat", "max_gpu_budget": 8}
    config = PlannerConfig.from_mapping(keys | {"engines": {"agg": {"max_kv_tokens": engine.max_kv_tokens}}})
    world, decided, sizes = SimulatedEnvironment(cluster), Decided(), []

    class Workers:
        async def workers(self) -> Any:
            raise AssertionError("counts come with what the simulation observes")

        async def scale(self, order: Any) -> None:
            raise AssertionError("KEDA scales")

        async def close(self) -> None:
            pass

    class BehindKeda:
        def __init__(self, asking: Asking) -> None:
            self.asking, self.connector = asking, connect(config, Workers(), decided)

        async def wait_until(self, at_s: float) -> float:
            return world.wait_until(at_s)

        async def observe(self, upcoming: Any) -> Any:
            return world.observe(upcoming)

        async def scale(self, order: Any) -> None:
            await self.connector.scale(order)
            answer = await self.asking("GetMetrics", deployment="chat", role="agg")
            (metric,) = answer.metricValues
            assert metric.metricValueFloat == order.replicas[Role.AGG]
            size = hpa(metric.metricValueFloat, 1.0, (sizes or [1])[-1], tolerance=0.0)
            sizes.append(size)
            cluster.scale({Role.AGG: size}, drain=order.drain.get(Role.AGG, ()))

        async def close(self) -> None:
            await self.connector.close()

    async def main() -> None:
        async with keda(decided) as asking:
            await run(BehindKeda(asking), config, num_ticks=240)

    asyncio.run(main())
    assert max(sizes) > 2
    assert sizes[-1] == 1
