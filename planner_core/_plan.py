"""What both loops ask for one role, how that settles, and why: from a view to an explanation."""

from __future__ import annotations

import attrs

from planner_core._view import DEFAULT_LOAD, View, arrivals_rps, shape_of, sizings_for
from planner_core.config import LoadScaling, PlannerConfig
from planner_core.data.reasons import Constraint, Explanation, LoadReason, ThroughputReason
from planner_core.data.state import DemandState, NeedMemory, RoleState
from planner_core.data.wish import Wish
from planner_core.stages import limits, load, schedule, stability, thresholds, throughput
from planner_core.types import TickInput, TrafficForecast

_SETS_FLOOR = (ThroughputReason.SET_LOWER_BOUND, ThroughputReason.SLA_UNREACHABLE)
"""The reasons with which the slow loop has an opinion."""
SLOW_WINDOW = 0.9
"""Of the slow loop's interval: where it decides alone, its last decision but one no longer holds a role up."""


@attrs.frozen(kw_only=True)
class Plan:
    """What the two loops ask for one role."""

    wish: Wish
    floor: throughput.Floor


def plan(
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
    floor = throughput.Floor(replicas=None if slow is None else state.floor, reason=reason)
    if slow is not None and due.throughput:
        if predicted is None:
            floor = attrs.evolve(floor, reason=ThroughputReason.NO_TRAFFIC_DATA)
        else:
            waiting = 0.0 if view.reports is None else view.reports.all.queued_prompts * view.fleet.coverage
            rate_rps = throughput.planned_rps(
                predicted.rate_rps, predicted.rate_std_rps, slow.z, waiting / slow.interval_s
            )
            floor = throughput.floor_for(
                rate_rps,
                sizings_for(view, config, shape_of(demand, view.reports, predicted, view.memory), rate_rps),
                model_ready=view.iteration is not None,
                per_replica=view.engines_per_replica,
                before=view.fleet.desired if state.floor is None else state.floor,
                max_step=slow.max_step_replicas,
            )
            if floor.replicas is None:
                floor = attrs.evolve(floor, replicas=state.floor)
    return Plan(wish=wish, floor=floor)


def _wish(view: View, state: RoleState, inputs: TickInput, demand: DemandState, fast: LoadScaling) -> Wish:
    """What the load loop asks for."""
    config, fleet = inputs.config, view.fleet
    rate_rps = arrivals_rps(demand, inputs)
    if fleet.total == 0 and rate_rps:
        return Wish(need=1, reason=LoadReason.SCALE_UP, numbers={"arrivals_rps": rate_rps})
    if view.reports is None or not fleet.total:
        return Wish(need=None, reason=LoadReason.NO_FPM_DATA)
    if view.reports.idle and not rate_rps and not (view.situation and view.situation.burst_rps):
        # The last replica goes later than the others: a fleet of zero makes the next request wait for a start.
        since_s = state.needs.idle_since_s
        idle_s = 0.0 if since_s is None else max(0.0, inputs.now_s - since_s)
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
        iteration=view.iteration,
    )


@attrs.frozen(kw_only=True)
class Settled:
    """A wish without flapping; ``None``: no opinion."""

    replicas: int | None
    reason: LoadReason
    needs: NeedMemory


def settle(view: View, plan: Plan, needs: NeedMemory, now_s: float, config: PlannerConfig) -> Settled:
    """The wish without flapping; with the load loop off, the floor is the whole wish."""
    need, reason, fleet = plan.wish.need, plan.wish.reason, view.fleet
    loop = config.load_loop or DEFAULT_LOAD
    window_s, current = loop.stabilisation_s, fleet.desired
    if (
        reason is LoadReason.DISABLED
        and plan.floor.reason in _SETS_FLOOR
        and config.throughput_loop is not None
    ):
        need, window_s = plan.floor.replicas, SLOW_WINDOW * config.throughput_loop.interval_s
    if need is None:
        return Settled(replicas=None, reason=reason, needs=needs)
    needs = stability.remember(needs, now_s, need, idle=reason is LoadReason.IDLE, window_s=window_s)
    if current is None:
        return Settled(replicas=need, reason=reason, needs=needs)
    if reason is not LoadReason.DISABLED and need < current:
        if fleet.starting:
            return Settled(replicas=current, reason=LoadReason.SCALING_IN_PROGRESS, needs=needs)
        if fleet.missing_s is not None and fleet.missing_s < loop.patience_s:
            return Settled(replicas=current, reason=LoadReason.WORKER_COUNT_MISMATCH, needs=needs)
    settled, needs = stability.settle(needs, current, need, now_s, window_s)
    if need < current == settled and reason is not LoadReason.DISABLED:
        reason = LoadReason.STABILISING
    return Settled(replicas=settled, reason=reason, needs=needs)


def explain(
    inputs: TickInput,
    view: View,
    plan: Plan,
    settled: Settled,
    fitted: limits.Fitted,
) -> Explanation:
    """Why the role gets what it gets."""
    current, load_reason = view.fleet.desired, settled.reason
    if (
        settled.replicas is not None
        and current is not None
        and settled.replicas < current
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
    silent: tuple[str, ...] = ()
    if view.reports is None and view.memory.fpm_at_s is not None:
        silent = (f"no engine has reported for {inputs.now_s - view.memory.fpm_at_s:.0f} s",)
    return Explanation(
        role=view.role,
        load_reason=load_reason,
        throughput_reason=throughput_reason,
        current=current,
        wish=plan.wish.need,
        settled=settled.replicas,
        replicas=fitted.replicas,
        floor=plan.floor.replicas,
        constraint=fitted.constraint,
        numbers=plan.wish.numbers,
        counterfactuals=plan.wish.counterfactuals,
        notes=(*plan.wish.notes, *view.fleet.notes(), *silent, *((fitted.note,) if fitted.note else ())),
    )
