from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest

from planner_adapters.config_file import read_settings
from planner_adapters.environment import Order
from planner_adapters.journal import read_journal
from planner_adapters.runner import ConfigFile, Health, Live, Service, carry_over, check_reload, serve
from planner_adapters.runner.testing import PlayedClock, PlayedFleet
from planner_core import ConfigError, Decision, PlannerConfig, Role, TickInput, initial_state, tick

TEXT = "mode: agg\nmax_gpu_budget: {gpus}\nengines: {{agg: {{max_kv_tokens: 100_000}}}}\n"


class Eventful(PlayedFleet):
    """Something happens while an order is carried out, by the number of the order."""

    def __init__(self, clock: PlayedClock, events: dict[int, Callable[[], None]]) -> None:
        super().__init__(clock, lambda now_s: 900_000.0, replicas=2)
        self.events = events

    async def scale(self, order: Order) -> None:
        await super().scale(order)
        self.events.get(len(self.orders), lambda: None)()


def send(signal_: signal.Signals) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), signal_)


def served(fleet: PlayedFleet, config: PlannerConfig, service: Service) -> list[tuple[TickInput, Decision]]:
    made: list[tuple[TickInput, Decision]] = []
    live = Live(fleet, fleet, fleet, clock=fleet.clock)

    async def play() -> None:
        await serve(live, config, service, on_tick=[lambda i, d: made.append((i, d))])
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(play())
    assert fleet.closed == 3  # as connector, as traffic, as passes
    return made


@pytest.fixture
def file(tmp_path: Path) -> ConfigFile:
    path = tmp_path / "planner.yaml"
    pytest.importorskip("yaml", reason="YAML is an extra: pip install 'planner-core[cli]'")
    path.write_text(TEXT.format(gpus=4))
    return ConfigFile(path, lambda: read_settings(path, environ={}).config())


@pytest.mark.parametrize("signal_", [signal.SIGTERM, signal.SIGINT])
def test_sigterm_finishes_the_tick_in_hand_and_stops(
    clock: PlayedClock, config: PlannerConfig, tmp_path: Path, signal_: signal.Signals
) -> None:
    fleet = Eventful(clock, {3: send(signal_)})
    made = served(fleet, config, Service(journal=tmp_path / "journal", state=tmp_path / "state"))
    assert len(made) == len(fleet.orders) == 3
    assert list(read_journal(tmp_path / "journal")) == made
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_sighup_reloads_before_the_next_tick(
    clock: PlayedClock, file: ConfigFile, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "planner")

    def change() -> None:
        (tmp_path / "planner.yaml").write_text(TEXT.format(gpus=12))
        send(signal.SIGHUP)()

    fleet = Eventful(clock, {2: change})
    made = served(fleet, file.load(), Service(config_file=file, num_ticks=4))
    assert [inputs.config.limits.max_gpus for inputs, _ in made] == [4, 4, 12, 12]
    assert fleet.replicas > 4
    assert any(record.getMessage() == "event=reloaded" for record in caplog.records)


def test_a_changed_file_is_loaded_once_it_has_come_to_rest(
    clock: PlayedClock, file: ConfigFile, tmp_path: Path
) -> None:
    path = tmp_path / "planner.yaml"
    steps = {
        2: lambda: path.write_text("mode: agg\n"),  # half of it
        3: lambda: path.write_text(TEXT.format(gpus=12)),
    }
    fleet = Eventful(clock, {number: (lambda step=step: (step(), None)[1]) for number, step in steps.items()})
    made = served(fleet, file.load(), Service(config_file=file, num_ticks=6))
    assert [inputs.config.limits.max_gpus for inputs, _ in made] == [4, 4, 4, 4, 12, 12]


def test_an_invalid_file_is_refused_with_every_reason_and_the_old_one_goes_on(
    clock: PlayedClock, file: ConfigFile, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "planner.yaml"

    def spoil() -> None:
        path.write_text("mode: agg\nttft: -1\nmax_gpu_budgt: 3\n")
        send(signal.SIGHUP)()

    def mend() -> None:
        path.write_text(TEXT.format(gpus=6))
        send(signal.SIGHUP)()

    fleet = Eventful(clock, {1: spoil, 4: mend})
    made = served(fleet, file.load(), Service(config_file=file, num_ticks=5))
    assert [inputs.config.limits.max_gpus for inputs, _ in made] == [4, 4, 4, 4, 6]
    (refusal,) = [r.getMessage() for r in caplog.records if "reload refused" in r.getMessage()]
    assert "planner.yaml:2: ttft = -1" in refusal
    assert "planner.yaml:3: max_gpu_budgt = 3" in refusal


def test_a_file_that_vanishes_changes_nothing(clock: PlayedClock, file: ConfigFile, tmp_path: Path) -> None:
    fleet = Eventful(clock, {1: (tmp_path / "planner.yaml").unlink, 3: send(signal.SIGHUP)})
    made = served(fleet, file.load(), Service(config_file=file, num_ticks=5))
    assert [inputs.config.limits.max_gpus for inputs, _ in made] == [4] * 5


def test_sighup_without_a_file_is_no_end(clock: PlayedClock, config: PlannerConfig) -> None:
    fleet = Eventful(clock, {1: send(signal.SIGHUP)})
    assert len(served(fleet, config, Service(num_ticks=3))) == 3


def test_once_is_one_tick_now_with_every_input(clock: PlayedClock) -> None:
    config = PlannerConfig.from_mapping(
        {"mode": "agg", "optimization_target": "sla", "enable_load_scaling": True}
    )
    ((inputs, decision),) = served(Eventful(clock, {}), config, Service(once=True))
    assert inputs.now_s == clock.at_s == 1000.0
    assert inputs.traffic is not None
    assert inputs.traffic.duration_s == 180.0
    assert set(map(str, (decision.diagnostics.load_reason, decision.diagnostics.throughput_reason))) != {
        "unset"
    }


# What a new configuration may change, and what stays


def test_what_cannot_change_while_running_is_named() -> None:
    before = PlannerConfig.from_mapping({"mode": "agg"})
    after = PlannerConfig.from_mapping({"mode": "disagg", "backend": "sglang", "advisory": True})
    with pytest.raises(ConfigError) as caught:
        check_reload(before, after)
    assert [problem.split(" = ")[0] for problem in caught.value.problems] == ["mode", "backend"]
    check_reload(before, attrs.evolve(before, shell=attrs.evolve(before.shell, advisory=True)))


BASE: dict[str, Any] = {
    "mode": "agg",
    "optimization_target": "sla",
    "enable_load_scaling": True,
    "max_gpu_budget": 16,
}


@pytest.mark.parametrize(
    ("change", "anew"),
    [
        ({"max_gpu_budget": 4}, ()),
        ({"ttft_ms": 100, "load_adjustment_interval": 2}, ()),
        ({"load_predictor": "constant"}, ("forecasts",)),
        ({"throughput_adjustment_interval": 60}, ("forecasts",)),
        ({"max_num_fpm_samples": 32}, ("the performance model of agg",)),
        ({"enable_throughput_scaling": False}, ("forecasts",)),
        ({"optimization_target": "latency"}, ("forecasts",)),
    ],
)
def test_the_memory_goes_on_under_another_configuration(
    change: dict[str, Any], anew: tuple[str, ...]
) -> None:
    before, after = PlannerConfig.from_mapping(BASE), PlannerConfig.from_mapping(BASE | change)
    fleet = PlayedFleet(PlayedClock(), lambda now_s: 100_000.0, replicas=3)

    def run_on(state: Any, config: PlannerConfig, ticks: range) -> Any:
        for number in ticks:
            fleet.clock.at_s = 5.0 * number
            inputs = TickInput(
                config=config,
                state=state,
                now_s=fleet.clock.at_s,
                workers=asyncio.run(fleet.workers()),
                fpm=asyncio.run(fleet.passes()),
                traffic=asyncio.run(fleet.traffic(5.0)),
            )
            decision = tick(inputs)
            state = decision.state
        return state, decision

    old, _ = run_on(initial_state(before, 0.0), before, range(1, 80))
    carried, told = carry_over(old, before, after)
    assert told == anew
    assert carried.roles[Role.AGG].fleet == old.roles[Role.AGG].fleet
    if not anew:
        assert carried.demand == old.demand
    _, decision = run_on(carried, after, range(80, 120))
    interval_s = after.load_loop.interval_s if after.load_loop else 5.0
    assert decision.next_tick.at_s - fleet.clock.at_s <= interval_s
    assert 1 <= decision.replicas[Role.AGG] <= 16


def test_nothing_changes_under_the_same_configuration(config: PlannerConfig) -> None:
    state = initial_state(config, 3.0)
    assert carry_over(state, config, config) == (state, ())


# Health over HTTP


async def ask(port: int, request: bytes) -> tuple[int, dict[str, Any]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body) if body else {}


def test_health_and_readiness_are_answered_while_the_planner_runs(
    clock: PlayedClock, config: PlannerConfig
) -> None:
    answers: list[tuple[int, dict[str, Any]]] = []

    async def play() -> None:
        port: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        class Asking(PlayedFleet):
            async def scale(self, order: Order) -> None:
                await super().scale(order)
                for path in (b"/readyz", b"/healthz"):
                    answers.append(await ask(await port, b"GET " + path + b" HTTP/1.1\r\nHost: x\r\n\r\n"))

        fleet = Asking(clock)
        service = Service(health=("127.0.0.1", 0), num_ticks=2, on_listening=port.set_result)
        await serve(Live(fleet, None, fleet, clock=clock), config, service)
        with pytest.raises(OSError, match="Connect"):
            await ask(port.result(), b"")

    asyncio.run(play())
    assert [status for status, _ in answers] == [
        503,
        200,
        200,
        200,
    ]  # not ready before the first tick is done
    assert answers[2][1]["inputs"]["fpm.agg"]["fed"] is True


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /healthz?x=1 HTTP/1.0\r\n\r\n", 200),
        (b"HEAD /healthz HTTP/1.1\r\n\r\n", 200),
        (b"GET /readyz HTTP/1.1\r\n\r\n", 503),
        (b"GET /../../etc/passwd HTTP/1.1\r\n\r\n", 404),
        (b"POST /healthz HTTP/1.1\r\n\r\n", 405),
        (b"\r\n\r\n", 405),
    ],
)
def test_requests_get_their_status(request_: bytes, status: int) -> None:
    from planner_adapters.runner import serve_health

    async def play() -> int:
        async with serve_health(Health()) as port:
            return (await ask(port, request_))[0]

    assert asyncio.run(play()) == status


def test_whoever_sends_rubbish_or_nothing_gets_no_answer_and_stops_nobody() -> None:
    from planner_adapters.runner import serve_health

    async def play() -> None:
        async with serve_health(Health()) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"x" * 100_000)
            writer.write_eof()
            assert await reader.read() == b""
            writer.close()
            _, idle = await asyncio.open_connection("127.0.0.1", port)  # says nothing
            assert (await ask(port, b"GET /healthz HTTP/1.1\r\n\r\n"))[0] == 200
            idle.close()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(play())


def test_a_loop_that_no_longer_turns_is_not_alive() -> None:
    now_s = [0.0]
    health = Health(monotonic=lambda: now_s[0])
    health.waits(5.0)
    now_s[0] = 60.0
    assert health.alive()[0]
    now_s[0] = 66.0
    assert health.alive() == (False, {"last_tick_age_s": None, "overdue_s": 61.0})
