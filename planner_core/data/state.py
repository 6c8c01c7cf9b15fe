"""What the planner remembers from one tick to the next. Bounded in size for ever."""

from __future__ import annotations

from typing import Any

import attrs

from planner_core.data.roles import Role


@attrs.frozen(kw_only=True)
class ScheduleState:
    """When the planner ticked last, and when its loops are due."""

    last_tick_s: float
    next_load_s: float
    """Next load decision; with the load loop off, the next time the engines' passes are learned from."""
    next_throughput_s: float | None = None
    """``None``: the throughput loop is off."""
    traffic_from_s: float
    """Since when traffic has not been asked for."""


@attrs.frozen(kw_only=True)
class TrafficSum:
    """Traffic of several windows, added up."""

    duration_s: float = 0.0
    num_requests: float = 0.0
    isl_requests: float = 0.0
    """Requests behind ``input_tokens``: those of windows whose ISL is known."""
    input_tokens: float = 0.0
    osl_requests: float = 0.0
    output_tokens: float = 0.0


@attrs.frozen(kw_only=True)
class LengthSum:
    """Token counts of the requests of the last minutes, added up; older ones fade away."""

    num_requests: float = 0.0
    tokens: float = 0.0
    squares: float | None = None
    """Sum of the squared counts; ``None``: how they spread isn't known."""

    @property
    def mean(self) -> float | None:
        """Tokens per request."""
        return self.tokens / self.num_requests if self.num_requests > 0 else None

    @property
    def cv2(self) -> float | None:
        """Squared coefficient of variation."""
        if self.squares is None or not self.tokens:
            return None
        return max(0.0, self.squares * self.num_requests / self.tokens**2 - 1.0)


@attrs.frozen(kw_only=True)
class Requests:
    """What requests are taken to be like; ``None``: not known. Kept until they have become clearly different."""

    isl: float | None = None
    osl: float | None = None
    isl_cv2: float | None = None
    """Squared coefficient of variation of the input tokens."""
    osl_cv2: float | None = None
    kv_hit_rate: float = 0.0
    accept_length: float = 1.0

    @property
    def tokens(self) -> float:
        """Of a request, in and out, as far as they are known; at least 1."""
        return max((self.isl or 0.0) + (self.osl or 0.0), 1.0)


@attrs.frozen(kw_only=True)
class Surges:
    """Bursts of arrivals that came and went."""

    from_s: float | None = None
    """Since when arrivals are watched."""
    lows: tuple[tuple[float, float], ...] = ()
    """(time, requests per second) of the lowest rates of the last minutes, rising from the level; at most 32."""
    peak_rps: float = 0.0
    """Highest rate of the burst under way."""
    since_s: float | None = None
    """Since when there is one."""
    ended: tuple[tuple[float, float, float], ...] = ()
    """(end, highest rate above the level, tokens per request) of the latest bursts; at most 8."""


@attrs.frozen(kw_only=True)
class Growth:
    """How load has grown while a replica could have started."""

    past: tuple[tuple[float, float], ...] = ()
    """(time, load per second) over the time of a start, oldest first; at most 5."""
    seen: tuple[float, ...] = ()
    """Growth over the time of a start, as parts of the load before it; the latest ones, at most 64."""


@attrs.frozen(kw_only=True)
class DemandState:
    """What is known of the traffic: forecasters for the slow loop, latest values for the fast one."""

    pending: TrafficSum = attrs.field(factory=TrafficSum)
    """Traffic since the forecasters last learned."""
    learned_at_s: float | None = None
    """When the forecasters last learned."""
    rate: Any = None
    """State of the predictor of requests per second."""
    isl: Any = None
    osl: Any = None
    recent_rps: float | None = None
    """Arrivals per second, smoothed over about half a minute."""
    recent_tps: float | None = None
    """Input tokens per second, smoothed likewise."""
    recent_at_s: float | None = None
    last_rps: float | None = None
    """Arrivals per second in the latest window."""
    dispersion: float = 1.0
    """Variance of the arrivals in a window over that of Poisson ones, in the last minutes; at least 1."""
    surges: Surges = Surges()
    growth: Growth = Growth()
    """Of requests per second."""
    token_growth: Growth = Growth()
    """Of input tokens per second."""
    inputs: LengthSum = LengthSum()
    outputs: LengthSum = LengthSum()
    completed: float = 0.0
    """Requests completed in the last minutes, fading as ``outputs`` does; 0 where that isn't measured."""
    generated: float = 0.0
    """Tokens that engines generated meanwhile."""
    kv_hit_rate: float | None = None
    """Last valid value, at most 0.95."""
    accept_length: float | None = None
    requests: Requests = Requests()
    """What fleets are sized for."""


@attrs.frozen(kw_only=True)
class FleetMemory:
    """What is remembered of a role's replicas."""

    fpm_at_s: float | None = None
    """When engines last reported."""
    pending_since_s: float | None = None
    """Since when replicas have been on their way without a break."""
    mismatch_since_s: float | None = None
    """Since when fewer replicas report than are ready."""
    startup_times_s: tuple[float, ...] = ()
    """The latest starts that were seen to end; at most 16."""
    starting_ages_s: tuple[float, ...] = ()
    """Ages of the starts under way at the last tick, oldest first, to see which of them end; at most 16."""
    ready: int | None = None
    """Ready replicas at the last tick."""
    uneven: float = 1.0
    """How much work varies between engines, 1 being as if by chance: what a router is taken to do until it is seen to
    balance."""


@attrs.frozen(kw_only=True)
class NeedMemory:
    """What a role has needed lately."""

    highest: tuple[tuple[float, int], ...] = ()
    """(time, replicas) of the highest needs of the stabilisation window, falling; at most 32."""
    from_s: float | None = None
    """Since when needs have been known without a break."""
    at_s: float | None = None
    """When a need was known last."""
    idle_since_s: float | None = None
    """Since when nothing has run or waited."""
    shrunk_at_s: float | None = None
    """When the role shrank last."""
    shrunk_to: int = 0
    regretted: int = 0
    """The size that has last proved too small."""
    regret_until_s: float | None = None
    """Until when the role doesn't go back to that size."""
    regret_s: float = 0.0
    """How long that is."""


@attrs.frozen(kw_only=True)
class ImaginedFleet:
    """A fleet that the role would have had, had less room or more been kept for growth."""

    ordered: tuple[tuple[float, int], ...]
    """(since when, replicas) that so many at least have been ordered, rising, over the time of a start."""
    needs: tuple[tuple[float, int], ...] = ()
    """(time, replicas) of the highest needs of the stabilisation window, falling; at most 32."""
    in_flight: float | None = None
    """Requests that would be decoding in it; ``None``: not known, or there are none."""
    share: float = 0.0
    """Share of those that came before the last look that would have missed the SLA."""
    missed: float = 0.0
    """Requests that would have missed the SLA; those of long ago fade away."""


@attrs.frozen(kw_only=True)
class Hindsight:
    """How fleets with different room for growth would have fared."""

    from_s: float | None = None
    """Since when they are imagined."""
    at_s: float = 0.0
    """When they were last looked at."""
    came: tuple[float, float] = (0.0, 0.0)
    """(Requests, seconds) of the windows since then."""
    came_before: float = 0.0
    """Requests that came between the last look and the one before it."""
    num_requests: float = 0.0
    """Requests that came up to then; those of long ago fade away."""
    fleets: tuple[ImaginedFleet, ...] = ()
    """From the least room to the most."""


@attrs.frozen(kw_only=True)
class RoleState:
    """What is remembered of one role."""

    perf: Any
    """State of the role's performance model."""
    floor: int | None = None
    """Lower bound that the slow loop set."""
    fleet: FleetMemory = FleetMemory()
    needs: NeedMemory = NeedMemory()
    hindsight: Hindsight = Hindsight()


@attrs.frozen(kw_only=True)
class PlannerState:
    """All that the next tick needs of the past. Pass it on: ``state = decision.state`` is the whole ritual."""

    schedule: ScheduleState
    demand: DemandState
    roles: dict[Role, RoleState]
