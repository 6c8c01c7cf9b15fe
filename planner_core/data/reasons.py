"""Why: the reasons of both loops, the constraints that bind, and their words."""

from __future__ import annotations

import enum
from collections.abc import Mapping

import attrs

from planner_core.data.roles import Role


class LoadReason(enum.StrEnum):
    """What the load loop (fast, reactive) found."""

    UNSET = "unset"
    """The loop was not due in this tick."""
    DISABLED = "disabled"
    NO_FPM_DATA = "no_fpm_data"
    """No engine of the role has reported: hold, never shrink on ignorance."""
    SCALING_IN_PROGRESS = "scaling_in_progress"
    """Replicas are on their way and suffice, or a scale-down waits for them."""
    WORKER_COUNT_MISMATCH = "worker_count_mismatch"
    """Fewer engines report than are ready, so that a scale-down waits."""
    INSUFFICIENT_DATA = "insufficient_data"
    """The performance model isn't ready, or a capacity that the rule needs isn't known."""
    NO_CHANGE = "no_change"
    SCALE_UP = "scale_up"
    SCALE_DOWN = "scale_down"
    SCALE_DOWN_CAPPED_BY_THROUGHPUT = "scale_down_capped_by_throughput"
    """The slow loop's floor stands above what the load alone would need."""
    SCALE_DOWN_REFUSED_CONSOLIDATION = "scale_down_refused_consolidation"
    """The engines would do with less, but the survivors would not keep the SLA with the load of all."""
    STABILISING = "stabilising"
    """Fewer replicas would do now; more were needed within the stabilisation window."""
    SLA_UNREACHABLE = "sla_unreachable"
    """Not even a lone request meets the SLA on this engine: more replicas can't help, sized by load."""
    IDLE = "idle"
    """Nothing runs or waits anywhere: towards the minimum once that has lasted."""


class ThroughputReason(enum.StrEnum):
    """What the throughput loop (slow, predictive) found."""

    UNSET = "unset"
    """The loop was not due in this tick."""
    DISABLED = "disabled"
    NO_TRAFFIC_DATA = "no_traffic_data"
    """Traffic is not known: the floors stay as they are."""
    PREDICT_FAILED = "predict_failed"
    """The predictor has no forecast yet, or not one for a length that the capacity needs."""
    MODEL_NOT_READY = "model_not_ready"
    """The performance model has seen too little to give a capacity."""
    SLA_UNREACHABLE = "sla_unreachable"
    """Not even a lone request meets the SLA on this engine; the floor is sized by load."""
    SET_LOWER_BOUND = "set_lower_bound"
    """The floor was set for the load loop to move above."""
    SCALE = "scale"
    """The replicas were set: the load loop is off."""
    NO_CHANGE = "no_change"


class Constraint(enum.StrEnum):
    """What kept a role from the number of replicas that was wished for."""

    MIN_REPLICAS = "min_replicas"
    MAX_REPLICAS = "max_replicas"
    THROUGHPUT_FLOOR = "throughput_floor"
    GPU_BUDGET = "gpu_budget"
    MIN_GPUS = "min_gpus"
    RATE_LIMIT = "rate_limit"
    INFEASIBLE_BUDGET = "infeasible_budget"
    """The budget doesn't hold even the minimums: what runs is kept."""


@attrs.frozen(kw_only=True)
class Counterfactual:
    """What would have changed the wish: ``quantity`` above (or below) ``value`` gives ``change`` replicas more."""

    quantity: str
    """Name of a number of the explanation, with its unit, such as ``queued_prefill_tokens``."""
    above: bool
    value: float
    change: int
    """Replicas that would be added (or, negative, removed)."""

    def sentence(self) -> str:
        """In words, such as ``would add 1 with queued_prefill_tokens above 8 192``."""
        verb = "add" if self.change > 0 else "remove"
        side = "above" if self.above else "below"
        return f"would {verb} {abs(self.change)} with {self.quantity} {side} {_figure(self.value)}"


@attrs.frozen(kw_only=True)
class Explanation:
    """Why one role has the replicas that it was given: reasons, the numbers behind them, what bound.

    A number of replicas goes through four names: ``current`` → ``wish`` (a loop's) → ``settled`` (without
    flapping) → ``replicas`` (fitted into the limits). ``None``: not known, or no opinion.
    """

    role: Role
    load_reason: LoadReason = LoadReason.UNSET
    throughput_reason: ThroughputReason = ThroughputReason.UNSET
    current: int | None = None
    wish: int | None = None
    settled: int | None = None
    replicas: int | None = None
    floor: int | None = None
    constraint: Constraint | None = None
    numbers: Mapping[str, float] = attrs.field(factory=dict)
    """What the reasons rest on, by name with unit."""
    counterfactuals: tuple[Counterfactual, ...] = ()
    notes: tuple[str, ...] = ()
    """What an operator should know beside the reason, such as a mismatch and its age."""

    @property
    def reason(self) -> LoadReason | ThroughputReason:
        """The reason that speaks for the role: the load loop's where it ran, else the throughput loop's."""
        ran = self.load_reason not in (LoadReason.UNSET, LoadReason.DISABLED)
        return self.load_reason if ran else self.throughput_reason

    def figures(self) -> list[str]:
        """Each of ``numbers`` in words, such as ``arrivals_rps 12.5``."""
        return [
            f"up to {100 * value:.3g} % more by the time a replica is ready"
            if name == "growth"
            else f"{name} {_figure(value)}"
            for name, value in self.numbers.items()
        ]

    def sentence(self) -> str:
        """The decision in words and numbers, on one line."""
        parts = [f"{self.role}: {_replicas(self.current)} → {_replicas(self.replicas)} ({self.reason})"]
        parts += self.figures()
        if self.settled is not None and self.wish is not None and self.settled != self.wish:
            parts.append(f"wish {self.wish} settled to {self.settled}")
        if self.constraint is not None:
            parts.append(f"bound by {self.constraint}")
        parts += [c.sentence() for c in self.counterfactuals]
        return "; ".join([*parts, *self.notes])


def _replicas(count: int | None) -> str:
    return "?" if count is None else str(count)


def _figure(value: float) -> str:
    """Four significant digits, thousands apart: ``8 192``, ``0.4215``."""
    return f"{value:,.0f}".replace(",", " ") if abs(value) >= 1000 else f"{value:.4g}"
