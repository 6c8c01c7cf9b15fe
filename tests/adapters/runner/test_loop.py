from __future__ import annotations

import asyncio
import gc
import logging
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest

from planner_adapters.environment import Measured, NotScaled, Order
from planner_adapters.journal import read_journal
from planner_adapters.runner import Health, Live, Records, run, run_sync
from planner_adapters.runner.testing import PlayedClock, PlayedFleet
from planner_adapters.simulation.cluster import Cluster
from planner_adapters.simulation.environment import SimulatedEnvironment
from planner_adapters.simulation.pool import PoolSpec
from planner_adapters.simulation.presets import PRESETS
from planner_core import Decision, NextTick, PlannerConfig, Role, TickInput, tick
from planner_core.codec import dumps

Made = list[tuple[TickInput, Decision]]


def played(fleet: PlayedFleet, config: PlannerConfig, num_ticks: int, **more: Any) -> Made:
    """The ticks of so long a run."""
    made: Made = []
    watch: list[Callable[[TickInput, Decision], None]] = [lambda i, d: made.append((i, d))]

    async def play() -> None:
        live = Live(fleet, fleet, fleet, clock=fleet.clock)
        await run(live, config, num_ticks=num_ticks, on_tick=watch, **more)
        await live.close()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(play())
    return made


def test_a_fleet_grows_with_its_load_and_shrinks_after_it(clock: PlayedClock, config: PlannerConfig) -> None:
    fleet = PlayedFleet(clock, lambda now_s: 600_000.0 if 1100 < now_s < 1300 else 20_000.0)
    made = played(fleet, config, 120)
    sizes = [decision.replicas[Role.AGG] for _, decision in made]
    assert max(sizes) >= 6
    assert sizes[0] == 1
    assert sizes[-1] <= 2
    assert [order.replicas[Role.AGG] for order in fleet.orders] == sizes


def test_the_journal_of_a_run_replays_to_the_same_decisions(
    clock: PlayedClock, config: PlannerConfig, tmp_path: Path
) -> None:
    fleet = PlayedFleet(clock, lambda now_s: 100_000.0 + 2_000 * (now_s % 300))
    records = Records(journal=tmp_path / "journal")
    made = played(fleet, config, 50, records=records)
    records.close()
    found = list(read_journal(tmp_path / "journal"))
    assert found == made
    assert all(dumps(tick(inputs)) == dumps(decision) for inputs, decision in found)


def test_the_synchronous_twin_decides_the_same(clock: PlayedClock, config: PlannerConfig) -> None:
    class Plain:
        def __init__(self, fleet: PlayedFleet) -> None:
            self.fleet = fleet

        def wait_until(self, at_s: float) -> float:
            self.fleet.clock.at_s = max(self.fleet.clock.at_s, at_s)
            return self.fleet.clock.at_s

        def observe(self, upcoming: NextTick) -> Measured:
            return asyncio.run(Live(self.fleet, self.fleet, self.fleet).observe(upcoming))

        def scale(self, order: Order) -> None:
            asyncio.run(self.fleet.scale(order))

    load = [lambda now_s: 100_000.0 + 2_000 * (now_s % 300)] * 2
    one, other = (PlayedFleet(PlayedClock(1000.0), each) for each in load)
    made: Made = []
    state = run_sync(Plain(one), config, num_ticks=30, on_tick=lambda i, d: made.append((i, d)))
    assert made == played(other, config, 30)
    assert state == made[-1][1].state
    assert (
        run_sync(Plain(one), config, state=state, num_ticks=1).schedule.last_tick_s == clock.at_s + 31 * 5.0
    )


def test_the_synchronous_twin_drives_a_simulated_cluster(config: PlannerConfig) -> None:
    pool = PoolSpec(engine=next(iter(PRESETS.values())), replicas=1, startup_s=60.0)
    environment = SimulatedEnvironment(Cluster(roles={Role.AGG: pool}))
    run_sync(environment, config, num_ticks=3)
    assert environment.cluster.now_s == 15.0


def test_advisory_decides_and_reports_and_changes_nothing(
    clock: PlayedClock, config: PlannerConfig, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "planner")
    fleet = PlayedFleet(clock, lambda now_s: 600_000.0)
    quiet = attrs.evolve(config, shell=attrs.evolve(config.shell, advisory=True))
    made = played(fleet, quiet, 3)
    assert made[-1][1].replicas[Role.AGG] > 1
    assert (fleet.orders, fleet.replicas) == ([], 1)
    lines = [r.getMessage() for r in caplog.records if r.getMessage().startswith("event=decision")]
    assert len(lines) == 3
    assert all("scaled=advisory" in line for line in lines)


def test_a_tick_is_one_line_with_its_sentence(
    clock: PlayedClock, busy: PlayedFleet, config: PlannerConfig, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "planner")
    made = played(busy, config, 2)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2
    for line, (_, decision) in zip(lines, made, strict=True):
        assert line.startswith("event=decision at_s=")
        assert decision.explanations[Role.AGG].sentence() in line
        assert "scaled=done" in line


def test_ticks_that_were_slept_through_are_dropped(
    clock: PlayedClock, busy: PlayedFleet, config: PlannerConfig
) -> None:
    class Slow(PlayedFleet):
        async def scale(self, order: Order) -> None:
            await super().scale(order)
            if len(self.orders) == 3:
                self.clock.at_s += 23.0  # four more were due meanwhile

    slow = Slow(clock, busy.kv_tokens, replicas=4)
    times = [inputs.now_s for inputs, _ in played(slow, config, 6)]
    assert times == [1005.0, 1010.0, 1015.0, 1038.0, 1040.0, 1045.0]


@pytest.mark.parametrize("jump_s", [3600.0, -3600.0])
def test_a_clock_that_jumps_an_hour_stops_nothing_and_shrinks_nothing(
    clock: PlayedClock, busy: PlayedFleet, config: PlannerConfig, jump_s: float
) -> None:
    class Jumping(PlayedFleet):
        async def scale(self, order: Order) -> None:
            await super().scale(order)
            if len(self.orders) == 10:
                self.clock.at_s += jump_s

    fleet = Jumping(clock, busy.kv_tokens, replicas=4)
    made = played(fleet, config, 30)
    assert [d.replicas[Role.AGG] for _, d in made] == [4] * 30
    after = [inputs.now_s for inputs, _ in made[10:]]
    assert after[0] == pytest.approx(1050.0 + jump_s, abs=5.0)
    assert after[-1] - after[0] == pytest.approx(19 * 5.0, abs=5.0)


def test_a_failed_scale_is_tried_again_at_the_next_tick(clock: PlayedClock, config: PlannerConfig) -> None:
    class Refusing(PlayedFleet):
        refusals = 3

        async def scale(self, order: Order) -> None:
            if self.refusals:
                self.refusals -= 1
                raise NotScaled("the API server says 503") if self.refusals else ConnectionResetError("gone")
            await super().scale(order)

    fleet = Refusing(clock, lambda now_s: 350_000.0)
    health = Health()
    made = played(fleet, config, 3, health=health)
    assert fleet.replicas == 1
    assert health.problems["scale"] == "ConnectionResetError: gone"
    made = played(fleet, config, 1, health=health, state=made[-1][1].state)
    assert fleet.replicas == made[-1][1].replicas[Role.AGG] >= 4
    assert "scale" not in health.problems


def test_what_is_no_measurement_is_none(
    clock: PlayedClock, busy: PlayedFleet, config: PlannerConfig, caplog: pytest.LogCaptureFixture
) -> None:
    class Strange(PlayedFleet):
        async def workers(self) -> Any:
            return {"nobody": 3}

    fleet = Strange(clock, busy.kv_tokens, replicas=4)
    made = played(fleet, config, 2)
    assert len(made) == 2
    assert all(
        "refused what was measured" in r.getMessage() for r in caplog.records if r.levelname == "ERROR"
    )
    assert all(inputs.workers == {} for inputs, _ in made)


def test_an_environment_that_raises_is_one_that_tells_nothing(config: PlannerConfig) -> None:
    class Broken:
        now_s = 0.0

        async def wait_until(self, at_s: float) -> float:
            self.now_s = max(self.now_s, at_s)
            return self.now_s

        async def observe(self, upcoming: NextTick) -> Measured:
            raise KeyError("items")

        async def scale(self, order: Order) -> None:
            raise RuntimeError

        async def close(self) -> None: ...

    health = Health()
    made: Made = []
    watch = [lambda i, d: made.append((i, d))]
    asyncio.run(run(Broken(), config, num_ticks=5, health=health, on_tick=watch))
    assert len(made) == 5
    assert all(decision.replicas == {} for _, decision in made)
    assert health.problems == {"scale": "RuntimeError"}


def test_a_predictor_that_raises_holds_everything_and_is_said(
    clock: PlayedClock, busy: PlayedFleet, caplog: pytest.LogCaptureFixture
) -> None:
    @attrs.frozen
    class Broken:
        def init(self) -> int:
            return 0

        def observe(self, state: int, value: float) -> int:
            raise ZeroDivisionError("of mine")

        def forecast(self, state: int, steps: int = 1) -> None:
            return None

    config = PlannerConfig.from_mapping(
        {
            "mode": "agg",
            "optimization_target": "sla",
            "throughput_adjustment_interval": 10,
            "max_gpu_budget": 16,
        }
    )
    assert config.throughput is not None
    config = attrs.evolve(config, throughput=attrs.evolve(config.throughput, predictor=Broken()))
    health = Health()
    made = played(busy, config, 4, health=health)
    assert len(made) == 1
    assert busy.replicas == 4
    assert health.problems["tick"] == "ZeroDivisionError: of mine"
    assert any("no decision" in record.getMessage() for record in caplog.records)


def test_who_looks_on_can_stop_nothing(
    clock: PlayedClock, busy: PlayedFleet, config: PlannerConfig, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(inputs: TickInput, decision: Decision) -> None:
        raise OSError("no port")

    live = Live(busy, None, busy, clock=clock)
    asyncio.run(run(live, config, num_ticks=3, on_tick=[broken]))
    assert len(busy.orders) == 3
    assert sum("watcher failed" in record.getMessage() for record in caplog.records) == 3


def test_stop_finishes_the_tick_in_hand(clock: PlayedClock, busy: PlayedFleet, config: PlannerConfig) -> None:
    stop = asyncio.Event()

    class Stopping(PlayedFleet):
        async def passes(self) -> Any:
            if len(self.orders) == 2:
                stop.set()
            return await super().passes()

    fleet = Stopping(clock, busy.kv_tokens, replicas=4)
    assert len(played(fleet, config, 100, stop=stop)) == len(fleet.orders) == 3


def test_stop_ends_a_wait_at_once(busy: PlayedFleet, config: PlannerConfig) -> None:
    async def play() -> None:
        stop = asyncio.Event()
        task = asyncio.ensure_future(
            run(Live(busy, None, busy), config, stop=stop)
        )  # the real clock: five seconds
        await asyncio.sleep(0)
        stop.set()
        await asyncio.wait_for(task, 4.0)

    asyncio.run(play())
    assert busy.orders == []


def grown_bytes(config: PlannerConfig, records: Records, *, first: int, last: int) -> int:
    """How much more memory is in use after the last tick than after the first one that is looked at."""
    fleet = PlayedFleet(PlayedClock(), lambda now_s: 100_000.0 + 100 * (now_s % 3_000), replicas=2)
    sizes: list[int] = []

    def measure(inputs: TickInput, decision: Decision) -> None:
        fleet.orders.clear()
        if inputs.now_s in (first * 5.0, last * 5.0):
            gc.collect()
            sizes.append(tracemalloc.get_traced_memory()[0])

    async def play() -> None:
        live = Live(fleet, fleet, fleet, clock=fleet.clock)
        await run(live, config, num_ticks=last, on_tick=[measure], records=records)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    logging.getLogger("planner").setLevel(logging.CRITICAL)
    tracemalloc.start()
    try:
        asyncio.run(play())
    finally:
        tracemalloc.stop()
        logging.getLogger("planner").setLevel(logging.NOTSET)
    return sizes[1] - sizes[0]


def test_memory_is_flat(config: PlannerConfig) -> None:
    assert grown_bytes(config, Records(), first=100, last=400) < 100_000


@pytest.mark.nightly
def test_memory_is_flat_over_ten_thousand_ticks_with_all_that_is_written(
    config: PlannerConfig, tmp_path: Path
) -> None:
    records = Records(journal=tmp_path / "journal", state=tmp_path / "state")
    assert grown_bytes(config, records, first=200, last=10_000) < 200_000
    records.close()
