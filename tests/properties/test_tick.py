"""What holds of every tick, whatever the configuration and whatever is measured."""

from __future__ import annotations

import math
import pickle
import random
from collections.abc import Iterator
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner_core import Constraint, Decision, LoadReason, PlannerConfig, ThroughputReason, TickInput, tick
from planner_core.predictors import Constant, Ensemble, Kalman, LagRegression
from planner_core.testing import configs, tick_inputs

TARGETS = ["throughput", "latency", "load", "sla"]
STEPS_S = (5.0, 5.0, 5.0, 5.0, 20.0, 180.0, 1.3, 0.0, -30.0, 7200.0)
"""From one tick to the next: mostly the interval; sometimes the clock stands still, is set back, or leaps."""


@attrs.frozen
class Life:
    """A planner that meets a few situations again and again, in any order."""

    situations: tuple[TickInput, ...]
    seed: int

    def ticks(self, num_ticks: int) -> Iterator[tuple[TickInput, Decision]]:
        dice, first = random.Random(self.seed), self.situations[0]
        state, now_s = first.state, first.state.schedule.last_tick_s
        for _ in range(num_ticks):
            now_s += dice.choice(STEPS_S)
            inputs = attrs.evolve(dice.choice(self.situations), state=state, now_s=now_s)
            decision = tick(inputs)
            yield inputs, decision
            state = decision.state


def lives(config: st.SearchStrategy[PlannerConfig]) -> st.SearchStrategy[Life]:
    def situations(config: PlannerConfig) -> st.SearchStrategy[tuple[TickInput, ...]]:
        return st.lists(tick_inputs(config, max_ticks_before=0), min_size=1, max_size=3).map(tuple)

    return st.builds(Life, situations=config.flatmap(situations), seed=st.integers(0, 2**32))


def check(inputs: TickInput, decision: Decision) -> None:
    keeps_the_limits(inputs.config, decision)
    gives_reasons(inputs, decision)
    speaks_in_numbers(decision)
    assert decision.next_tick.at_s > inputs.now_s


def keeps_the_limits(config: PlannerConfig, decision: Decision) -> None:
    infeasible = [
        role for role, why in decision.explanations.items() if why.constraint is Constraint.INFEASIBLE_BUDGET
    ]
    if infeasible:
        # What runs is kept, whatever the limits say of it.
        assert {
            role: why.current for role, why in decision.explanations.items() if why.current is not None
        } == (decision.replicas)
        return
    for role, replicas in decision.replicas.items():
        spec = config.engines[role]
        assert spec.min_replicas <= replicas
        assert spec.max_replicas is None or replicas <= spec.max_replicas
    if config.limits.max_gpus is not None:
        gpus = sum(config.engines[role].num_gpus * replicas for role, replicas in decision.replicas.items())
        assert gpus <= config.limits.max_gpus


def gives_reasons(inputs: TickInput, decision: Decision) -> None:
    config, before = inputs.config, inputs.state.schedule
    advanced = inputs.now_s > before.last_tick_s
    for why in decision.explanations.values():
        if config.load_loop is None:
            assert why.load_reason is LoadReason.DISABLED
        elif advanced and inputs.now_s >= before.next_load_s:
            assert why.load_reason is not LoadReason.UNSET
        if config.throughput_loop is None:
            assert why.throughput_reason is ThroughputReason.DISABLED
        elif advanced and before.next_throughput_s is not None and inputs.now_s >= before.next_throughput_s:
            assert why.throughput_reason is not ThroughputReason.UNSET


def speaks_in_numbers(decision: Decision) -> None:
    numbers = [decision.diagnostics.estimated_ttft_ms, decision.diagnostics.estimated_itl_ms]
    for why in decision.explanations.values():
        assert "\n" not in why.sentence()
        numbers += [*why.numbers.values(), *(counterfactual.value for counterfactual in why.counterfactuals)]
    for seen in decision.diagnostics.roles.values():
        numbers += [seen.capacity_rps, seen.kv_utilisation, seen.queued_prefill_tokens, seen.startup_s]
    assert all(number is None or (math.isfinite(number) and number >= 0) for number in numbers)


def run_lives(num_lives: int, ticks_per_life: int, target: Any) -> int:
    """How many ticks were checked."""
    num_ticks = 0

    @settings(max_examples=num_lives)
    @given(lives(configs(target=target)))
    def run(life: Life) -> None:
        nonlocal num_ticks
        for inputs, decision in life.ticks(ticks_per_life):
            check(inputs, decision)
            num_ticks += 1

    run()
    return num_ticks


@pytest.mark.parametrize("target", TARGETS)
def test_every_tick_of_a_life_keeps_the_limits_and_says_why(target: str) -> None:
    assert run_lives(40, 20, target) >= 800  # 3 200 over the four targets


@pytest.mark.nightly
@pytest.mark.parametrize("target", TARGETS)
def test_every_tick_of_thousands_of_lives_keeps_the_limits_and_says_why(target: str) -> None:
    assert run_lives(2000, 30, target) >= 60_000  # 240 000 over the four targets


@given(tick_inputs())
def test_equal_inputs_give_equal_decisions_and_stay_as_they_are(inputs: TickInput) -> None:
    copy = pickle.loads(pickle.dumps(inputs))
    decision = tick(inputs)
    assert inputs == copy
    assert decision == tick(inputs) == tick(copy)


@given(tick_inputs())
def test_a_decision_that_is_applied_and_asked_for_again_at_once_stays(inputs: TickInput) -> None:
    decision = tick(inputs)
    again = tick(attrs.evolve(inputs, state=decision.state))  # same clock, same world
    assert again.state.roles == decision.state.roles
    assert again.state.demand == decision.state.demand


@given(tick_inputs())
def test_a_role_that_nobody_has_measured_never_shrinks_by_itself(inputs: TickInput) -> None:
    unknown = attrs.evolve(inputs, fpm={}, traffic=None, forecast=None)
    pending = (
        unknown.state.demand.pending.duration_s
    )  # traffic of earlier ticks that the slow loop hasn't used yet
    for why in tick(unknown).explanations.values():
        bound = why.constraint in (Constraint.MAX_REPLICAS, Constraint.GPU_BUDGET)
        if why.current is not None and why.replicas is not None and not bound and not pending:
            assert why.replicas >= why.current


@given(tick_inputs(), st.sampled_from([float("nan"), float("inf"), -1.0]))
def test_impossible_metrics_of_a_role_never_shrink_it(inputs: TickInput, impossible: float) -> None:
    broken = {role: attrs.evolve(batch, num_decode=impossible) for role, batch in inputs.fpm.items()}
    for role, why in tick(attrs.evolve(inputs, fpm=broken, forecast=None)).explanations.items():
        bound = why.constraint in (Constraint.MAX_REPLICAS, Constraint.GPU_BUDGET)
        if role in broken and why.current is not None and why.replicas is not None and not bound:
            assert why.replicas >= why.current or inputs.config.load_loop is None


def with_short_memories(config: PlannerConfig) -> PlannerConfig:
    """Memories of values that a thousand ticks fill: what grows after that would grow for ever."""
    if config.throughput is None:
        return config
    short = Ensemble(members=(Constant(), Kalman(), LagRegression(memory=64)))
    return attrs.evolve(config, throughput=attrs.evolve(config.throughput, predictor=short))


RISES = 2 * 64 * 9
"""Bytes of the rises that are remembered, of requests and of tokens: one in a quarter of a start at most, so that some
lives fill them late."""


@settings(max_examples=8)
@given(lives(configs().map(with_short_memories)))
def test_the_state_is_as_small_after_two_thousand_ticks_as_after_one_thousand(life: Life) -> None:
    sizes = [len(pickle.dumps(decision.state)) for _, decision in life.ticks(2000)]
    assert max(sizes[1000:]) <= 1.05 * max(sizes[:1000]) + RISES
