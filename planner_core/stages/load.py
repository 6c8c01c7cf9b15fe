"""Engine telemetry against the SLA: how many replicas the work in hand and the arrivals need.

A fleet is sized by its total work, so one hot engine among many is named, not multiplied. It grows to what keeps
the SLA, and shrinks to what keeps the SLA times the sensitivity; between the two it stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import numpy as np

from planner_core.config import EngineSpec, LoadScaling, SlaTargets
from planner_core.data.fpm import Floats
from planner_core.data.reasons import Counterfactual, LoadReason
from planner_core.data.roles import Role
from planner_core.data.wish import Wish
from planner_core.maths.batch_fleet import BatchFleet
from planner_core.maths.fleet import Fleet, Promise
from planner_core.maths.nearby import Ask, Nearby, alone, look_nearby, share_missed
from planner_core.maths.next_request import Latency, latency
from planner_core.maths.queueing import BUSY_SHARE, whole
from planner_core.maths.sla import Curve, Iteration, capacity
from planner_core.maths.transient import batch_after, steady_rps
from planner_core.maths.work import Work

SKEW = 3.0
"""An engine with this many times the mean work is named."""
MILDEST, USUAL, RARE = 0.0, 0.75, 0.95
GROWTHS = {MILDEST: 1.0, USUAL: 1.0, RARE: 20.0}
"""Share of the cases → how many times as many requests as usual may miss the SLA if the load grows as much as in these,
at most. What is rare may cost more, or room for the worst would stand idle for ever."""


@attrs.frozen(kw_only=True)
class Room:
    """Room that may be kept."""

    cases: tuple[float, ...]
    """For growth as in these shares of the cases, at most."""
    part: float = 1.0
    """So much of that growth, but no less than in the mildest case."""
    bursts: bool = True
    """For bursts like those before, too."""


LEVELS = (
    Room(cases=(MILDEST,), bursts=False),
    Room(cases=(MILDEST,)),
    Room(cases=(USUAL,), part=0.5),
    Room(cases=(USUAL,)),
    Room(cases=(USUAL, RARE)),
)
"""From the least to the most. Hindsight tells which."""
MOST_MISSED = 0.5
"""Even of what is rare no larger share of the requests may miss the SLA, unless the SLA itself lets more."""
KV_FILL = 0.9
"""Share of the KV cache that is planned for; the rest takes up requests that outgrow the mean."""


@attrs.frozen(kw_only=True, eq=False)
class Situation:
    """What sizing one role rests on."""

    role: Role
    spec: EngineSpec
    sla: SlaTargets
    loop: LoadScaling
    iteration: Iteration
    curve: Curve
    nearby: Nearby | None = None
    """Engines for arrivals and backlog; ``None`` where the arrivals, or the output length, aren't known."""
    work: Work[Floats]
    """Per known engine."""
    all_work: Work[float]
    """Over all engines: each silent ready replica is taken to have as much as the others."""
    busy_replicas: float
    """Replicas whose latest pass computed prompts; silent ones in proportion."""
    total: int
    """Replicas that serve or start."""
    starting: int
    starting_for_s: float
    """How long those that start have been at it, added up."""
    engines_per_replica: float
    coverage: float
    """Ready replicas per reporting one."""
    arrivals_rps: float | None
    """Requests per second over the whole role; ``None``: not known."""
    burst_rps: float
    """What a burst like those before would bring, 0 where none is expected."""
    growths: dict[float, float]
    """By how much of themselves the arrivals grow until a replica is ready, by the shares of ``GROWTHS``."""
    level: int
    """Which of the ``LEVELS`` room is kept for."""
    least: int
    """Where less than the most room is kept: the replicas that were found to suffice; else 0."""
    startup_s: float


def survey(s: Situation) -> Nearby | None:
    """How many engines arrivals and backlog need, as one look at fleets of about this size tells.

    What waits is to be worked off within ``drain_s``, and to keep the SLA then on, so it counts as further arrivals.
    ``too_much_rps`` is the rate of arrivals, as they are now, from which on a larger fleet is needed.
    """
    if s.arrivals_rps is None:
        return None
    return _look(s, s.total, s.level, s.arrivals_rps, _backlog(s) / s.loop.drain_s)


def _look(s: Situation, replicas: int, level: int, arrivals_rps: float, backlog_rps: float) -> Nearby | None:
    """What so many replicas need with the room of this level."""
    if not isinstance(s.curve.load, Fleet):
        return None
    room, growths = LEVELS[level], _growths(s, level)
    asks = []
    for growth, share in zip(growths, room.cases, strict=True):
        miss = min(GROWTHS[share] * (1 - s.sla.share), max(MOST_MISSED, 1 - s.sla.share))
        rate_rps = max(arrivals_rps * (1 + growth) + backlog_rps, s.burst_rps if room.bursts else 0.0)
        asks.append(Ask(rate_rps, promised(s.sla, 1 - miss), with_room(s.sla, s.loop, 1 - miss)))
        if not any(growths):
            break  # the others would promise less for the same rate
    looks = look_nearby(s.curve.load, max(1, round(replicas * s.engines_per_replica)), asks)
    return Nearby(
        needed=max(look.needed for look in looks),
        with_room=max(look.with_room for look in looks),
        most_rps=looks[0].most_rps,
        too_much_rps=min(
            (look.too_much_rps - backlog_rps) / (1 + growth)
            for look, growth in zip(looks, growths, strict=False)
        ),
    )


def _growths(s: Situation, level: int) -> list[float]:
    """The growth that this level keeps room for, by its cases."""
    room = LEVELS[level]
    return [max(s.growths[share] * room.part, s.growths[MILDEST]) for share in room.cases]


def need_of(s: Situation, replicas: int, level: int) -> int:
    """What would be asked for had the role so many replicas, and no backlog, and kept the room of this level."""
    look = None if s.arrivals_rps is None else _look(s, replicas, level, s.arrivals_rps, 0.0)
    if look is None:
        return replicas
    needed = _replicas(s, look.needed)
    return needed if needed > replicas else min(replicas, max(_replicas(s, look.with_room), 1))


def fare(
    s: Situation, replicas: Sequence[int], in_flight: Sequence[float | None], rate_rps: float, seconds: float
) -> tuple[Sequence[float], Sequence[float | None]]:
    """(Share of the requests that would miss the SLA, requests in flight then) of fleets of so many ready replicas, to
    which requests came at this rate for so many seconds, when so many were in flight.

    Batches fill and empty as slowly as requests decode, so a peak that is over before is no peak for them. Prefill
    engines know no such rest.
    """
    assert isinstance(s.curve.load, Fleet)
    engines = np.maximum(np.array(replicas) * s.engines_per_replica, 1.0)
    model = s.curve.load.model
    rates_rps, after = np.full(len(engines), rate_rps), in_flight
    if isinstance(model, BatchFleet):
        steady = model.steady(rate_rps / engines).batch
        before = [
            n if known is None else known / e for n, known, e in zip(steady, in_flight, engines, strict=True)
        ]
        batch = batch_after(model, np.array(before), rate_rps / engines, seconds)
        rates_rps, after = steady_rps(model, batch) * engines, (batch * engines).tolist()
    return share_missed(s.curve.load, rates_rps.tolist(), engines.tolist(), promised(s.sla)), after


def promised(sla: SlaTargets, quantile: float | None = None) -> Promise:
    """The SLA as a promise that a fleet is sized for; ``quantile`` of the requests, unless the SLA's share of them."""
    return Promise(
        ttft_ms=sla.ttft_ms, itl_ms=sla.itl_ms, quantile=sla.share if quantile is None else quantile
    )


def with_room(sla: SlaTargets, loop: LoadScaling, quantile: float | None = None) -> Promise:
    """The tighter promise that a fleet has to keep before it may shrink."""
    share = loop.down_sensitivity / 100 or 1.0
    loose = promised(sla, quantile)
    return Promise(ttft_ms=loose.ttft_ms * share, itl_ms=loose.itl_ms * share, quantile=loose.quantile)


def wish(s: Situation, now: Latency) -> Wish:
    """Replicas for the work in hand; ``now`` is the latency on each engine."""
    ask = _unit_need if s.loop.step == "unit" else _sized_need
    need, reason = ask(s, now)
    notes = _skew(s)
    missed, best_ms, too_long = _alone(s)
    if missed is not None:
        reason = LoadReason.SLA_UNREACHABLE
        best = f"{missed.upper()} of {best_ms:.4g} ms"
        notes = (f"a lone request has a {best} on this engine: more replicas can't help", *notes)
    elif too_long > 1 - s.sla.share:
        notes = (f"{too_long:.0%} of the prompts miss the TTFT even on an idle engine", *notes)
    return Wish(
        need=need, reason=reason, numbers=_numbers(s, now), counterfactuals=_counterfactuals(s), notes=notes
    )


def _alone(s: Situation) -> tuple[str | None, float | None, float]:
    """The target that a lone request misses, the latency that it has, and the share of prompts that are too long."""
    if isinstance(s.curve.load, Fleet):
        lone = alone(s.curve.load, promised(s.sla))
        return lone.unreachable, lone.best_ms, lone.too_long
    one = capacity(s.curve, s.sla.ttft_ms, s.sla.itl_ms)
    return one.unreachable, one.best_ms, 0.0


def _sized_need(s: Situation, now: Latency) -> tuple[int, LoadReason]:
    """As many replicas as arrivals and backlog need; where arrivals aren't known, as the work in hand does."""
    share = s.loop.down_sensitivity / 100
    ttft_ms, itl_ms = s.sla.ttft_ms * share, s.sla.itl_ms * share
    if s.nearby is not None:
        grow, shrink = _replicas(s, s.nearby.needed), _replicas(s, s.nearby.with_room)
        shrink = max(shrink, _seats_need(s, itl_ms))
    else:
        grow = _needed_by_engines(s, s.sla.ttft_ms, s.sla.itl_ms, now)
        shrink = s.total if share == 0 else _needed_by_engines(s, ttft_ms, itl_ms, now)
    if grow > s.total:
        return grow, LoadReason.SCALE_UP
    shrink = max(shrink, s.least, 1)
    if share == 0 or shrink >= s.total:
        return s.total, LoadReason.NO_CHANGE
    if s.nearby is None:
        kept = _smallest_that_keeps(s, shrink, s.total - 1, ttft_ms, itl_ms)
        if kept is None:
            return s.total, LoadReason.SCALE_DOWN_REFUSED_CONSOLIDATION
        shrink = kept
    return shrink, LoadReason.SCALE_DOWN


def _unit_need(s: Situation, now: Latency) -> tuple[int, LoadReason]:
    """One more if every engine misses the SLA, one less if every engine and the survivors keep it with room."""
    if now.above(s.sla):
        return (s.total, LoadReason.SCALING_IN_PROGRESS) if s.starting else (s.total + 1, LoadReason.SCALE_UP)
    share = s.loop.down_sensitivity / 100
    ttft_ms, itl_ms = s.sla.ttft_ms * share, s.sla.itl_ms * share
    if share == 0 or s.total <= 1 or not now.within(ttft_ms, itl_ms).all():
        return s.total, LoadReason.NO_CHANGE
    fewer = s.total - 1
    if s.nearby is not None:
        carry = max(_replicas(s, s.nearby.with_room), _seats_need(s, itl_ms), s.least) <= fewer
    else:
        carry = _needed_by_engines(s, ttft_ms, itl_ms, now) <= fewer
    if not carry or _smallest_that_keeps(s, fewer, fewer, ttft_ms, itl_ms) is None:
        return s.total, LoadReason.SCALE_DOWN_REFUSED_CONSOLIDATION
    return fewer, LoadReason.SCALE_DOWN


def _replicas(s: Situation, engines: int) -> int:
    """Replicas with so many engines, and memory for what there is."""
    return whole(max(engines / s.engines_per_replica, _memory_need(s)))


def _seats_need(s: Situation, itl_ms: float) -> int:
    """Replicas that keep the ITL with all decodes there are now, whatever the arrivals say."""
    model = s.curve.load.model if isinstance(s.curve.load, Fleet) else None
    if not isinstance(model, BatchFleet):
        return 0
    return whole(s.all_work.num_decode / (model.batch_within(itl_ms) * s.engines_per_replica))


def _memory_need(s: Situation) -> float:
    """Replicas whose memory holds the contexts of all decodes."""
    if not s.role.decodes or s.spec.max_kv_tokens is None:
        return 0.0
    return s.all_work.kv_tokens / (KV_FILL * s.spec.max_kv_tokens * s.engines_per_replica)


def _backlog(s: Situation) -> float:
    """Requests that need further replicas to be worked off in time: prompts that wait, half of the decodes too many."""
    backlog = 0.0
    if s.role.prefills and s.curve.saturated_rps:
        waiting = s.all_work.queued_tokens / max(s.curve.shape.fresh_isl, 1.0)
        backlog = max(0.0, waiting - _harmless_backlog(s, s.curve.saturated_rps * s.engines_per_replica))
    model = s.curve.load.model if isinstance(s.curve.load, Fleet) else None
    if isinstance(model, BatchFleet):
        room = s.total * model.batch_within(s.sla.itl_ms) * s.engines_per_replica
        backlog += max(0.0, s.all_work.num_decode - room) / 2
    return backlog


def _needed_by_engines(s: Situation, ttft_ms: float, itl_ms: float, now: Latency) -> int:
    """Replicas by what the engines do, where arrivals aren't known.

    Decodes count by their token rate, not by their number: slowed by a backlog they are many, and a larger fleet
    would have fewer of them. Prompts count by the engines that are at work on some.
    """
    needs = [_memory_need(s)]
    if now.itl_ms is not None:
        within = capacity(s.curve, ttft_ms, itl_ms)
        tokens_per_ms = np.add.reduce(s.work.num_decode / now.itl_ms) * s.coverage
        needs.append(float(tokens_per_ms) * (within.itl_ms or 0.0) / (within.batch * s.engines_per_replica))
    if s.role.prefills:
        needs.append(s.busy_replicas / BUSY_SHARE)
        if s.curve.saturated_rps:
            saturated_rps = s.curve.saturated_rps * s.engines_per_replica
            needs[-1] += _backlog(s) / (saturated_rps * s.loop.drain_s)
    return whole(max(needs))


def _harmless_backlog(s: Situation, saturated_rps: float) -> float:
    """Waiting requests that need no further replica: worked off before one would be ready, or within the SLA.

    Those that start serve as long before as they have been at it.
    """
    may_wait = s.total * saturated_rps * max(0.0, s.sla.ttft_ms / 1e3 - s.curve.lone_s)
    if s.arrivals_rps is None:
        return may_wait
    served_s = (s.total - s.starting) * s.startup_s + s.starting_for_s
    return may_wait + saturated_rps * served_s - s.arrivals_rps * s.startup_s


def _smallest_that_keeps(s: Situation, least: int, most: int, ttft_ms: float, itl_ms: float) -> int | None:
    """The smallest fleet from ``least`` to ``most`` replicas whose engines keep the targets with the work of all."""

    def keeps(replicas: Any) -> Any:
        each = s.all_work.times(1 / (replicas * s.engines_per_replica))
        after = latency(s.role, s.iteration, s.spec, s.curve.shape, each)
        return after.within(ttft_ms, itl_ms)

    if keeps(least):  # as it mostly does
        return least
    kept = np.flatnonzero(keeps(np.arange(least + 1, most + 1)))
    return least + 1 + int(kept[0]) if len(kept) else None


def _numbers(s: Situation, now: Latency) -> dict[str, float]:
    """What the reason rests on."""
    numbers = {}
    if now.ttft_ms is not None:
        numbers["estimated_ttft_ms"] = now.highest_ttft_ms or 0.0
        numbers["queued_prefill_tokens"] = s.all_work.queued_tokens
    if now.itl_ms is not None:
        numbers["estimated_itl_ms"] = now.highest_itl_ms or 0.0
        numbers["num_decode"] = s.all_work.num_decode
    if s.arrivals_rps is not None:
        numbers["arrivals_rps"] = s.arrivals_rps
    if s.burst_rps and LEVELS[s.level].bursts:
        numbers["burst_rps"] = s.burst_rps
    if growth := max(_growths(s, s.level)):
        numbers["growth"] = growth
    if s.nearby is not None:
        numbers["carried_rps"] = s.nearby.most_rps
    return numbers


def _counterfactuals(s: Situation) -> tuple[Counterfactual, ...]:
    """The arrivals from which on one replica more, at least, would be asked for, where they are known."""
    if s.nearby is None or s.loop.step == "unit" or not s.arrivals_rps:
        return ()
    most_rps = s.nearby.too_much_rps
    if most_rps <= s.arrivals_rps:
        return ()
    return (Counterfactual(quantity="arrivals_rps", above=True, value=most_rps, change=1),)


def _skew(s: Situation) -> tuple[str, ...]:
    """A line for an engine that carries far more than the others."""
    load = s.work.queued_tokens + s.work.kv_tokens
    num = len(load)
    mean = float(np.add.reduce(load)) / num
    highest = float(np.maximum.reduce(load))
    if num < 2 or highest <= SKEW * mean:
        return ()
    return (f"the fullest engine has {highest / mean:.1f} times the mean work: routing, not size",)
