"""One tick, told top to bottom: learn → forecast → plan → settle → fit → decide."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import attrs
import numpy as np

from planner_core.config import LoadScaling, PlannerConfig
from planner_core.data.fpm import EMPTY_BATCH, Floats, FpmBatch
from planner_core.data.observations import TrafficObservation
from planner_core.data.reasons import Constraint, Explanation, LoadReason, ThroughputReason
from planner_core.data.roles import Role
from planner_core.data.state import DemandState, FleetMemory, NeedMemory, PlannerState, RoleState
from planner_core.data.wish import Wish
from planner_core.maths.sla import Capacity, Iteration, RequestShape, capacity, curve
from planner_core.perf import BatchLoad, PerfModel
from planner_core.stages import forecast, inventory, limits, load, schedule, stability, thresholds, throughput
from planner_core.types import Decision, Diagnostics, NextTick, RoleDiagnostics, TickInput, TrafficForecast

DEFAULT_LOAD = LoadScaling()
RECENT_S = 60.0
"""The measured arrival rate counts as recent for this long, or for one and a half of its windows."""


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
        demand = demand if slow is None else forecast.learn_interval(demand, slow)
    # Rates of yesterday warm the forecasters; they don't say what arrives now.
    demand = attrs.evolve(demand, recent_rps=None, recent_at_s=None)
    roles = {}
    for role in config.engines:
        model = config.perf_model(role)
        roles[role] = RoleState(perf=model.observe(model.init(), batches.get(role, EMPTY_BATCH)))
    return PlannerState(schedule=schedule.start(config, now_s), demand=demand, roles=roles)


def first_tick(config: PlannerConfig, now_s: float) -> NextTick:
    """When to tick first after :func:`initial_state` at ``now_s``, and what to measure until then."""
    return schedule.next_tick(schedule.start(config, now_s), config)


def tick(inputs: TickInput) -> Decision:
    """How many replicas each role should have now, and why.

    A pure function: equal inputs give equal decisions, ``inputs`` is unchanged, and no valid input raises. Pass
    ``decision.state`` on to the next tick, and come back at ``decision.next_tick.at_s``.
    """
    config, now_s, before = inputs.config, inputs.now_s, inputs.state
    slow, loop = config.throughput_loop, config.load_loop or DEFAULT_LOAD
    due = schedule.due(before.schedule, config, now_s)

    # learn
    states = {role: before.roles.get(role) or RoleState(perf=config.perf_model(role).init()) for role in config.engines}
    demand = before.demand
    if due.advanced:
        demand = forecast.learn(demand, config, inputs.traffic, now_s)
        if due.throughput and slow is not None:
            demand = forecast.learn_interval(demand, slow)
    views = {role: _look(inputs, role, state, demand, due) for role, state in states.items()}

    # forecast
    predicted = inputs.forecast
    if due.throughput and slow is not None and predicted is None and (inputs.traffic or before.demand.pending.duration_s):
        predicted = forecast.predict(demand, slow, max(view.fleet.startup_s for view in views.values()))

    # plan
    plans = {role: _plan(view, states[role], inputs, due, demand, predicted) for role, view in views.items()}

    # settle
    states = {role: _remember(states[role], views[role], plan, now_s, loop) for role, plan in plans.items()}
    settled = {role: _settle(states[role].needs, views[role].fleet, plan, now_s, loop) for role, plan in plans.items()}

    # fit
    claims = {
        role: limits.Claim(
            spec=config.engines[role],
            current=views[role].fleet.desired,
            wish=settled[role][0],
            floor=plan.floor.replicas or 0,
        )
        for role, plan in plans.items()
    }
    fitted = limits.fit(claims, config.limits)

    # decide
    explanations = {
        role: _explain(inputs, views[role], plan, settled[role], fitted[role])
        for role, plan in plans.items()
    }
    replicas = {role: fit.replicas for role, fit in fitted.items() if fit.replicas is not None}
    after = schedule.after(before.schedule, config, now_s)
    return Decision(
        replicas=replicas,
        drain={role: names for role, view in views.items() if (names := _drain(view, replicas.get(role)))},
        explanations=explanations,
        diagnostics=_diagnostics(views, states, explanations, predicted),
        state=PlannerState(schedule=after, demand=demand, roles=states),
        next_tick=schedule.next_tick(after, config),
    )


@attrs.frozen(kw_only=True, eq=False)
class View:
    """One role as the tick sees it: what there is, what it does, how fast it is. ``None``: not known."""

    role: Role
    fleet: inventory.Fleet
    batch: FpmBatch
    engines_per_replica: float
    perf: Any
    """State of the performance model."""
    memory: FleetMemory
    reports: load.Reports | None
    iteration: Iteration | None
    situation: load.Situation | None
    latency: load.Latency | None


@attrs.frozen(kw_only=True)
class Plan:
    """What the two loops ask for one role."""

    wish: Wish
    floor: throughput.Floor
    within: Capacity | None


def _look(inputs: TickInput, role: Role, state: RoleState, demand: DemandState, due: schedule.Due) -> View:
    """Learn from what was measured of a role, and see what there is."""
    config, batch, now_s = inputs.config, inputs.batch(role), inputs.now_s
    spec, counts, loop = config.engines[role], inputs.workers.get(role), config.load_loop or DEFAULT_LOAD
    model, perf, memory = config.perf_model(role), state.perf, state.fleet
    if due.advanced:
        perf = model.observe(perf, batch)
        memory = inventory.learn(memory, counts, batch, now_s, due.elapsed_s)
    fleet = inventory.take_stock(memory, spec, counts, batch, now_s, loop.patience_s)
    per_replica = len(batch.latest) / batch.num_workers if batch.num_workers else 1.0
    reports = iteration = situation = latency = None
    if batch.num_workers:
        reports = load.reports_of(role, batch, demand.kv_hit_rate or 0.0, loop.metric_samples)
    if config.target == "sla":
        iteration = _iteration(model, perf)
        shape = _shape(demand, reports, inputs.forecast)
        if reports is not None and fleet.total and iteration is not None and shape is not None:
            engine_curve = curve(role, iteration, spec, shape, config.sla.quantile)
            situation = load.Situation(
                role=role,
                spec=spec,
                sla=config.sla,
                loop=loop,
                iteration=iteration,
                curve=engine_curve,
                within=capacity(engine_curve, config.sla.ttft_ms, config.sla.itl_ms),
                work=reports.each,
                all_work=reports.all.times(fleet.coverage),
                busy_replicas=reports.num_busy * fleet.coverage / per_replica,
                total=fleet.total,
                starting=fleet.starting,
                engines_per_replica=per_replica,
                coverage=fleet.coverage,
                arrivals_rps=_arrivals_rps(demand, inputs),
                startup_s=fleet.startup_s,
            )
            latency = load.latency(situation, reports.each)
    return View(
        role=role,
        perf=perf,
        memory=memory,
        fleet=fleet,
        batch=batch,
        engines_per_replica=per_replica,
        reports=reports,
        iteration=iteration,
        situation=situation,
        latency=latency,
    )


def _iteration(model: PerfModel[Any], perf_state: Any) -> Iteration | None:
    """A performance model as a function of the load; ``None`` while it isn't ready."""
    if model.iteration_s(perf_state, BatchLoad(num_decode=1.0)) is None:
        return None

    def iteration(batch_load: BatchLoad) -> Floats | float:
        estimate = model.iteration_s(perf_state, batch_load)
        assert estimate is not None  # a model that is ready for one load is ready for all
        return estimate.mean_s

    return iteration


def _shape(demand: DemandState, reports: load.Reports | None, coming: TrafficForecast | None) -> RequestShape | None:
    """What requests are like: from forecast or traffic, else from what engines hold; ``None`` if nothing is known."""
    isl = (coming.isl if coming else None) or demand.recent_isl
    osl = (coming.osl if coming else None) or demand.recent_osl
    if isl is None and reports is not None:
        waiting, context = load.shape_from_work(reports.all)
        isl = waiting or context
    if isl is None:
        return None
    return RequestShape(
        isl=isl, osl=osl, kv_hit_rate=demand.kv_hit_rate or 0.0, accept_length=demand.accept_length or 1.0
    )


def _arrivals_rps(demand: DemandState, inputs: TickInput) -> float | None:
    """The measured arrival rate, while it is recent."""
    if demand.recent_rps is None or demand.recent_at_s is None:
        return None
    slow = inputs.config.throughput_loop
    recent_s = max(RECENT_S, 1.5 * slow.interval_s if slow is not None else 0.0)
    return demand.recent_rps if inputs.now_s - demand.recent_at_s <= recent_s else None


def _plan(
    view: View,
    state: RoleState,
    inputs: TickInput,
    due: schedule.Due,
    demand: DemandState,
    predicted: TrafficForecast | None,
) -> Plan:
    """What both loops ask for the role, each if it is due."""
    config = inputs.config
    fast, slow = config.load_loop, config.throughput_loop
    wish = Wish(need=None, reason=LoadReason.DISABLED if fast is None else LoadReason.UNSET)
    if fast is not None and due.load:
        wish = _wish(view, state, inputs, demand, fast)
    reason = ThroughputReason.DISABLED if slow is None else ThroughputReason.UNSET
    floor, within = throughput.Floor(replicas=None if slow is None else state.floor, reason=reason), None
    if slow is not None and due.throughput:
        if predicted is None:
            floor = attrs.evolve(floor, reason=ThroughputReason.NO_TRAFFIC_DATA)
        else:
            within = _capacity(view, config, _shape(demand, view.reports, predicted))
            waiting = 0.0 if view.reports is None else view.reports.all.queued_prompts * view.fleet.coverage
            floor = throughput.floor_for(
                throughput.planned_rps(predicted.rate_rps, predicted.rate_std_rps, slow.z, waiting / slow.interval_s),
                within,
                per_replica=view.engines_per_replica,
                before=view.fleet.desired if state.floor is None else state.floor,
                max_step=slow.max_step_replicas,
            )
            if floor.replicas is None:
                floor = attrs.evolve(floor, replicas=state.floor)
    return Plan(wish=wish, floor=floor, within=within)


def _capacity(view: View, config: PlannerConfig, shape: RequestShape | None) -> Capacity | None:
    """What one engine carries of such requests within the SLA; ``None`` while that can't be said."""
    if view.iteration is None or shape is None:
        return None
    engine_curve = curve(view.role, view.iteration, config.engines[view.role], shape, config.sla.quantile)
    return capacity(engine_curve, config.sla.ttft_ms, config.sla.itl_ms)


def _wish(view: View, state: RoleState, inputs: TickInput, demand: DemandState, fast: LoadScaling) -> Wish:
    """What the load loop asks for."""
    config, fleet = inputs.config, view.fleet
    arrivals_rps = _arrivals_rps(demand, inputs)
    if fleet.total == 0 and arrivals_rps:
        return Wish(need=1, reason=LoadReason.SCALE_UP, numbers={"arrivals_rps": arrivals_rps})
    if view.reports is None or not fleet.total:
        return Wish(need=None, reason=LoadReason.NO_FPM_DATA)
    if view.reports.idle and not arrivals_rps:
        # The last replica goes later than the others: a fleet of zero makes the next request wait for a start.
        idle_s = 0.0 if state.needs.idle_since_s is None else inputs.now_s - state.needs.idle_since_s
        need = fleet.total if fast.down_sensitivity == 0 else 0 if idle_s >= fast.idle_s else 1
        return Wish(need=need, reason=LoadReason.IDLE, numbers={"idle_s": idle_s})
    if config.target == "sla":
        if view.situation is None or view.latency is None:
            return Wish(need=None, reason=LoadReason.INSUFFICIENT_DATA)
        return load.wish(view.situation, view.latency)
    return thresholds.wish(
        view.role,
        config,
        view.batch,
        total=fleet.total,
        coverage=fleet.coverage,
        starting=fleet.starting,
        unit_step=fast.step == "unit",
    )


def _remember(state: RoleState, view: View, plan: Plan, now_s: float, loop: LoadScaling) -> RoleState:
    """The role's state after this tick."""
    needs = state.needs
    if plan.wish.need is not None:
        idle = plan.wish.reason is LoadReason.IDLE
        needs = stability.remember(needs, now_s, plan.wish.need, idle=idle, window_s=loop.stabilisation_s)
    return RoleState(perf=view.perf, floor=plan.floor.replicas, fleet=view.memory, needs=needs)


def _settle(
    needs: NeedMemory, fleet: inventory.Fleet, plan: Plan, now_s: float, loop: LoadScaling
) -> tuple[int | None, LoadReason]:
    """The wish without flapping; with the load loop off, the floor is the whole wish."""
    need, reason, current = plan.wish.need, plan.wish.reason, fleet.desired
    if reason is LoadReason.DISABLED and plan.floor.reason in _SETS_FLOOR:
        return plan.floor.replicas, reason
    if need is None or current is None or need >= current:
        return need, reason
    if fleet.starting:
        return current, LoadReason.SCALING_IN_PROGRESS
    if fleet.missing_s is not None and fleet.missing_s < loop.patience_s:
        return current, LoadReason.WORKER_COUNT_MISMATCH
    settled = stability.settle(needs, current, need, now_s, loop.stabilisation_s)
    return settled, reason if settled < current else LoadReason.STABILISING


_SETS_FLOOR = (ThroughputReason.SET_LOWER_BOUND, ThroughputReason.SLA_UNREACHABLE)


def _explain(
    inputs: TickInput,
    view: View,
    plan: Plan,
    settled: tuple[int | None, LoadReason],
    fitted: limits.Fitted,
) -> Explanation:
    """Why the role gets what it gets."""
    current, (settled_replicas, load_reason) = view.fleet.desired, settled
    if (
        settled_replicas is not None
        and current is not None
        and settled_replicas < current
        and fitted.replicas is not None
        and fitted.replicas >= current
        and fitted.constraint is Constraint.THROUGHPUT_FLOOR
        and load_reason is not LoadReason.DISABLED
    ):
        load_reason = LoadReason.SCALE_DOWN_CAPPED_BY_THROUGHPUT
    throughput_reason = plan.floor.reason
    if inputs.config.load_loop is None and throughput_reason is ThroughputReason.SET_LOWER_BOUND:
        changes = fitted.replicas != current
        throughput_reason = ThroughputReason.SCALE if changes else ThroughputReason.NO_CHANGE
    silent = ()
    if view.reports is None and view.memory.fpm_at_s is not None:
        silent = (f"no engine has reported for {inputs.now_s - view.memory.fpm_at_s:.0f} s",)
    return Explanation(
        role=view.role,
        load_reason=load_reason,
        throughput_reason=throughput_reason,
        current=current,
        wish=plan.wish.need,
        settled=settled_replicas,
        replicas=fitted.replicas,
        floor=plan.floor.replicas,
        constraint=fitted.constraint,
        numbers=plan.wish.numbers,
        counterfactuals=plan.wish.counterfactuals,
        notes=(*plan.wish.notes, *view.fleet.notes(), *silent, *((fitted.note,) if fitted.note else ())),
    )


def _drain(view: View, replicas: int | None) -> tuple[str, ...]:
    """Worker ids to remove first: those with the least in flight, as many as go."""
    ready, batch = view.fleet.ready, view.batch
    if replicas is None or ready is None or replicas >= ready or not batch.num_workers:
        return ()
    rows = batch.latest
    in_flight = (
        batch.decode_kv_tokens[rows]
        + batch.queued_decode_kv_tokens[rows]
        + batch.prefill_tokens[rows]
        + batch.queued_prefill_tokens[rows]
    )
    per_worker = np.bincount(batch.worker, weights=in_flight)
    _, first_engine = np.unique(batch.worker, return_index=True)
    leaving = per_worker.argsort(kind="stable")[: ready - replicas]
    return tuple(batch.worker_id[rows[first_engine[leaving]]].tolist())


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
        estimated_ttft_ms=max((x.highest_ttft_ms for x in latencies if x.highest_ttft_ms is not None), default=None),
        estimated_itl_ms=max((x.highest_itl_ms for x in latencies if x.highest_itl_ms is not None), default=None),
        predicted=predicted,
        roles={role: _role_diagnostics(view, states[role]) for role, view in views.items()},
    )


def _role_diagnostics(view: View, state: RoleState) -> RoleDiagnostics:
    kv_utilisation = queued = capacity_rps = None
    reports, situation = view.reports, view.situation
    if reports is not None:
        queued = float(np.add.reduce(view.batch.queued_prefill_tokens[view.batch.latest]))
        if situation is not None and situation.spec.max_kv_tokens is not None:
            kv_utilisation = reports.all.kv_tokens / (situation.spec.max_kv_tokens * len(view.batch.latest))
    if situation is not None and situation.within.rps is not None:
        capacity_rps = situation.within.rps * view.engines_per_replica
    return RoleDiagnostics(
        capacity_rps=capacity_rps,
        floor=state.floor,
        kv_utilisation=kv_utilisation,
        queued_prefill_tokens=queued,
        startup_s=view.fleet.startup_s,
    )
