"""One role as a tick sees it: what there is, what it does, how fast it is."""

from __future__ import annotations

import functools
import math
from typing import Any

import attrs
import numpy as np

from planner_core._engine import Engine, curve_of, engine_of
from planner_core.config import LoadScaling, PlannerConfig
from planner_core.data.fpm import LARGEST, SHORTEST_S, Floats, FpmBatch
from planner_core.data.observations import TrafficObservation
from planner_core.data.roles import Role
from planner_core.data.state import DemandState, FleetMemory, Hindsight, RoleState
from planner_core.maths.fleet import Fleet, Sizing, size
from planner_core.maths.next_request import Latency
from planner_core.maths.next_request import latency as next_latency
from planner_core.maths.sla import RequestShape
from planner_core.maths.work import Reports, reports_of, shape_from_work
from planner_core.stages import forecast, growth, hindsight, inventory, load, routing, schedule, surges
from planner_core.types import RoleDiagnostics, TickInput, TrafficForecast

RECENT_S = 60.0
"""The measured arrival rate counts as recent for this long, or for one and a half of the slow loop's intervals."""
DEFAULT_LOAD = LoadScaling()
"""What the load loop's settings are taken to be where it is off: patience still has to end."""


@attrs.frozen(kw_only=True, eq=False)
class View:
    """What is known of one role now. ``None``: not known."""

    role: Role
    fleet: inventory.Fleet
    batch: FpmBatch
    engines_per_replica: float
    perf: Any
    """State of the performance model."""
    memory: FleetMemory
    hindsight: Hindsight
    reports: Reports | None
    iteration: Engine | None
    situation: load.Situation | None
    latency: Latency | None


def look(inputs: TickInput, role: Role, state: RoleState, demand: DemandState, due: schedule.Due) -> View:
    """Learn from what was measured of a role, and see what there is."""
    config, batch, now_s = inputs.config, inputs.batch(role), inputs.now_s
    spec, counts, loop = config.engines[role], inputs.workers.get(role), config.load_loop or DEFAULT_LOAD
    model, perf, memory, past = config.perf_model(role), state.perf, state.fleet, state.hindsight
    if due.advanced:
        perf = model.observe(perf, batch)
        memory = inventory.learn(memory, counts, batch, now_s, due.elapsed_s)
    fleet = inventory.take_stock(memory, spec, counts, batch, now_s, loop.patience_s)
    per_replica = len(batch.latest) / batch.num_workers if batch.num_workers else 1.0
    reports = situation = latency = None
    iteration = engine_of(model, perf)
    if batch.num_workers:
        reports = reports_of(role, batch, demand.kv_hit_rate or 0.0, loop.metric_samples)
    if config.target == "sla":
        shape = shape_of(demand, reports, inputs.forecast, memory)
        if due.advanced and reports is not None and shape is not None:
            uneven = routing.learn(memory.uneven, role, reports.each, shape, due.elapsed_s)
            memory = attrs.evolve(memory, uneven=uneven)
            shape = attrs.evolve(shape, dealt=routing.dealt(uneven))
        if reports is not None and fleet.total and iteration is not None and shape is not None:
            known = inputs.state.roles
            others = [
                known[other].hindsight for other in config.engines if other is not role and other in known
            ]
            elsewhere = [hindsight.missed(other) for other in others]
            most = len(load.LEVELS) - 1
            level = hindsight.level(past, most, fleet.startup_s, config.sla.share, elsewhere)
            engine_curve = curve_of(role, iteration, spec, shape, config.sla.share)
            situation = load.Situation(
                role=role,
                spec=spec,
                sla=config.sla,
                loop=loop,
                iteration=iteration,
                curve=engine_curve,
                work=reports.each,
                all_work=reports.all.times(fleet.coverage),
                busy_replicas=reports.num_busy * fleet.coverage / per_replica,
                total=fleet.total,
                starting=fleet.starting,
                starting_for_s=fleet.starting_for_s,
                engines_per_replica=per_replica,
                coverage=fleet.coverage,
                arrivals_rps=arrivals_rps(demand, inputs),
                burst_rps=surges.expected_rps(demand.surges, now_s, demand.requests.tokens),
                growths={share: growth_of(role, demand, share) for share in load.GROWTHS},
                level=level,
                least=hindsight.least(past, level),
                startup_s=fleet.startup_s,
            )
            situation = attrs.evolve(situation, nearby=load.survey(situation))
            if due.advanced and situation.nearby is not None:
                came = _came(role, demand, inputs.traffic)
                past = hindsight.learn(past, _world(situation), now_s, came)
            latency = next_latency(role, iteration, spec, shape, reports.each)
    return View(
        role=role,
        perf=perf,
        memory=memory,
        hindsight=past,
        fleet=fleet,
        batch=batch,
        engines_per_replica=per_replica,
        reports=reports,
        iteration=iteration,
        situation=situation,
        latency=latency,
    )


def _came(role: Role, demand: DemandState, traffic: TrafficObservation | None) -> tuple[float, float]:
    """(Requests, seconds) of the latest window; for a role that computes prompts alone, in prompts of usual length."""
    if traffic is None or traffic.num_requests is None:
        return 0.0, 0.0
    usual, isl = demand.requests.isl, traffic.isl
    longer = 1.0 if role.decodes or not usual or isl is None else isl / usual
    return min(traffic.num_requests * longer, LARGEST), traffic.duration_s


def _world(situation: load.Situation) -> hindsight.World:
    """What fleets with less room or more are imagined in."""
    return hindsight.World(
        levels=len(load.LEVELS),
        replicas=situation.total,
        startup_s=situation.startup_s,
        window_s=situation.loop.stabilisation_s,
        arrivals_rps=situation.arrivals_rps or 0.0,
        need=functools.partial(load.need_of, situation),
        fare=functools.partial(load.fare, situation),
    )


def shape_of(
    demand: DemandState, reports: Reports | None, coming: TrafficForecast | None, memory: FleetMemory
) -> RequestShape | None:
    """What a role's requests are like: from forecast or traffic, else from what engines hold; ``None`` if nothing is
    known.
    """
    seen = demand.requests
    isl = (coming.isl if coming else None) or seen.isl
    osl = (coming.osl if coming else None) or seen.osl
    if isl is None and reports is not None:
        waiting, context = shape_from_work(reports.all)
        isl = waiting or context
    if isl is None:
        return None
    return RequestShape(
        isl=isl,
        osl=osl,
        isl_cv2=seen.isl_cv2,
        osl_cv2=seen.osl_cv2,
        kv_hit_rate=seen.kv_hit_rate,
        accept_length=seen.accept_length,
        dealt=routing.dealt(memory.uneven),
    )


def learn_traffic(demand: DemandState, inputs: TickInput) -> DemandState:
    """The demand after the window that the tick was given."""
    traffic, now_s = inputs.traffic, inputs.now_s
    demand = forecast.learn(demand, inputs.config, traffic, now_s, generated_tps(inputs))
    if traffic is None or traffic.num_requests is None or demand.recent_rps is None:
        return demand
    rps = traffic.num_requests / traffic.duration_s
    known = surges.learn(
        demand.surges, rps, demand.recent_rps, traffic.duration_s, now_s, demand.requests.tokens
    )
    ready_in_s = _ready_in_s(inputs)
    bursts = known.since_s is not None
    requests = growth.learn(
        demand.growth, demand.recent_rps, _varies(demand), now_s, ready_in_s, bursts=bursts
    )
    tokens = demand.token_growth
    if demand.recent_tps is not None:
        tokens = growth.learn(
            tokens, demand.recent_tps, _tokens_vary(demand), now_s, ready_in_s, bursts=bursts
        )
    return attrs.evolve(demand, surges=known, growth=requests, token_growth=tokens)


def _ready_in_s(inputs: TickInput) -> float:
    """Until what is asked for at the next decision is ready, of the slowest role."""
    config, states = inputs.config, inputs.state.roles
    loop = config.load_loop or DEFAULT_LOAD
    return loop.interval_s + max(
        inventory.startup_time_s(states[role].fleet if role in states else FleetMemory(), spec)
        for role, spec in config.engines.items()
    )


def _varies(demand: DemandState) -> float:
    """Coefficient of variation of the recent rate, by chance alone. An exponential mean is over twice its memory."""
    num_requests = (demand.recent_rps or 0.0) * 2 * forecast.RATE_MEMORY_S
    return math.sqrt(demand.dispersion / max(num_requests, 1.0))


def _tokens_vary(demand: DemandState) -> float:
    """The same of the recent rate of input tokens, which vary in length besides."""
    return _varies(demand) * math.sqrt(1 + (demand.inputs.cv2 or 0.0))


def growth_of(role: Role, demand: DemandState, share: float) -> float:
    """How much more a role has to serve by the time a replica is ready, in this share of the cases, at most."""
    requests = growth.expected(demand.growth, _varies(demand), share)
    if not role.prefills:
        return requests
    return max(requests, growth.expected(demand.token_growth, _tokens_vary(demand), share))


def generated_tps(inputs: TickInput) -> float | None:
    """Tokens per second that the reporting engines generate; ``None``: none reports.

    Tokens of all passes over the time of all, for each engine whose latest pass did some work. Not the mean of the
    passes' rates: short passes are many and fast, and would count for more than their time.
    """
    rates = []
    for role in inputs.config.engines:
        batch = inputs.batch(role)
        if role.decodes and len(batch.latest):
            at_work = (batch.wall_time_s >= SHORTEST_S) & ~np.isnan(batch.num_decode)
            seconds = float(np.add.reduce(batch.wall_time_s[at_work]))
            tokens = float(np.add.reduce(batch.num_decode[at_work]))
            rates.append(np.count_nonzero(at_work[batch.latest]) * tokens / seconds if seconds else 0.0)
    return sum(rates) if rates else None


def arrivals_rps(demand: DemandState, inputs: TickInput) -> float | None:
    """The measured arrival rate, while it is recent."""
    if demand.recent_rps is None or demand.recent_at_s is None:
        return None
    slow = inputs.config.throughput_loop
    recent_s = max(RECENT_S, 1.5 * slow.interval_s if slow is not None else 0.0)
    return demand.recent_rps if inputs.now_s - demand.recent_at_s <= recent_s else None


def sizings_for(
    view: View, config: PlannerConfig, shape: RequestShape | None, rate_rps: float
) -> tuple[Sizing, Sizing] | None:
    """The engines for so many of such requests per second within the SLA, and those that keep it with room.

    ``None`` while that can't be said.
    """
    if view.iteration is None or shape is None or (view.role.decodes and shape.osl is None):
        return None
    fleet = curve_of(view.role, view.iteration, config.engines[view.role], shape, config.sla.share).load
    assert isinstance(fleet, Fleet)  # the output length is known
    roomy = load.with_room(config.sla, config.load_loop or DEFAULT_LOAD)
    return size(fleet, load.promised(config.sla), rate_rps), size(fleet, roomy, rate_rps)


def drain_order(view: View, replicas: int | None) -> tuple[str, ...]:
    """Worker ids to remove first: those with the least in flight, as many as go."""
    ready, batch = view.fleet.ready, view.batch
    if replicas is None or ready is None or replicas >= ready or not batch.num_workers:
        return ()
    rows = batch.latest
    in_flight: Floats = (
        batch.decode_kv_tokens[rows]
        + batch.queued_decode_kv_tokens[rows]
        + batch.prefill_tokens[rows]
        + batch.queued_prefill_tokens[rows]
    )
    if (
        len(rows) > batch.num_workers
    ):  # several ranks of a worker: its work is theirs, its name that of its first
        in_flight = np.bincount(batch.worker, weights=in_flight).astype(np.float64, copy=False)
        rows = rows[np.unique(batch.worker, return_index=True)[1]]
    leaving = in_flight.argsort(kind="stable")[: ready - replicas]
    return tuple(batch.worker_id[rows[leaving]].tolist())


def diagnostics_of(view: View, state: RoleState) -> RoleDiagnostics:
    """What was computed of the role on the way."""
    kv_utilisation = queued = capacity_rps = None
    reports, situation = view.reports, view.situation
    if reports is not None:
        queued = float(np.add.reduce(view.batch.queued_prefill_tokens[view.batch.latest]))
        if situation is not None and situation.spec.max_kv_tokens is not None:
            kv_utilisation = reports.all.kv_tokens / (situation.spec.max_kv_tokens * len(view.batch.latest))
    if situation is not None and situation.nearby is not None:
        capacity_rps = situation.nearby.most_rps / situation.total
    return RoleDiagnostics(
        capacity_rps=capacity_rps,
        floor=state.floor,
        kv_utilisation=kv_utilisation,
        queued_prefill_tokens=queued,
        startup_s=view.fleet.startup_s,
    )
