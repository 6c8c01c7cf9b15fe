"""One tick, told top to bottom: learn → forecast → plan → settle → fit → decide."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from planner_core._plan import explain, plan, settle
from planner_core._view import View, diagnostics_of, drain_order, learn_traffic, look
from planner_core.config import PlannerConfig
from planner_core.data.fpm import EMPTY_BATCH, FpmBatch
from planner_core.data.observations import TrafficObservation
from planner_core.data.reasons import Explanation
from planner_core.data.roles import Role
from planner_core.data.state import PlannerState, RoleState
from planner_core.stages import forecast, limits, schedule
from planner_core.types import Decision, Diagnostics, NextTick, TickInput, TrafficForecast


def initial_state(
    config: PlannerConfig,
    now_s: float,
    fpm: Mapping[Role, Any] | None = None,
    traffic: Iterable[TrafficObservation] = (),
) -> PlannerState:
    """The state of a planner that begins at ``now_s``.

    ``fpm`` are benchmark passes per role (records, mappings or batches), ``traffic`` past windows, oldest first, each
    about as long as the slow loop's interval: what is known from before, if anything.
    """
    batches = {Role(role): FpmBatch.of(records) for role, records in (fpm or {}).items()}
    demand = forecast.start(config)
    slow = config.throughput_loop
    for window in traffic:
        demand = forecast.learn(demand, config, window, now_s)
        demand = demand if slow is None else forecast.learn_interval(demand, slow, now_s)
    # Rates of yesterday warm the forecasters; they don't say what arrives now, nor when the last interval ended.
    demand = attrs.evolve(
        demand, recent_rps=None, recent_tps=None, recent_at_s=None, last_rps=None, learned_at_s=None
    )
    roles = {}
    for role in config.engines:
        model = config.perf_model(role)
        roles[role] = RoleState(perf=model.observe(model.init(), batches.get(role, EMPTY_BATCH)))
    return PlannerState(schedule=schedule.start(config, now_s), demand=demand, roles=roles)


def first_tick(config: PlannerConfig, now_s: float) -> NextTick:
    """When to tick first after :func:`initial_state` at ``now_s``, and what to measure until then."""
    return schedule.next_tick(schedule.start(config, now_s), config)


def next_tick(config: PlannerConfig, state: PlannerState) -> NextTick:
    """When to tick next with this state, and what to measure until then: for a planner that goes on after a restart."""
    return schedule.next_tick(state.schedule, config)


def tick(inputs: TickInput) -> Decision:
    """How many replicas each role should have now, and why.

    A pure function: equal inputs give equal decisions, ``inputs`` is unchanged, and no valid input raises. Pass
    ``decision.state`` on to the next tick, and come back at ``decision.next_tick.at_s``.
    """
    config, now_s, before = inputs.config, inputs.now_s, inputs.state
    slow = config.throughput_loop
    due = schedule.due(before.schedule, config, now_s)

    # learn
    states = {
        role: before.roles.get(role) or RoleState(perf=config.perf_model(role).init())
        for role in config.engines
    }
    demand = before.demand
    if due.advanced:
        demand = learn_traffic(demand, inputs)
    measured = demand.pending.duration_s > 0
    if due.throughput and slow is not None:
        demand = forecast.learn_interval(demand, slow, now_s)
    views = {role: look(inputs, role, state, demand, due) for role, state in states.items()}

    # forecast
    predicted = inputs.forecast
    if due.throughput and slow is not None and predicted is None and measured:
        predicted = forecast.predict(demand, slow, max(view.fleet.startup_s for view in views.values()))

    # plan
    plans = {role: plan(view, states[role], inputs, due, demand, predicted) for role, view in views.items()}

    # settle
    settled = {
        role: settle(views[role], asked, states[role].needs, now_s, config) for role, asked in plans.items()
    }

    # fit
    claims = {
        role: limits.Claim(
            spec=config.engines[role],
            current=views[role].fleet.desired,
            wish=settled[role].replicas,
            floor=asked.floor.replicas or 0,
        )
        for role, asked in plans.items()
    }
    fitted = limits.fit(claims, config.limits)

    # decide
    states = {
        role: RoleState(
            perf=view.perf,
            floor=plans[role].floor.replicas,
            fleet=view.memory,
            needs=settled[role].needs,
            hindsight=view.hindsight,
        )
        for role, view in views.items()
    }
    explanations = {
        role: explain(inputs, views[role], asked, settled[role], fitted[role])
        for role, asked in plans.items()
    }
    replicas = {role: fit.replicas for role, fit in fitted.items() if fit.replicas is not None}
    after = schedule.after(before.schedule, config, now_s)
    return Decision(
        replicas=replicas,
        drain={
            role: names for role, view in views.items() if (names := drain_order(view, replicas.get(role)))
        },
        explanations=explanations,
        diagnostics=_diagnostics(views, states, explanations, predicted),
        state=PlannerState(schedule=after, demand=demand, roles=states),
        next_tick=schedule.next_tick(after, config),
    )


def _diagnostics(
    views: Mapping[Role, View],
    states: Mapping[Role, RoleState],
    explanations: Mapping[Role, Explanation],
    predicted: TrafficForecast | None,
) -> Diagnostics:
    """What was computed on the way."""
    latencies = [view.latency for view in views.values() if view.latency is not None]
    main = max(explanations.values(), key=lambda e: abs((e.replicas or 0) - (e.current or 0)))
    return Diagnostics(
        load_reason=main.load_reason,
        throughput_reason=main.throughput_reason,
        estimated_ttft_ms=max(
            (x.highest_ttft_ms for x in latencies if x.highest_ttft_ms is not None), default=None
        ),
        estimated_itl_ms=max(
            (x.highest_itl_ms for x in latencies if x.highest_itl_ms is not None), default=None
        ),
        predicted=predicted,
        roles={role: diagnostics_of(view, states[role]) for role, view in views.items()},
    )
