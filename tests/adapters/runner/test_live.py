from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from planner_adapters.environment import NotScaled, Order, Unobserved
from planner_adapters.runner import Health, Live, SteadyClock, TimeLimits, run
from planner_adapters.runner.testing import PlayedClock, PlayedFleet
from planner_core import NextTick, ObservedLatencies, PlannerConfig, Role, TickInput, TrafficObservation

ALL = NextTick(
    at_s=1000.0,
    load=True,
    throughput=True,
    needs=frozenset({"workers", "fpm", "traffic"}),
    traffic_window_s=180.0,
)
IMPATIENT = TimeLimits(workers_s=0.05, traffic_s=0.05, passes_s=0.05, scale_s=0.05, close_s=0.05)


class Hanging(PlayedFleet):
    """Answers nothing, ever."""

    async def workers(self) -> Any:
        await asyncio.Event().wait()

    async def traffic(self, window_s: float) -> Any:
        await asyncio.Event().wait()

    async def passes(self) -> Any:
        await asyncio.Event().wait()

    async def scale(self, order: Order) -> None:
        await asyncio.Event().wait()

    async def close(self) -> None:
        await asyncio.Event().wait()


class Raising(PlayedFleet):
    """Says why not."""

    async def workers(self) -> Any:
        raise Unobserved("the API server\nsays 503 since 12:00; is it up?")

    async def traffic(self, window_s: float) -> Any:
        raise Unobserved("http://prometheus:9090: newest sample is 600 s old; is the scrape running?")

    async def passes(self) -> Any:
        raise ConnectionRefusedError(111, "Connection refused")


class Empty(PlayedFleet):
    """Has nothing to tell."""

    async def workers(self) -> Any:
        return {}

    async def traffic(self, window_s: float) -> Any:
        return None

    async def passes(self) -> Any:
        return {}


SOURCES = ["workers", "traffic", "fpm"]


def live_with(source: str, kind: type[PlayedFleet], good: PlayedFleet) -> Live:
    """A good fleet of which one source is of that kind."""
    bad = kind(good.clock, good.kv_tokens, replicas=good.replicas)
    parts = {name: bad if name == source else good for name in SOURCES}
    connector = parts["workers"]
    connector.scale = good.scale  # type: ignore[method-assign]
    return Live(connector, parts["traffic"], parts["fpm"], clock=good.clock, limits=IMPATIENT)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("kind", [Hanging, Raising, Empty])
def test_a_source_that_fails_is_unknown_and_blinds_no_other(
    busy: PlayedFleet, source: str, kind: type[PlayedFleet]
) -> None:
    live = live_with(source, kind, busy)
    measured = asyncio.run(live.observe(ALL))
    assert not measured.get(source)
    assert all(measured.get(other) for other in SOURCES if other != source)
    assert set(live.faults) == (set() if kind is Empty else {source})


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("kind", [Hanging, Raising, Empty])
def test_no_source_that_fails_shrinks_a_busy_fleet(
    busy: PlayedFleet, config: PlannerConfig, source: str, kind: type[PlayedFleet]
) -> None:
    live = live_with(source, kind, busy)
    asyncio.run(run(live, config, num_ticks=30 if kind is not Hanging else 3))
    assert busy.replicas == 4
    assert all(order.replicas.get(Role.AGG, 4) == 4 for order in busy.orders)


def test_an_unfed_input_is_a_health_problem_with_an_age_and_a_reason(
    busy: PlayedFleet, config: PlannerConfig
) -> None:
    live = live_with("fpm", Raising, busy)
    health = Health(
        faults=lambda: {name: fault.error for name, fault in live.faults.items()},
        monotonic=busy.clock.now_s,
    )
    asyncio.run(run(live, config, num_ticks=20, health=health))
    well, report = health.ready()
    assert not well
    assert report["inputs"]["workers.agg"]["fed"]
    assert report["inputs"]["fpm.agg"] == {
        "fed": False,
        "age_s": 95.0,
        "ever": False,
        "error": "ConnectionRefusedError: [Errno 111] Connection refused",
    }
    assert health.unfed() == "fpm.agg 95 s (never came)"
    assert health.alive()[0]


def test_a_decision_says_what_it_was_made_without(
    busy: PlayedFleet, config: PlannerConfig, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "planner")
    asyncio.run(run(live_with("fpm", Empty, busy), config, num_ticks=1))
    (record,) = caplog.records
    assert 'unfed="fpm.agg 0 s (never came)"' in record.getMessage()


def test_what_fails_is_told_on_one_line_with_its_begin_until_it_works_again(
    busy: PlayedFleet, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "planner")

    class Flaky(Raising):
        up = False

        async def workers(self) -> Any:
            return await (PlayedFleet if self.up else Raising).workers(self)

    fleet = Flaky(busy.clock)
    live = Live(fleet, clock=busy.clock)
    asyncio.run(live.observe(ALL))
    busy.clock.at_s += 60.0
    asyncio.run(live.observe(ALL))
    fault = live.faults["workers"]
    assert fault.error == "the API server says 503 since 12:00; is it up?"
    assert fault.since_s == 1000.0
    fleet.up = True
    asyncio.run(live.observe(ALL))
    assert live.faults == {}
    told = [record.getMessage() for record in caplog.records]
    assert told == [
        'event=fault part=workers error="the API server says 503 since 12:00; is it up?"',
        "event=recovered part=workers after_s=60.000",
    ]


def test_a_source_that_ignores_its_cancellation_is_not_asked_again_until_it_is_back(
    busy: PlayedFleet,
) -> None:
    release = asyncio.Event()

    class Stubborn(PlayedFleet):
        asked = 0

        async def passes(self) -> Any:
            self.asked += 1
            while not release.is_set():
                try:
                    await release.wait()
                except asyncio.CancelledError:
                    continue
            return await super().passes()

    async def play() -> None:
        fleet = Stubborn(busy.clock)
        live = Live(fleet, None, fleet, clock=busy.clock, limits=IMPATIENT)
        for _ in range(3):
            assert "fpm" not in await live.observe(ALL)
        assert fleet.asked == 1
        assert live.faults["fpm"].error == "has not come back from an earlier call"
        release.set()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert "fpm" in await live.observe(ALL)
        assert live.faults == {}

    asyncio.run(play())


def test_an_order_that_hangs_or_fails_is_not_scaled(busy: PlayedFleet) -> None:
    live = Live(Hanging(busy.clock), clock=busy.clock, limits=IMPATIENT)
    order: Any = None
    with pytest.raises(NotScaled, match=r"no answer within 0\.05 s"):
        asyncio.run(live.scale(order))
    assert "scale" in live.faults


def test_closing_closes_everything_whatever_hangs(busy: PlayedFleet) -> None:
    live = Live(Hanging(busy.clock), busy, busy, clock=busy.clock, limits=IMPATIENT)
    asyncio.run(live.close())
    assert busy.closed == 2


def test_only_what_is_asked_for_is_measured(busy: PlayedFleet) -> None:
    without = NextTick(
        at_s=0.0, load=True, throughput=False, needs=frozenset({"workers", "fpm"}), traffic_window_s=5.0
    )
    assert set(asyncio.run(Live(busy, busy, busy).observe(without))) == {"workers", "fpm"}


def test_a_late_tick_asks_for_the_traffic_of_a_longer_window(busy: PlayedFleet) -> None:
    asked = []

    class Asked(PlayedFleet):
        async def traffic(self, window_s: float) -> TrafficObservation | None:
            asked.append(window_s)
            return None

        async def latencies(self, window_s: float) -> ObservedLatencies | None:
            return ObservedLatencies(ttft_ms=200.0)

    live = Live(busy, Asked(busy.clock), clock=busy.clock)
    for late_s in (0.0, 30.0, 4000.0):
        busy.clock.at_s = ALL.at_s + late_s
        measured = asyncio.run(live.observe(ALL))
        assert measured["observed"] == ObservedLatencies(ttft_ms=200.0)
    assert asked == [180.0, 210.0, 360.0]


def test_the_wall_clock_moves_the_steady_one_nowhere() -> None:
    wall, monotonic = [5_000.0], [7.0]
    clock = SteadyClock(wall=lambda: wall[0], monotonic=lambda: monotonic[0])
    assert clock.now_s() == 5_000.0
    for jump_s in (3600.0, -7200.0):
        wall[0] += jump_s
        monotonic[0] += 5.0
    assert clock.now_s() == 5_010.0


def test_a_steady_clock_goes_on_where_the_last_run_ended() -> None:
    set_back = SteadyClock(not_before_s=8_600.0, wall=lambda: 5_000.0, monotonic=lambda: 7.0)
    assert set_back.now_s() == 8_600.0


def test_waiting_is_over_when_it_is_time() -> None:
    clock = PlayedClock(10.0)
    live = Live(PlayedFleet(clock), clock=clock)
    assert asyncio.run(live.wait_until(15.0)) == 15.0
    assert asyncio.run(live.wait_until(3.0)) == 15.0
    clock.at_s = -3600.0
    assert asyncio.run(live.wait_until(20.0)) == -3600.0


def test_inputs_keep_their_type(busy: PlayedFleet, config: PlannerConfig) -> None:
    seen: list[TickInput] = []
    live = Live(busy, busy, busy, clock=busy.clock)
    asyncio.run(run(live, config, num_ticks=1, on_tick=[lambda inputs, decision: seen.append(inputs)]))
    assert seen[0].batch(Role.AGG).num_workers == 4
