"""How many engines keep an SLA at a given rate, and what a fleet of a given size offers.

Sizing asks the fleet, not one engine: many engines behind one router wait for each other's luck, so the rate that one
carries alone, times their number, is too little for large fleets and no answer at all for a quantile.
"""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np

from planner_core.config import EngineSpec
from planner_core.data.fpm import Floats
from planner_core.data.roles import Role
from planner_core.maths.batch_fleet import BatchFleet
from planner_core.maths.delays import Delay
from planner_core.maths.prefill_fleet import PrefillFleet
from planner_core.maths.queueing import whole
from planner_core.maths.shape import Iteration, RequestShape

BEST_SLACK = 1.25
"""No fleet is asked for a latency nearer than this to a lone request's: beyond that, more engines hardly help."""
MOST_EXCUSED, TOO_LONG = 0.5, 0.25
"""That twice the fleet would miss as much is no excuse where it would miss more than the first share of the requests,
and idle engines less than the second: twice is just not enough then."""
MOST_SLACK = 2.0
"""Where a lone request misses the target, a fleet is too small if its mean latency is more than so many times as long:
what can't be kept is still to be come near to."""
FULLEST = 0.9999
"""Share of the saturated rate above which a queue is taken to grow without end."""
MEAN_MISS = 0.1
"""Share of the requests that may find neither memory nor a seat where a mean is promised: their wait would ruin it."""
AT_ONCE = 24
"""Candidates that are looked at together in a search."""
_COUNT = np.arange(1.0, AT_ONCE + 1)
_STEPS = _COUNT**2 / AT_ONCE**2
MOST_ENGINES = 1e12
"""Where so many don't keep a promise, by formulas that were driven out of their range, the load alone counts."""
_silent = np.errstate(all="ignore")
"""Absurd measurements (a pass of a microsecond, prompts of a million tokens) drive formulas out of their range. What
they then say of a fleet is that it breaks its promise."""
SMALLEST_LOAD = 1e-9
"""Of the saturated rate: a request all alone."""


@attrs.frozen(kw_only=True, eq=False)
class FleetLatency:
    """What fleets offer; arrays of shape (fleets,), infinite where the queue grows without end."""

    ttft_ms: Floats | None
    """``None`` for decode engines."""
    itl_ms: Floats | None
    """``None`` for prefill engines."""
    utilisation: Floats
    """The rate as a share of what the engines carry without any target."""


@attrs.frozen(kw_only=True)
class Sizing:
    """How many engines a rate needs."""

    engines: int
    binding: str
    """What one engine fewer would break: ``ttft``, ``itl``, ``kv``, ``max_num_seqs``, ``max_num_batched_tokens``, or
    ``load`` where prefill engines couldn't compute so much at all. ``none`` for a single engine, or without any."""
    utilisation: float
    """Of the engines, without any target; 0 without engines."""
    unreachable: str | None = None
    """``ttft`` or ``itl`` if not even a lone request meets that target; the engines are then those for the load."""
    best_ms: float | None = None
    """The latency of a lone request, for the unreachable target."""


@attrs.frozen(kw_only=True)
class Promise:
    """Targets, and for which share of the requests."""

    ttft_ms: float
    itl_ms: float
    quantile: float | None
    """``None``: the mean has to meet the targets."""
    strict: bool = False
    """What more engines can't mend may be missed instead of the share that may be missed anyway, not besides."""

    @property
    def miss(self) -> float:
        """Share of the requests that may miss a target, or find no room."""
        return MEAN_MISS if self.quantile is None else 1 - self.quantile

    def late(self, delay: Delay, target_ms: float) -> Any:
        """Share of the requests that miss the target, of each fleet; for a mean, how it relates to the target."""
        target_s = target_ms / 1e3
        return delay.mean_s / target_s if self.quantile is None else delay.beyond(target_s)

    def over(self, late: dict[str, Any]) -> Any:
        """Which fleets break it; those of which the formulas can say nothing do.

        A request has to meet both targets. Those that miss one are mostly others than those that miss the other (long
        prompts, and short outputs beside them), so the shares are added up.
        """
        if self.quantile is None:
            return ~np.logical_and.reduce([mean <= 1.0 for mean in late.values()])
        missed: Any = sum(late.values())
        return ~(missed <= self.miss)

    def mends(self, late: dict[str, Any], larger: dict[str, Any]) -> dict[str, Any]:
        """Which fleets break it and would miss clearly less, or be a quarter faster on average, were they ``larger``.

        Clearly: a fifth less, not counting what may be missed anyway; ``strict``: counting it. By the target that is
        broken; where it takes both together, by the one that more requests miss.
        """
        if self.quantile is None:
            return {
                name: ~(mean <= np.maximum(BEST_SLACK * larger[name], 1.0)) for name, mean in late.items()
            }
        mended = {name: self._mends(share, larger[name]) for name, share in late.items()}
        if len(late) == 2:
            together = self._mends(sum(late.values()), sum(larger.values()))
            by_itl = late["itl"] > late["ttft"]
            mended["ttft"] |= together & ~by_itl
            mended["itl"] |= together & by_itl
        return mended

    def _mends(self, share: Any, by_larger: Any) -> Any:
        unmended = BEST_SLACK * by_larger
        return ~(share <= (np.maximum(self.miss, unmended) if self.strict else self.miss + unmended))

    def of_ms(self, delay: Delay) -> Floats:
        """The latency that the target is about."""
        return (delay.mean_s if self.quantile is None else delay.quantile_s(self.quantile)) * 1e3


@attrs.frozen(kw_only=True, eq=False)
class Offer:
    """What fleets offer, and what fleets of twice the size would at the same rates: found at once, looked at often."""

    full: Any
    """The queue grows without end; shape (fleets,)."""
    crowded: Any
    """P(requests have to wait for memory or a seat); shape (fleets,)."""
    ttft: Delay | None
    itl: Delay | None
    """Latencies of the fleets, and behind them those of their doubles."""
    _late: dict[tuple[float, float, bool], dict[str, Any]] = attrs.field(factory=dict, init=False, repr=False)

    def late(self, promise: Promise) -> dict[str, Any]:
        """:meth:`Promise.late` of each target that there is, by its name: rows of the fleets and of their doubles."""
        asked = (promise.ttft_ms, promise.itl_ms, promise.quantile is None)
        if asked not in self._late:
            targets_ms = {"ttft": promise.ttft_ms, "itl": promise.itl_ms}
            self._late[asked] = {
                name: promise.late(delay, targets_ms[name]).reshape(2, -1)
                for name, delay in self.delays.items()
            }
        return self._late[asked]

    @property
    def delays(self) -> dict[str, Delay]:
        """The latencies that there are, by the names of their targets."""
        return {name: d for name, d in (("ttft", self.ttft), ("itl", self.itl)) if d is not None}

    def mean_s(self, name: str) -> Floats:
        """Of a latency, without the doubles; shape (fleets,)."""
        means: Floats = self.delays[name].mean_s
        return means[: len(self.full)]


@attrs.frozen(kw_only=True, eq=False)
class Fleet:
    """Engines of one role and requests of one shape, at any rate and number of engines; the output length is known."""

    model: PrefillFleet | BatchFleet

    @classmethod
    @_silent
    def of(cls, role: Role, iteration: Iteration, spec: EngineSpec, shape: RequestShape) -> Fleet:
        """Asks the performance model a fixed number of questions, whatever the rate and the engines."""
        if role is Role.PREFILL:
            return cls(model=PrefillFleet.of(iteration, spec, shape))
        return cls(model=BatchFleet.of(role, iteration, spec, shape))

    @property
    def saturated_rps(self) -> float:
        """Requests per second that one engine carries without any target."""
        return self.model.saturated_rps

    def latencies(self, engine_rps: Floats, engines: Floats) -> tuple[Delay | None, Delay | None, Floats]:
        """(TTFT, ITL, P(requests have to wait for memory or a seat)) at rates per engine below saturation."""
        if isinstance(self.model, PrefillFleet):
            return self.model.ttft(engine_rps, engines), None, np.zeros_like(engine_rps)
        return self.model.latencies(engine_rps, engines)

    @_silent
    def offers(self, engine_rps: Floats, engines: Floats) -> Offer:
        """What fleets offer at rates per engine, any."""
        most = FULLEST * self.saturated_rps
        bounded = np.minimum(engine_rps, most)
        ttft, itl, crowded = self.latencies(
            np.concatenate((bounded, bounded / 2)), np.concatenate((engines, 2 * engines))
        )
        return Offer(full=engine_rps >= most, crowded=crowded[: len(engines)], ttft=ttft, itl=itl)

    @_silent
    def breaks(self, promise: Promise, offer: Offer) -> dict[str, Any]:
        """What each fleet breaks: name → which; a target that more engines can't bring nearer counts as kept."""
        found: dict[str, Any] = {}
        if isinstance(self.model, BatchFleet):
            found[self.model.limit] = offer.full | (offer.crowded > promise.miss)
        else:
            found["load"] = offer.full
        late, by_double = ({name: rows[row] for name, rows in offer.late(promise).items()} for row in (0, 1))
        if offer.itl is not None:
            near_best = offer.mean_s("itl") <= BEST_SLACK * self.model.lone_itl_s
            late["itl"] = np.where(near_best, 0.0, late["itl"])
        return found | self._worth_mending(promise, offer, late, by_double)

    def _worth_mending(
        self, promise: Promise, offer: Offer, late: dict[str, Any], by_double: dict[str, Any]
    ) -> dict[str, Any]:
        """The targets that are broken so that more engines would mend it.

        A few prompts that are nearly too long for an idle engine, or that hold up all others' tokens, would else ask
        for an idle engine each: thousands of them, to save a request in a hundred. So what even twice the fleet
        would miss may be missed besides.
        """
        over = promise.over(late)
        if not over.any():
            return dict.fromkeys(late, over)
        idle = {
            "ttft": self.too_long(promise.ttft_ms),
            "itl": float(self.model.lone_itl_s * 1e3 > promise.itl_ms),
        }
        excuses = {
            name: share if idle[name] >= TOO_LONG else np.where(share <= MOST_EXCUSED, share, 0.0)
            for name, share in by_double.items()
        }
        broken = promise.mends(late, by_double if promise.quantile is None else excuses)
        lone_ttft = self.model.lone_ttft
        lone_s = {
            "ttft": 0.0 if lone_ttft is None else float(lone_ttft.mean_s[0]),
            "itl": self.model.lone_itl_s,
        }
        for name, target_ms in (("ttft", promise.ttft_ms), ("itl", promise.itl_ms)):
            if name in late and lone_s[name] * 1e3 > target_ms:  # everybody misses it, whatever the size
                broken[name] |= over & ~(offer.mean_s(name) <= MOST_SLACK * lone_s[name])
        return broken

    def broken(self, promise: Promise, offer: Offer) -> Any:
        """Which fleets break the promise in any way."""
        return np.logical_or.reduce(list(self.breaks(promise, offer).values()))

    @_silent
    def unreachable(self, promise: Promise) -> tuple[str | None, float | None]:
        """(The target that a lone mean request misses, its latency in ms); (None, None) if it meets both."""
        ttft, itl_s = self.model.lone_ttft, self.model.lone_itl_s
        if ttft is not None and float(ttft.mean_s[0]) * 1e3 > promise.ttft_ms:
            return "ttft", float(ttft.mean_s[0]) * 1e3
        if itl_s * 1e3 > promise.itl_ms:
            return "itl", itl_s * 1e3
        return None, None

    def too_long(self, ttft_ms: float) -> float:
        """Share of the requests whose prompts miss the TTFT even on an idle engine."""
        ttft = self.model.lone_ttft
        return 0.0 if ttft is None else float(ttft.beyond(ttft_ms / 1e3)[0])


def fleet_latency(
    role: Role,
    iteration: Iteration,
    spec: EngineSpec,
    shape: RequestShape,
    rate_rps: Floats | float,
    num_engines: Floats | float,
    quantile: float | None,
) -> FleetLatency:
    """Mean latencies (``quantile`` ``None``) or their quantile over requests, of fleets of ``num_engines`` each.

    The fleet serves ``rate_rps`` Poisson arrivals per second in all, behind a router that picks the engine with the
    fewest tokens. Both may be arrays that broadcast together. ``shape.osl`` has to be known but for prefill engines.
    """
    rate, engines = np.broadcast_arrays(
        np.atleast_1d(np.asarray(rate_rps, dtype=np.float64)),
        np.atleast_1d(np.asarray(num_engines, dtype=np.float64)),
    )
    fleet = Fleet.of(role, iteration, spec, shape)
    engine_rps = rate / engines
    utilisation = engine_rps / fleet.saturated_rps
    bounded = np.clip(engine_rps, SMALLEST_LOAD * fleet.saturated_rps, FULLEST * fleet.saturated_rps)
    ttft, itl, _ = fleet.latencies(bounded, engines)
    promise = Promise(ttft_ms=0.0, itl_ms=0.0, quantile=quantile)
    of_ms = [
        None if delay is None else np.where(utilisation < FULLEST, promise.of_ms(delay), np.inf)
        for delay in (ttft, itl)
    ]
    return FleetLatency(ttft_ms=of_ms[0], itl_ms=of_ms[1], utilisation=utilisation)


def engines_for(
    role: Role,
    iteration: Iteration,
    spec: EngineSpec,
    shape: RequestShape,
    rate_rps: float,
    ttft_ms: float,
    itl_ms: float,
    quantile: float | None,
) -> Sizing:
    """The fewest engines that keep both targets for the promised share of ``rate_rps`` requests per second.

    A higher rate or quantile never gives fewer, nor does a tighter target that idle engines keep. 0 for a rate of 0.
    Where a lone request misses a target, the engines are those with which it comes as near to its best as more would
    bring it.
    """
    fleet = Fleet.of(role, iteration, spec, shape)
    return size(fleet, Promise(ttft_ms=ttft_ms, itl_ms=itl_ms, quantile=quantile), rate_rps)


def size(fleet: Fleet, promise: Promise, rate_rps: float) -> Sizing:
    """:func:`engines_for`, of a fleet that is there already."""
    unreachable, best_ms = fleet.unreachable(promise)
    if rate_rps <= 0:
        return Sizing(engines=0, binding="none", utilisation=0.0, unreachable=unreachable, best_ms=best_ms)
    few = max(whole(rate_rps / (FULLEST * fleet.saturated_rps)), 1) - 1  # so many are too few, by load alone
    enough: float | None = None
    binding = "none"
    if few:
        binding = fleet.model.limit if isinstance(fleet.model, BatchFleet) else "load"
    reach = max(2 * few**0.5, float(AT_ONCE))
    by_load = few + 1
    while enough is None or enough - few > 1:
        if few > MOST_ENGINES:
            few, enough = by_load - 1, float(by_load)
            break
        if enough is None:
            candidates = few + np.maximum(np.ceil(reach * _STEPS), _COUNT)
            reach *= 8
        else:
            between = enough - few - 1
            candidates = few + np.ceil(_COUNT[: int(min(between, AT_ONCE))] * max(between / AT_ONCE, 1.0))
        breaks = fleet.breaks(promise, fleet.offers(rate_rps / candidates, candidates))
        broken = np.logical_or.reduce(list(breaks.values()))
        first = int(np.argmin(broken)) if not broken.all() else len(candidates)
        if first < len(candidates):
            enough = float(candidates[first])
        if first > 0:
            few = int(candidates[first - 1])
            binding = next(name for name, which in breaks.items() if which[first - 1])
    return Sizing(
        engines=int(enough),
        binding=binding,
        utilisation=rate_rps / (enough * fleet.saturated_rps),
        unreachable=unreachable,
        best_ms=best_ms,
    )
