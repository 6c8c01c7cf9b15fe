"""What planner and environment say to each other, one sentence at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import attrs
import pytest

from planner_adapters.environment import NotScaled, Unobserved
from planner_adapters.virtual import (
    BlockingClient,
    MemoryStore,
    SqliteStore,
    UnknownDecisionError,
    Virtual,
    VirtualClient,
    VirtualDecision,
    connect,
    open_store,
)
from planner_core import ConfigError, NextTick, PlannerConfig, Role, WorkerCounts

DISAGG = PlannerConfig.from_mapping({"mode": "disagg"})
AGG = PlannerConfig.from_mapping({"mode": "agg"})


@attrs.define
class Clock:
    now_s: float = 1_000.0

    def __call__(self) -> float:
        return self.now_s


@attrs.frozen(kw_only=True)
class Wanted:
    """An order, as a decision of the planner is one."""

    replicas: Mapping[Role, int]
    drain: Mapping[Role, tuple[str, ...]] = attrs.field(factory=dict)

    @property
    def next_tick(self) -> NextTick:
        raise AssertionError("a connector has no schedule of its own")


def disagg(prefill: int, decode: int, drain: tuple[str, ...] = ()) -> Wanted:
    return Wanted(replicas={Role.PREFILL: prefill, Role.DECODE: decode}, drain={Role.DECODE: drain})


@attrs.frozen
class Both:
    planner: Virtual
    environment: VirtualClient
    clock: Clock

    async def newest(self) -> VirtualDecision | None:
        return await self.environment.wait(0, timeout_s=0)


def together(story: Callable[[Both], Coroutine[Any, Any, None]], config: PlannerConfig = DISAGG) -> None:
    store, clock = MemoryStore(), Clock()
    both = Both(connect(config, store, clock=clock), VirtualClient(store), clock)
    asyncio.run(story(both))


def test_a_decision_goes_out_with_an_id_and_comes_back_as_counts() -> None:
    async def story(both: Both) -> None:
        await both.planner.scale(disagg(2, 3))
        decision = await both.environment.wait()
        assert decision is not None
        assert decision.to_wire() == {"decision_id": 1, "num_prefill": 2, "num_decode": 3}
        await both.environment.complete(decision.decision_id)
        assert await both.planner.workers() == {
            Role.PREFILL: WorkerCounts(ready=2, expected=2),
            Role.DECODE: WorkerCounts(ready=3, expected=3),
        }

    together(story)


def test_an_aggregated_deployment_has_one_count() -> None:
    async def story(both: Both) -> None:
        await both.planner.scale(Wanted(replicas={Role.AGG: 4}))
        decision = await both.environment.wait()
        assert decision is not None
        assert decision.to_wire() == {"decision_id": 1, "num_agg": 4}

    together(story, AGG)


def test_counts_are_unknown_until_the_environment_speaks_of_them() -> None:
    async def story(both: Both) -> None:
        with pytest.raises(Unobserved, match="prefill and decode yet: let it report what it runs"):
            await both.planner.workers()
        await both.planner.scale(disagg(2, 2))
        with pytest.raises(Unobserved):
            await both.planner.workers()
        await both.environment.report({Role.AGG: 1})
        with pytest.raises(Unobserved, match="yet, only of agg"):
            await both.planner.workers()
        await both.environment.report({Role.DECODE: 0})
        assert list(await both.planner.workers()) == [Role.DECODE]

    together(story)


def test_the_same_replicas_twice_are_one_decision() -> None:
    async def story(both: Both) -> None:
        for _ in range(2):
            await both.planner.scale(disagg(2, 2))
        await both.environment.complete(1)
        for _ in range(2):
            await both.planner.scale(disagg(2, 2))
        with pytest.raises(UnknownDecisionError, match="decision 2 was never made here, the newest is 1"):
            await both.environment.complete(2)

    together(story)


def test_what_is_on_its_way_counts_with_the_age_of_each_replica() -> None:
    async def story(both: Both) -> None:
        await both.environment.report({Role.PREFILL: 1, Role.DECODE: 2})
        await both.planner.scale(disagg(3, 2))
        both.clock.now_s += 10
        await both.planner.scale(disagg(4, 1))
        both.clock.now_s += 5
        assert await both.planner.workers() == {
            Role.PREFILL: WorkerCounts(ready=1, expected=4, starting_ages_s=[15, 15, 5]),
            Role.DECODE: WorkerCounts(ready=2, expected=1),
        }
        await both.environment.report({Role.PREFILL: 2})
        assert (await both.planner.workers())[Role.PREFILL].starting_ages_s == (15, 5)

    together(story)


def test_a_replica_that_was_called_off_and_asked_for_again_starts_anew() -> None:
    async def story(both: Both) -> None:
        await both.environment.report({Role.PREFILL: 1, Role.DECODE: 1})
        for prefill in (4, 2, 3):
            await both.planner.scale(disagg(prefill, 1))
            both.clock.now_s += 10
        assert (await both.planner.workers())[Role.PREFILL].starting_ages_s == (30, 10)

    together(story)


def test_a_newer_decision_supersedes_one_that_is_open() -> None:
    async def story(both: Both) -> None:
        for prefill in (2, 3, 4):
            await both.planner.scale(disagg(prefill, 1))
        decision = await both.environment.wait(1)
        assert decision is not None
        assert (decision.decision_id, decision.replicas[Role.PREFILL]) == (3, 4)
        await both.environment.complete(2)  # the one that it was busy with all the time
        workers = await both.planner.workers()
        assert (workers[Role.PREFILL].ready, workers[Role.PREFILL].expected) == (3, 4)
        assert await both.environment.wait(2, timeout_s=0) == decision

    together(story)


def test_completing_again_or_late_changes_nothing() -> None:
    async def story(both: Both) -> None:
        for prefill in (2, 3):
            await both.planner.scale(disagg(prefill, 1))
        await both.environment.complete(2)
        await both.environment.report({Role.PREFILL: 1})  # one was lost since
        before = await both.planner.workers()
        for decision_id in (2, 1):
            await both.environment.complete(decision_id)
        assert await both.planner.workers() == before

    together(story)


def test_a_replica_lost_after_it_was_acknowledged_is_asked_for_again() -> None:
    async def story(both: Both) -> None:
        await both.planner.scale(disagg(3, 1))
        await both.environment.complete(1)
        await both.environment.report({Role.PREFILL: 2})
        await both.planner.scale(disagg(3, 1))
        decision = await both.environment.wait(1)
        assert decision is not None
        assert decision.replicas == {Role.PREFILL: 3, Role.DECODE: 1}

    together(story)


def test_a_role_left_out_stays_as_it_was_asked_for() -> None:
    async def story(both: Both) -> None:
        await both.planner.scale(disagg(3, 1))
        await both.planner.scale(Wanted(replicas={Role.DECODE: 2}))
        decision = await both.newest()
        assert decision is not None
        assert decision.replicas == {Role.PREFILL: 3, Role.DECODE: 2}
        await both.environment.complete(2)
        await both.planner.scale(Wanted(replicas={Role.DECODE: 3}))
        decision = await both.newest()
        assert decision is not None
        assert decision.replicas == {Role.DECODE: 3}

    together(story)


def test_the_environment_is_told_whom_to_drain() -> None:
    async def story(both: Both) -> None:
        await both.planner.scale(disagg(1, 1, drain=("decode-2", '"]}\n<script>')))
        decision = await both.newest()
        assert decision is not None
        assert decision.to_wire()["drain"] == {"decode": ["decode-2", '"]}\n<script>']}

    together(story)


def test_a_decision_that_nobody_acknowledges_is_given_up_after_1800_s_and_said_so_once() -> None:
    async def story(both: Both) -> None:
        await both.environment.report({Role.PREFILL: 1, Role.DECODE: 1})
        await both.planner.scale(disagg(3, 1))
        both.clock.now_s += 1_799
        await both.planner.scale(disagg(3, 1))
        assert (await both.planner.workers())[Role.PREFILL].expected == 3
        both.clock.now_s += 1
        assert (await both.planner.workers())[Role.PREFILL] == WorkerCounts(ready=1, expected=1)
        with pytest.raises(
            NotScaled, match=r"decision 1 wasn't acknowledged within 1800 s .* decision 2 replaces"
        ):
            await both.planner.scale(disagg(3, 1))
        await both.planner.scale(disagg(3, 1))
        # No false hope: they have been on their way since they were first asked for.
        assert (await both.planner.workers())[Role.PREFILL].starting_ages_s == (1_800, 1_800)
        await both.environment.complete(2)
        assert (await both.planner.workers())[Role.PREFILL] == WorkerCounts(ready=3, expected=3)

    together(story)


@pytest.mark.parametrize("jump_s", [-3_600.0, 3_600.0])
def test_a_clock_that_jumps_loses_nothing(jump_s: float) -> None:
    async def story(both: Both) -> None:
        await both.environment.report({Role.PREFILL: 1, Role.DECODE: 1})
        await both.planner.scale(disagg(3, 1))
        both.clock.now_s += jump_s
        assert (await both.planner.workers())[Role.PREFILL].ready == 1
        if jump_s > 0:
            with pytest.raises(NotScaled):
                await both.planner.scale(disagg(3, 1))
        else:
            await both.planner.scale(disagg(3, 1))
        decision = await both.newest()
        assert decision is not None
        assert decision.replicas[Role.PREFILL] == 3

    together(story)


def test_an_environment_that_knows_more_than_the_store_is_told_so() -> None:
    async def story(both: Both) -> None:
        await both.planner.scale(disagg(1, 1))
        with pytest.raises(
            UnknownDecisionError, match=r"decision 7 was never made .* begin again with after = 0"
        ):
            await both.environment.wait(7)

    together(story)


def test_hundreds_of_superseded_decisions_take_no_more_room_than_a_hundred() -> None:
    async def main() -> None:
        store = MemoryStore()
        planner, lengths = connect(DISAGG, store, clock=Clock()), []
        for tick in range(200):
            await planner.scale(disagg(2 + tick % 2, 1))
            lengths.append(len((await store.read()).text or ""))
        assert lengths[199] <= 1.01 * lengths[120]  # ids have grown by a digit, no more
        await VirtualClient(store).complete(190)
        assert (await planner.workers())[Role.PREFILL].ready == 3

    asyncio.run(main())


def test_a_decision_forgotten_for_its_age_is_said_so() -> None:
    async def story(both: Both) -> None:
        for tick in range(100):
            await both.planner.scale(disagg(2 + tick % 2, 1))
        with pytest.raises(UnknownDecisionError, match=r"decision 1 is forgotten, .* carry out decision 100"):
            await both.environment.complete(1)

    together(story)


def test_a_store_that_fails_makes_counts_unknown_and_orders_unscaled(tmp_path: Any) -> None:
    async def main() -> None:
        planner = connect(DISAGG, SqliteStore(tmp_path / "no such folder" / "decisions.db"))
        with pytest.raises(Unobserved, match=r"decisions\.db: unable to open database file"):
            await planner.workers()
        with pytest.raises(NotScaled, match=r"decisions\.db: unable to open database file"):
            await planner.scale(disagg(1, 1))
        await planner.close()

    asyncio.run(main())


def test_a_scheduler_without_asyncio_has_a_client_too(tmp_path: Any) -> None:
    async def plan(prefill: int) -> dict[Role, WorkerCounts]:
        planner = connect(DISAGG, SqliteStore(tmp_path / "decisions.db"))
        try:
            await planner.scale(disagg(prefill, 1))
            return await planner.workers()
        finally:
            await planner.close()

    with BlockingClient(SqliteStore(tmp_path / "decisions.db")) as client:
        assert client.wait(timeout_s=0) is None
        client.report({Role.PREFILL: 1, Role.DECODE: 1})
        asyncio.run(plan(2))
        decision = client.wait()
        assert decision is not None
        client.complete(decision.decision_id)
        assert asyncio.run(plan(2))[Role.PREFILL] == WorkerCounts(ready=2, expected=2)


def test_the_command_line_finds_its_store_in_the_environment(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PLANNER_VIRTUAL_STORE", raising=False)
    with pytest.raises(ConfigError, match=r"\$PLANNER_VIRTUAL_STORE must be sqlite:PATH"):
        connect(DISAGG)
    address = f"sqlite:{tmp_path / 'decisions.db'}"
    monkeypatch.setenv("PLANNER_VIRTUAL_STORE", address)

    async def main() -> None:
        planner = connect(DISAGG)
        client = VirtualClient(open_store(address, name="dynamo"))
        await planner.scale(disagg(2, 1))
        assert await client.wait(timeout_s=0) is not None
        await planner.close()
        await client.close()

    asyncio.run(main())


@pytest.mark.parametrize("address", ["redis://x", "sqlite:", "http://planner:hush@etcd:2379", ""])
def test_an_address_that_is_no_store_is_refused_unseen(address: str) -> None:
    with pytest.raises(ConfigError, match="must be sqlite:PATH, etcd:http") as error:
        open_store(address, name="chat")
    assert "hush" not in str(error.value)


def test_etcd_by_its_addresses() -> None:
    for address in ("etcd:http://a:2379, https://b:2379", "http://a:2379, https://b:2379"):
        assert repr(open_store(address, name="chat")) == (
            "EtcdStore(http://a:2379, https://b:2379, key='planner/chat')"
        )


def test_a_count_that_cannot_be_true_is_refused() -> None:
    async def story(both: Both) -> None:
        with pytest.raises(ValueError, match="at least 0"):
            await both.environment.report({Role.PREFILL: -1})
        with pytest.raises(ValueError, match="whole number"):
            await both.environment.report({Role.PREFILL: 1.5})  # type: ignore[dict-item]

    together(story)
