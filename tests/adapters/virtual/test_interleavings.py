"""Planner, environment and restarts in any order: ids only grow, and no decision is lost or made twice."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import attrs
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from planner_adapters.environment import NotScaled, Unobserved
from planner_adapters.virtual import Store, Stored, StoreError, VirtualClient, connect
from planner_core import NextTick, PlannerConfig, Role

Connect = Callable[[], Store]
CONFIG = PlannerConfig.from_mapping({"mode": "disagg"})
TIMEOUT_S = 1_800.0

counts = st.integers(0, 3)
replicas = st.one_of(
    st.fixed_dictionaries({Role.PREFILL: counts, Role.DECODE: counts}),
    st.fixed_dictionaries({Role.DECODE: counts}),
)


@attrs.frozen
class Wanted:
    replicas: Mapping[Role, int]
    drain: Mapping[Role, tuple[str, ...]] = attrs.field(factory=dict)

    @property
    def next_tick(self) -> NextTick:
        raise AssertionError("a connector has no schedule of its own")


@attrs.define
class Around:
    """A store to whose first swap something happens: a rival is quicker, or the process dies before or after."""

    store: Store
    before: Callable[[], Awaitable[Any]] | None = None
    dies: str = ""

    async def read(self) -> Stored:
        return await self.store.read()

    async def swap(self, version: int, text: str) -> bool:
        before, self.before = self.before, None
        if before is not None:
            await before()
        if self.dies == "before":
            raise StoreError("died before it wrote")
        done = await self.store.swap(version, text)
        if self.dies == "after":
            raise StoreError("died after it wrote")
        return done

    async def changed(self, version: int, timeout_s: float) -> None:
        await self.store.changed(version, timeout_s)

    async def close(self) -> None:
        await self.store.close()


class World(RuleBasedStateMachine):
    """One planner, another that it doesn't know of, and an environment, over connections of their own."""

    new_place: Callable[[], Connect]

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.Runner()
        self.open_store = self.new_place()
        self.planner, self.environment, self.witness = (self.open_store() for _ in range(3))
        self.now_s = 0.0
        self.made: dict[int, dict[Role, int]] = {}
        """Every decision that was ever seen."""
        self.received: list[int] = []
        self.after = 0
        self.scaled_id = 0
        self.running: dict[Role, int] = {}

    def teardown(self) -> None:
        for store in (self.planner, self.environment, self.witness):
            self.loop.run(store.close())
        self.loop.close()

    # What happens

    @rule(wanted=replicas)
    def the_planner_decides(self, wanted: dict[Role, int]) -> None:
        newest, standing = self._newest_id(), self._standing()
        overdue = self._decide(wanted, self.planner)
        stands = not overdue and wanted.items() <= standing.items()
        self._look()
        assert self._newest_id() == newest + (not stands)
        if not stands:
            assert wanted.items() <= self.made[newest + 1].items()

    @rule(wanted=replicas, rival_wants=replicas)
    def two_planners_decide_at_once(self, wanted: dict[Role, int], rival_wants: dict[Role, int]) -> None:
        async def rival() -> None:
            await self._scale(rival_wants, self.witness)
            await self._see()

        newest = self._newest_id()
        self._decide(wanted, Around(self.planner, before=rival))
        self._look()
        assert newest <= self._newest_id()

    @rule(wanted=replicas, data=st.data())
    def the_environment_completes_while_the_planner_writes(self, wanted: dict[Role, int], data: Any) -> None:
        if not self.received:
            return
        decision_id = data.draw(st.sampled_from(self.received))
        self._decide(wanted, Around(self.planner, before=lambda: self._complete(decision_id, self.witness)))
        self._look()

    @rule(wanted=replicas, dies=st.sampled_from(["before", "after"]))
    def the_planner_dies_while_it_writes_and_another_decides_the_same(
        self, wanted: dict[Role, int], dies: str
    ) -> None:
        newest = self._newest_id()
        self._decide(wanted, Around(self.planner, dies=dies))
        self._restart_planner()
        self._decide(wanted, self.planner)
        self._look()
        assert self._newest_id() - newest <= 1, "one wish became two decisions"
        assert wanted.items() <= self._standing().items()

    @rule()
    def the_planner_restarts(self) -> None:
        self._restart_planner()

    @rule()
    def the_environment_looks(self) -> None:
        decision = self.loop.run(VirtualClient(self.environment).wait(self.after, timeout_s=0))
        assert (decision is None) == (self.after == self._newest_id()), "a decision was lost"
        if decision is not None:
            assert decision.decision_id == self._newest_id()
            assert decision.replicas == self.made[decision.decision_id]
            self.after = decision.decision_id
            self.received.append(self.after)

    @rule(data=st.data(), dies=st.sampled_from(["", "before", "after"]))
    def the_environment_completes(self, data: Any, dies: str) -> None:
        if not self.received:
            return
        decision_id = data.draw(st.sampled_from(self.received))
        if dies:
            died = decision_id > self.scaled_id
            try:
                self.loop.run(VirtualClient(Around(self.environment, dies=dies)).complete(decision_id))
                died = False
            except StoreError:
                assert died, "what is acknowledged already needs no writing"
        self.loop.run(self._complete(decision_id, self.environment))

    @rule(running=replicas)
    def the_environment_reports(self, running: dict[Role, int]) -> None:
        self.loop.run(VirtualClient(self.environment).report(running))
        self.running |= running

    @rule()
    def the_environment_restarts(self) -> None:
        self.after = 0
        self.loop.run(self.environment.close())
        self.environment = self.open_store()

    @rule(seconds=st.sampled_from([1.0, 600.0, TIMEOUT_S]))
    def time_passes(self, seconds: float) -> None:
        self.now_s += seconds

    # What always holds

    @invariant()
    def counts_are_what_was_reported_and_starts_are_what_is_asked_for_above_it(self) -> None:
        planner = connect(CONFIG, self.planner, clock=lambda: self.now_s)
        try:
            workers = self.loop.run(planner.workers())
        except Unobserved:
            workers = {}
        assert {role: known.ready for role, known in workers.items()} == self.running
        for role, known in workers.items():
            assert known.expected in (self.running[role], self._standing().get(role))
            assert len(known.starting_ages_s) == max(0, (known.expected or 0) - known.ready)
            assert all(0 <= age <= self.now_s for age in known.starting_ages_s)

    # How it is done

    def _restart_planner(self) -> None:
        self.loop.run(self.planner.close())
        self.planner = self.open_store()

    def _decide(self, wanted: dict[Role, int], store: Store) -> bool:
        """Whether the planner says that the decision before is given up."""
        return self.loop.run(self._scale(wanted, store))

    async def _scale(self, wanted: dict[Role, int], store: Store) -> bool:
        try:
            await connect(CONFIG, store, timeout_s=TIMEOUT_S, clock=lambda: self.now_s).scale(Wanted(wanted))
        except NotScaled as error:
            return "given up" in str(error)
        return False

    async def _complete(self, decision_id: int, store: Store) -> None:
        await VirtualClient(store).complete(decision_id)
        if decision_id > self.scaled_id:
            self.scaled_id = decision_id
            self.running |= self.made[decision_id]

    async def _see(self) -> None:
        newest = await VirtualClient(self.witness).wait(0, timeout_s=0)
        if newest is not None:
            assert newest.decision_id >= self._newest_id(), "ids only grow"
            assert newest.decision_id <= self._newest_id() + 1, "a decision that nobody asked for"
            assert self.made.setdefault(newest.decision_id, newest.replicas) == newest.replicas

    def _look(self) -> None:
        self.loop.run(self._see())

    def _newest_id(self) -> int:
        return max(self.made, default=0)

    def _standing(self) -> dict[Role, int]:
        """What runs, and over it what is asked for and not acknowledged."""
        newest = self._newest_id()
        return self.running | (self.made[newest] if newest > self.scaled_id else {})


def test_no_decision_is_lost_or_made_twice_whatever_the_interleaving(
    new_place: Callable[[], Connect],
) -> None:
    run_state_machine_as_test(
        type("WorldOfThisStore", (World,), {"new_place": staticmethod(new_place)}),
        settings=settings(max_examples=settings.default.max_examples // 4, stateful_step_count=30),
    )
