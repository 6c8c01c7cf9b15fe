"""What a tick decides: the situations in which planners were seen to go wrong, and what ours does."""

from __future__ import annotations

import itertools
from typing import Any

import attrs
import pytest

from planner_core import (
    Constraint,
    EngineSpec,
    FpmBatch,
    Limits,
    LoadReason,
    ObservationError,
    PlannerConfig,
    Role,
    SlaTargets,
    ThroughputReason,
    TickInput,
    TrafficForecast,
    TrafficObservation,
    WorkerCounts,
    first_tick,
    initial_state,
    next_tick,
    tick,
)
from planner_core.perf import Linear

PREFILL, DECODE, AGG = Role.PREFILL, Role.DECODE, Role.AGG


def ids(count: int) -> list[str]:
    return [f"w{i}" for i in range(count)]


def idle(lab: Any, role: Role, count: int) -> list[Any]:
    make = {PREFILL: lab.prefill_pass, DECODE: lab.decode_pass, AGG: lambda w, _: lab.agg_pass(w, 0, 0)}[role]
    return [make(w, 0) for w in ids(count)]


# --- growing


@pytest.mark.parametrize("target", ["sla", "throughput", "latency"])
def test_a_backlog_of_minutes_is_answered_with_as_many_replicas_as_it_needs(lab: Any, target: str) -> None:
    queue = [lab.prefill_pass(w, 8000, queued=4_000_000) for w in ids(2)]
    decision = lab.once(
        lab.config("prefill", target), workers={PREFILL: WorkerCounts(ready=2)}, fpm={PREFILL: queue}
    )
    assert decision.replicas[PREFILL] >= 4
    assert decision.explanations[PREFILL].load_reason is LoadReason.SCALE_UP


def test_unit_steps_add_one_replica_when_all_engines_miss_the_sla(lab: Any) -> None:
    queue = [lab.prefill_pass(w, 8000, queued=400_000) for w in ids(2)]
    config = lab.config("prefill", load={"step": "unit"})
    decision = lab.once(config, workers={PREFILL: WorkerCounts(ready=2)}, fpm={PREFILL: queue})
    assert decision.replicas == {PREFILL: 3}


def test_unit_steps_remove_one_replica_when_all_engines_and_the_survivors_have_room(lab: Any) -> None:
    config = lab.config("decode", load={"step": "unit", "stabilisation_s": 0})
    light = [lab.decode_pass(w, 5) for w in ids(3)]
    decision = lab.once(config, workers={DECODE: WorkerCounts(ready=3)}, fpm={DECODE: light})
    assert decision.replicas == {DECODE: 2}
    assert decision.explanations[DECODE].load_reason is LoadReason.SCALE_DOWN


def test_unit_steps_keep_a_replica_whose_load_the_survivors_could_not_carry(lab: Any) -> None:
    config = lab.config("decode", load={"step": "unit", "stabilisation_s": 0})
    busy = [lab.decode_pass(w, 70) for w in ids(2)]  # 22 ms each, 36 ms on one
    decision = lab.once(config, workers={DECODE: WorkerCounts(ready=2)}, fpm={DECODE: busy})
    assert decision.replicas == {DECODE: 2}
    assert decision.explanations[DECODE].load_reason is LoadReason.SCALE_DOWN_REFUSED_CONSOLIDATION


def test_three_drowning_engines_and_an_idle_one_are_sized_by_their_total_work(lab: Any) -> None:
    engines = [lab.prefill_pass(w, 8000, queued=500_000) for w in ids(3)] + [lab.prefill_pass("w3", 0)]
    decision = lab.once(
        lab.config("prefill"), workers={PREFILL: WorkerCounts(ready=4)}, fpm={PREFILL: engines}
    )
    assert decision.replicas[PREFILL] > 4


def test_one_hot_engine_is_named_and_not_multiplied(lab: Any) -> None:
    engines = [lab.decode_pass(w, 2) for w in ids(7)] + [lab.decode_pass("w7", 120)]
    decision = lab.once(lab.config("decode"), workers={DECODE: WorkerCounts(ready=8)}, fpm={DECODE: engines})
    assert decision.replicas[DECODE] <= 8
    assert any("times the mean work" in note for note in decision.explanations[DECODE].notes)


def test_the_estimate_of_an_engine_rests_on_its_own_batch(lab: Any) -> None:
    engines = [lab.decode_pass(w, 2) for w in ids(3)] + [lab.decode_pass("w3", 150)]
    decision = lab.once(lab.config("decode"), workers={DECODE: WorkerCounts(ready=4)}, fpm={DECODE: engines})
    alone = 8 + 151 * 0.2  # ms, one request more than it has
    assert decision.diagnostics.estimated_itl_ms == pytest.approx(alone, rel=0.05)


def test_a_queue_of_a_hundred_million_tokens_is_as_quick_as_a_short_one(lab: Any) -> None:
    # Counted in calls of the model, not in seconds: the number of chunks must not matter.
    config, calls = lab.config("prefill"), []

    @attrs.frozen(kw_only=True)
    class Counting:
        inner: Any = config.perf

        def init(self) -> Any:
            return self.inner.init()

        def observe(self, state: Any, batch: FpmBatch) -> Any:
            return self.inner.observe(state, batch)

        def iteration_s(self, state: Any, load: Any) -> Any:
            calls.append(load)
            return self.inner.iteration_s(state, load)

    counted = []
    for queued in (1e4, 1e8):
        calls.clear()
        config = attrs.evolve(config, perf=Counting())
        lab.once(
            config,
            workers={PREFILL: WorkerCounts(ready=1)},
            fpm={PREFILL: [lab.prefill_pass("w0", 8000, queued=queued)]},
        )
        counted.append(len(calls))
    assert abs(counted[1] - counted[0]) <= 1


# --- shrinking and holding


@pytest.mark.parametrize("target", ["sla", "throughput", "latency"])
@pytest.mark.parametrize("role", list(Role))
def test_an_idle_fleet_walks_to_its_minimum_and_never_grows(lab: Any, target: str, role: Role) -> None:
    decisions = lab.drive(
        lab.config(role, target),
        lambda now_s, ready: {
            "fpm": {role: idle(lab, role, ready[role])},
            "traffic": TrafficObservation(duration_s=5, num_requests=0),
        },
        replicas={role: 9},
    )
    counts = [d.replicas[role] for d in decisions]
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] == 1


def test_traffic_that_stops_lowers_the_floor_to_nothing(lab: Any) -> None:
    config = attrs.evolve(lab.config("agg"), load=None, throughput=lab.slow(max_step_replicas=100))

    def observe(now_s: float, ready: Any) -> dict[str, Any]:
        rate = 80 if now_s < 1000 else 0
        lengths = {"isl": 1000.0, "osl": 200.0} if rate else {"isl": None, "osl": None}
        return {"traffic": TrafficObservation(duration_s=180, num_requests=rate * 180, **lengths)}

    decisions = list(lab.drive(config, observe, replicas={"agg": 2}, duration_s=3000))
    assert max(d.replicas[AGG] for d in decisions) > 2
    assert decisions[-1].replicas[AGG] == 1


def test_zeros_after_a_warm_start_are_believed(lab: Any) -> None:
    config = attrs.evolve(lab.config("agg"), load=None, throughput=lab.slow(max_step_replicas=100))
    yesterday = [TrafficObservation(duration_s=180, num_requests=80 * 180, isl=1000, osl=200)] * 20
    state = initial_state(config, 0.0, fpm={AGG: lab.benchmark(AGG)}, traffic=yesterday)
    counts = []
    for number in range(1, 8):
        decision = tick(
            TickInput(
                config=config,
                state=state,
                now_s=180.0 * number,
                workers={AGG: WorkerCounts(ready=4)},
                traffic=TrafficObservation(duration_s=180, num_requests=0),
            )
        )
        state = decision.state
        counts.append(decision.replicas[AGG])
    assert counts[-1] == 1


def test_what_waits_counts_as_demand_besides_what_arrives(lab: Any) -> None:
    config = attrs.evolve(lab.config("agg"), load=None, throughput=lab.slow(max_step_replicas=100))
    floors = []
    for queued in (0, 2_000_000):
        busy = lab.agg_pass("w0", 40, 4000, queued_prefill_tokens=queued, queued_num_prefill=queued / 1000)
        decision = lab.once(
            config,
            now_s=180.0,
            workers={AGG: WorkerCounts(ready=1)},
            fpm={AGG: [busy]},
            traffic=TrafficObservation(duration_s=180, num_requests=40 * 180, isl=1000, osl=200),
        )
        floors.append(decision.replicas[AGG])
    assert floors[1] > floors[0]


@pytest.mark.parametrize("broken", [{}, {"num_decode": -1.0}, {"wall_time_s": float("nan")}])
def test_short_passes_do_not_make_outputs_seem_longer_than_they_are(
    lab: Any, broken: dict[str, float]
) -> None:
    mixed = lab.agg_pass("w0", 20, 8000, wall_time_s=0.2)
    short = [lab.agg_pass("w0", 20, 0, wall_time_s=0.01) for _ in range(10)]
    odd = [lab.agg_pass("w0", 20, 0, **broken)] if broken else []
    generated_tps = 11 * 20 / 0.3
    decision = lab.once(
        lab.config("agg"),
        workers={AGG: WorkerCounts(ready=1)},
        fpm={AGG: [mixed, *odd, *short]},
        traffic=TrafficObservation(
            duration_s=5, num_requests=20, num_completed=5 * generated_tps / 200, isl=1000, osl=200
        ),
    )
    assert decision.state.demand.requests.osl == 200


def test_a_lost_scrape_is_no_silence(lab: Any) -> None:
    config = attrs.evolve(lab.config("agg"), load=None, throughput=lab.slow())

    def observe(now_s: float, ready: Any) -> dict[str, Any]:
        known = TrafficObservation(duration_s=180, num_requests=80 * 180, isl=1000, osl=200)
        return {"traffic": known if now_s < 1000 else None}

    decisions = list(lab.drive(config, observe, replicas={"agg": 2}, duration_s=3000))
    assert decisions[-1].replicas == decisions[190].replicas
    reasons = {d.explanations[AGG].throughput_reason for d in decisions[250:]}
    assert reasons == {ThroughputReason.UNSET, ThroughputReason.NO_TRAFFIC_DATA}


@pytest.mark.parametrize("target", ["sla", "throughput", "latency"])
def test_silence_of_all_engines_holds_and_is_named_with_its_age(lab: Any, target: str) -> None:
    def observe(now_s: float, ready: Any) -> dict[str, Any]:
        return {"fpm": {DECODE: [lab.decode_pass(w, 3) for w in ids(ready[DECODE])]} if now_s <= 20 else {}}

    decisions = list(lab.drive(lab.config("decode", target), observe, replicas={"decode": 4}, duration_s=600))
    assert {d.replicas[DECODE] for d in decisions} == {4}
    last = decisions[-1].explanations[DECODE]
    assert last.load_reason is LoadReason.NO_FPM_DATA
    assert "no engine has reported for 580 s" in last.notes


def test_a_role_without_metrics_holds_while_the_other_goes_on(lab: Any) -> None:
    decision = lab.once(
        lab.config("disagg"),
        workers={PREFILL: WorkerCounts(ready=1), DECODE: WorkerCounts(ready=3)},
        fpm={PREFILL: [lab.prefill_pass("w0", 8000, queued=500_000)]},
    )
    assert decision.replicas[PREFILL] > 1
    assert decision.replicas[DECODE] == 3
    assert decision.explanations[DECODE].load_reason is LoadReason.NO_FPM_DATA


def test_one_silent_engine_of_three_freezes_nothing(lab: Any) -> None:
    engines = [lab.prefill_pass(w, 8000, queued=250_000) for w in ids(2)]
    decision = lab.once(
        lab.config("prefill"), workers={PREFILL: WorkerCounts(ready=3)}, fpm={PREFILL: engines}
    )
    assert decision.replicas[PREFILL] > 3
    assert any(note.startswith("2 of 3 replicas report") for note in decision.explanations[PREFILL].notes)


def test_a_silent_engine_delays_a_shrinkage_but_not_for_ever(lab: Any) -> None:
    config = lab.config("decode", load={"patience_s": 200})
    decisions = list(
        lab.drive(
            config,
            lambda now_s, ready: {
                "fpm": {DECODE: [lab.decode_pass(w, 1) for w in ids(max(1, ready[DECODE] - 1))]}
            },
            replicas={"decode": 3},
            duration_s=600,
        )
    )
    reasons = [d.explanations[DECODE].load_reason for d in decisions]
    assert reasons[20] is LoadReason.WORKER_COUNT_MISMATCH
    assert decisions[-1].replicas[DECODE] < 3


def test_latency_target_keeps_busy_engines_whose_queues_are_empty(lab: Any) -> None:
    decisions = list(
        lab.drive(
            lab.config("prefill", "latency"),
            lambda now_s, ready: {"fpm": {PREFILL: [lab.prefill_pass(w, 4000) for w in ids(ready[PREFILL])]}},
            replicas={"prefill": 6},
        )
    )
    assert {d.replicas[PREFILL] for d in decisions} == {6}


@pytest.mark.parametrize("target", ["sla", "throughput", "latency"])
@pytest.mark.parametrize("load", [5, 20, 60, 110, 170, 240, 600, 1500])
def test_constant_load_settles(lab: Any, target: str, load: int) -> None:
    def observe(now_s: float, ready: Any) -> dict[str, Any]:
        count = ready[DECODE]
        traffic = TrafficObservation(duration_s=5, num_requests=load / 2, isl=900, osl=200)
        return {"fpm": {DECODE: [lab.decode_pass(w, load / count) for w in ids(count)]}, "traffic": traffic}

    decisions = list(
        lab.drive(
            lab.config("decode", target), observe, replicas={"decode": 2}, duration_s=1800, startup_s=60
        )
    )
    counts = [d.replicas[DECODE] for d in decisions[60:]]
    assert sum(a != b for a, b in itertools.pairwise(counts)) <= 1


def test_an_sla_that_a_lone_request_misses_is_named_and_sized_by_load(lab: Any) -> None:
    config = lab.config("decode", sla=SlaTargets(ttft_ms=500, itl_ms=2))
    decision = lab.once(
        config, workers={DECODE: WorkerCounts(ready=1)}, fpm={DECODE: [lab.decode_pass("w0", 10)]}
    )
    explanation = decision.explanations[DECODE]
    assert explanation.load_reason is LoadReason.SLA_UNREACHABLE
    assert any("ITL of 8" in note for note in explanation.notes)
    assert decision.replicas[DECODE] == 1


# --- what is on its way


def test_what_is_starting_counts(lab: Any) -> None:
    busy = [lab.decode_pass(w, 150) for w in ids(2)]
    decision = lab.once(
        lab.config("decode"),
        workers={DECODE: WorkerCounts(ready=2, expected=6, starting_ages_s=(10, 10, 10, 10))},
        fpm={DECODE: busy},
    )
    assert decision.replicas[DECODE] == 6
    assert decision.explanations[DECODE].load_reason in (LoadReason.SCALING_IN_PROGRESS, LoadReason.NO_CHANGE)


@pytest.mark.parametrize("target", ["sla", "throughput", "latency"])
@pytest.mark.parametrize("step", ["sized", "unit"])
def test_decisions_do_not_stack_while_replicas_start(lab: Any, target: str, step: str) -> None:
    def observe(now_s: float, ready: Any) -> dict[str, Any]:
        return {"fpm": {DECODE: [lab.decode_pass(w, 300 / ready[DECODE], 1500) for w in ids(ready[DECODE])]}}

    decisions = list(
        lab.drive(
            lab.config("decode", target, load={"step": step}),
            observe,
            replicas={"decode": 1},
            duration_s=115,
            startup_s=120,
        )
    )
    assert len({d.replicas[DECODE] for d in decisions}) == 1
    assert decisions[0].replicas[DECODE] >= 2


def test_replicas_that_never_come_up_are_waited_for_within_bounds(lab: Any) -> None:
    config = lab.config("decode")
    busy = [lab.decode_pass(w, 200) for w in ids(2)]
    waiting = WorkerCounts(ready=2, expected=6, starting_ages_s=(3600,) * 4)
    decision = lab.once(config, workers={DECODE: waiting}, fpm={DECODE: busy})
    explanation = decision.explanations[DECODE]
    assert explanation.wish is not None
    assert 2 < explanation.wish < decision.replicas[DECODE] == 6
    assert any("starting for too long" in note for note in explanation.notes)


def test_startup_times_are_learned(lab: Any) -> None:
    def observe(now_s: float, ready: Any) -> dict[str, Any]:
        return {"fpm": {DECODE: [lab.decode_pass(w, 300 / ready[DECODE]) for w in ids(ready[DECODE])]}}

    decisions = list(
        lab.drive(lab.config("decode"), observe, replicas={"decode": 1}, duration_s=400, startup_s=200)
    )
    assert decisions[0].diagnostics.roles[DECODE].startup_s == 60
    assert decisions[-1].diagnostics.roles[DECODE].startup_s == pytest.approx(200, abs=5)


def test_drained_first_are_the_engines_with_least_in_flight(lab: Any) -> None:
    config = lab.config("decode", load={"stabilisation_s": 0})
    engines = [lab.decode_pass(w, n) for w, n in zip(ids(4), (5, 1, 9, 2), strict=True)]
    decision = lab.once(config, workers={DECODE: WorkerCounts(ready=4)}, fpm={DECODE: engines})
    assert decision.replicas == {DECODE: 1}
    assert decision.drain == {DECODE: ("w1", "w3", "w0")}


def test_the_ranks_of_a_worker_drain_together(lab: Any) -> None:
    config = lab.config("decode", load={"stabilisation_s": 0})
    loads = [("a", 0, 1), ("b", 0, 2), ("a", 1, 9), ("c", 0, 5), ("c", 1, 6), ("b", 1, 3)]
    engines = [lab.decode_pass(worker, requests, dp_rank=rank) for worker, rank, requests in loads]
    decision = lab.once(config, workers={DECODE: WorkerCounts(ready=3)}, fpm={DECODE: engines})
    assert decision.replicas == {DECODE: 1}
    assert decision.drain == {DECODE: ("b", "a")}


# --- floors, limits, budgets


def two_loops(lab: Any, **changes: Any) -> PlannerConfig:
    return attrs.evolve(lab.config("agg", **changes), throughput=lab.slow(max_step_replicas=100))


def test_a_floor_lifts_a_fleet_below_it(lab: Any) -> None:
    busy = [lab.agg_pass(w, 2, 0) for w in ids(2)]
    decision = lab.once(
        two_loops(lab),
        now_s=180.0,
        workers={AGG: WorkerCounts(ready=2)},
        fpm={AGG: busy},
        forecast=TrafficForecast(rate_rps=60, isl=1000, osl=200),
    )
    explanation = decision.explanations[AGG]
    assert explanation.floor is not None
    assert decision.replicas[AGG] == explanation.floor > 2
    assert explanation.constraint is Constraint.THROUGHPUT_FLOOR


def test_a_tick_of_both_loops_uses_the_new_floor(lab: Any) -> None:
    config = two_loops(lab)
    state = initial_state(config, 0.0, fpm={AGG: lab.benchmark(AGG)})
    floors = []
    for now_s, rate_rps in ((180.0, 20.0), (360.0, 60.0)):
        decision = tick(
            TickInput(
                config=config,
                state=state,
                now_s=now_s,
                workers={AGG: WorkerCounts(ready=2)},
                fpm={AGG: [lab.agg_pass(w, 2, 0) for w in ids(2)]},
                forecast=TrafficForecast(rate_rps=rate_rps, isl=1000, osl=200),
            )
        )
        state = decision.state
        floors.append(decision.replicas[AGG])
    assert floors[1] > floors[0]


def test_a_floor_stops_a_shrinkage_and_says_so(lab: Any) -> None:
    config = two_loops(lab, load={"stabilisation_s": 0})
    decision = lab.once(
        config,
        now_s=180.0,
        workers={AGG: WorkerCounts(ready=3)},
        fpm={AGG: [lab.agg_pass(w, 1, 0) for w in ids(3)]},
        traffic=TrafficObservation(duration_s=180, num_requests=180, isl=1000, osl=200),
        forecast=TrafficForecast(rate_rps=30, isl=1000, osl=200),
    )
    assert decision.replicas[AGG] >= 3
    if decision.replicas[AGG] == 3:
        assert decision.explanations[AGG].load_reason is LoadReason.SCALE_DOWN_CAPPED_BY_THROUGHPUT


@pytest.mark.parametrize("measured", [{}, {"traffic": TrafficObservation(duration_s=5, num_requests=None)}])
def test_a_minimum_is_enforced_on_every_tick(lab: Any, measured: dict[str, Any]) -> None:
    for target in ("sla", "throughput"):
        config = lab.config("decode", target, spec={"min_replicas": 3})
        for now_s in (1.0, 5.0, 6.0):
            decision = lab.once(config, now_s=now_s, workers={DECODE: WorkerCounts(ready=1)}, **measured)
            assert decision.replicas == {DECODE: 3}


def test_a_budget_below_the_minimums_keeps_what_runs_and_says_what_is_missing(lab: Any) -> None:
    config = lab.config("disagg", limits=Limits(max_gpus=1))
    decision = lab.once(config, workers={PREFILL: WorkerCounts(ready=2), DECODE: WorkerCounts(ready=1)})
    assert decision.replicas == {PREFILL: 2, DECODE: 1}
    for explanation in decision.explanations.values():
        assert explanation.constraint is Constraint.INFEASIBLE_BUDGET
        assert "the minimums need 2 GPUs, the budget has 1" in explanation.notes


def test_nobody_gets_more_than_asked_for(lab: Any) -> None:
    config = PlannerConfig(
        engines={PREFILL: attrs.evolve(lab.spec, num_gpus=4, min_replicas=2), DECODE: lab.spec},
        target="sla",
        limits=Limits(max_gpus=8),
        throughput=None,
    )
    decision = lab.once(config, workers={PREFILL: WorkerCounts(ready=1), DECODE: WorkerCounts(ready=1)})
    assert decision.replicas[PREFILL] <= 2
    assert decision.replicas[DECODE] <= 1


# --- numbers that can't be


@pytest.mark.parametrize(
    "impossible",
    [
        {"duration_s": float("nan"), "num_requests": 1},
        {"duration_s": 0, "num_requests": 1},
        {"duration_s": 5, "num_requests": float("inf")},
        {"duration_s": 5, "num_requests": -1},
        {"duration_s": 5, "num_requests": 1e17},
        {"duration_s": 5, "num_requests": 1, "isl": float("nan")},
    ],
)
def test_an_impossible_measurement_is_refused_before_the_tick(impossible: dict[str, Any]) -> None:
    with pytest.raises(ObservationError, match=r"TrafficObservation\.\w+ = "):
        TrafficObservation(**impossible)


@pytest.mark.parametrize("wall_time_s", [float("nan"), float("inf"), -1.0])
def test_an_impossible_duration_of_a_pass_changes_nothing(lab: Any, wall_time_s: float) -> None:
    config = lab.config("decode")
    state = initial_state(config, 0.0, fpm={DECODE: lab.benchmark(DECODE)})

    def after(passes: list[Any]) -> Any:
        return tick(
            TickInput(
                config=config,
                state=state,
                now_s=5.0,
                workers={DECODE: WorkerCounts(ready=1)},
                fpm={DECODE: passes},
            )
        )

    clean, broken = lab.decode_pass("w0", 20), lab.decode_pass("w0", 20, wall_time_s=wall_time_s)
    assert after([broken, clean]) == after([clean])
    assert after([broken]).replicas == after([clean]).replicas


def test_a_pass_of_next_to_no_tokens_is_a_pass_of_none(lab: Any) -> None:
    passes = [
        lab.decode_pass("w0", 1.0, 1.0, wall_time_s=1.0),
        lab.decode_pass("w0", 0.0, prefill_tokens=2.2e-311, wall_time_s=2.0),
    ]
    config = lab.config("decode", perf=Linear(min_observations=1))
    decision = lab.once(config, warm=False, workers={DECODE: WorkerCounts(ready=1)}, fpm={DECODE: passes})
    assert decision.replicas == {DECODE: 1}


def test_an_hour_of_bad_passes_leaves_the_next_good_ones_alone(lab: Any) -> None:
    def observe(now_s: float, ready: Any) -> dict[str, Any]:
        bad = {"wall_time_s": float("nan")} if now_s < 60 and now_s % 10 else {}
        return {"fpm": {DECODE: [lab.decode_pass(w, 40, **bad) for w in ids(ready[DECODE])]}}

    decisions = list(lab.drive(lab.config("decode"), observe, replicas={"decode": 1}))
    assert {d.replicas[DECODE] for d in decisions} == {1}
    assert all(d.diagnostics.estimated_itl_ms == pytest.approx(16.2, rel=0.05) for d in decisions)


# --- clock


@pytest.mark.parametrize("now_s", [5.0, 0.0, -3600.0])
def test_a_clock_that_stands_still_or_goes_back_teaches_nothing(lab: Any, now_s: float) -> None:
    config = lab.config("decode")
    first = lab.once(
        config, workers={DECODE: WorkerCounts(ready=2)}, fpm={DECODE: [lab.decode_pass("w0", 30)]}
    )
    again = tick(
        TickInput(
            config=config,
            state=first.state,
            now_s=now_s,
            workers={DECODE: WorkerCounts(ready=2)},
            fpm={DECODE: [lab.decode_pass("w0", 200, wall_time_s=9.0)]},
        )
    )
    assert again.state.roles == first.state.roles
    assert again.replicas == {DECODE: 2}
    assert 0 < again.next_tick.at_s - now_s <= 5.5


def test_ticks_that_were_slept_through_are_dropped(lab: Any) -> None:
    config = two_loops(lab)
    decision = lab.once(config, now_s=1003.0)
    assert decision.next_tick.at_s == 1005.0
    assert decision.next_tick.load
    assert not decision.next_tick.throughput


def test_loops_that_are_due_together_share_a_tick(lab: Any) -> None:
    config = two_loops(lab)
    decision = lab.once(config, now_s=175.2)
    assert decision.next_tick.at_s == 180.0
    assert decision.next_tick.load
    assert decision.next_tick.throughput
    assert decision.next_tick.needs == {"workers", "fpm", "traffic"}


def test_engines_without_known_limits_are_told_what_is_missing(lab: Any) -> None:
    config = PlannerConfig(engines={DECODE: EngineSpec()})
    decision = lab.once(
        config, warm=False, workers={DECODE: WorkerCounts(ready=2)}, fpm={DECODE: [lab.decode_pass("w0", 20)]}
    )
    explanation = decision.explanations[DECODE]
    assert explanation.load_reason is LoadReason.INSUFFICIENT_DATA
    assert "set engines.decode.max_kv_tokens for its threshold" in explanation.notes
    assert decision.replicas == {DECODE: 2}


def test_after_a_restart_the_next_tick_is_the_one_that_the_decision_named(lab: Any) -> None:
    config = lab.config("disagg")
    state = initial_state(config, 100.0)
    assert next_tick(config, state) == first_tick(config, 100.0)
    decision = tick(TickInput(config=config, state=state, now_s=105.0))
    assert next_tick(config, decision.state) == decision.next_tick
