"""The last station, always: bounds, rate limits and the GPU budget over all roles.

A request passes through every role, so what a deployment serves within its SLA is what its tightest role serves: one
replica more is worth most where the share of the wish is lowest. So a budget that can't give everybody what was asked
for is shared by the divisor method of D'Hondt (1878), replica by replica to the role with the lowest share of its wish.
To move no more than has to move, that is done in three rounds: half of that fair share for everybody, so that no role
starves beside another that is fed; then what each role has and still wants; then the rest. Nobody gets more than asked
for, a role that asks for more never gets less, and a wish to grow ends as a shrinkage only to feed a starving role.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import attrs

from planner_core.config import EngineSpec, Limits
from planner_core.data.reasons import Constraint
from planner_core.data.roles import Role
from planner_core.maths.shares import raise_within

STARVING = 0.5
"""A role with less than this part of its fair share starves."""


@attrs.frozen(kw_only=True)
class Claim:
    """What a role asks for."""

    spec: EngineSpec
    current: int | None
    """What the environment is asked to run now; ``None``: not known."""
    wish: int | None
    """``None``: no opinion."""
    floor: int = 0
    """Lower bound of the slow loop."""


@attrs.frozen(kw_only=True)
class Fitted:
    """What a role gets."""

    replicas: int | None
    """``None``: no opinion, leave it alone."""
    constraint: Constraint | None = None
    note: str = ""


def fit(claims: Mapping[Role, Claim], limits: Limits) -> dict[Role, Fitted]:
    """The wishes within bounds, rate limits and budget."""
    fitted = {role: _bounded(claim, limits) for role, claim in claims.items()}
    fitted = _at_least(claims, fitted, limits)
    return _at_most(claims, fitted, limits)


def _bounded(claim: Claim, limits: Limits) -> Fitted:
    """One role within its own limits. A role of unknown size without a wish is left alone."""
    wish = claim.current if claim.wish is None else claim.wish
    if wish is None:
        return Fitted(replicas=None)
    replicas, constraint = wish, None
    if replicas < claim.floor:
        replicas, constraint = claim.floor, Constraint.THROUGHPUT_FLOOR
    if claim.current is not None:
        rated = replicas
        if limits.max_up_replicas is not None:
            rated = min(rated, claim.current + limits.max_up_replicas)
        if limits.max_down_replicas is not None:
            rated = max(rated, claim.current - limits.max_down_replicas)
        if rated != replicas:
            replicas, constraint = rated, Constraint.RATE_LIMIT
    if replicas < claim.spec.min_replicas:
        replicas, constraint = claim.spec.min_replicas, Constraint.MIN_REPLICAS
    if claim.spec.max_replicas is not None and replicas > claim.spec.max_replicas:
        replicas, constraint = claim.spec.max_replicas, Constraint.MAX_REPLICAS
    return Fitted(replicas=replicas, constraint=constraint)


def _at_least(claims: Mapping[Role, Claim], fitted: dict[Role, Fitted], limits: Limits) -> dict[Role, Fitted]:
    """Replicas added up to the minimum of GPUs in use, always where the GPUs in use are fewest."""
    if not limits.min_gpus or any(f.replicas is None for f in fitted.values()):
        return fitted
    cost = {role: claim.spec.num_gpus for role, claim in claims.items()}
    base = {role: f.replicas or 0 for role, f in fitted.items()}
    if _gpus(base, cost) >= limits.min_gpus:
        return fitted
    top = {role: _or(claim.spec.max_replicas, base[role] + limits.min_gpus) for role, claim in claims.items()}
    weight = {role: 1 / cost[role] for role in cost}
    replicas = _raise(base, top, weight, cost, limits.min_gpus)
    most = _or(limits.max_gpus, limits.min_gpus + max(cost.values()))
    for role in sorted(
        replicas, key=lambda r: replicas[r] * cost[r]
    ):  # one whole replica beyond, where it must be
        used = _gpus(replicas, cost)
        if used < limits.min_gpus and replicas[role] < top[role] and used + cost[role] <= most:
            replicas[role] += 1
    return {
        role: f
        if replicas[role] == f.replicas
        else Fitted(replicas=replicas[role], constraint=Constraint.MIN_GPUS)
        for role, f in fitted.items()
    }


def _at_most(claims: Mapping[Role, Claim], fitted: dict[Role, Fitted], limits: Limits) -> dict[Role, Fitted]:
    """Replicas within the GPU budget. Roles of unknown size are taken to hold their minimum."""
    budget = limits.max_gpus
    if budget is None:
        return fitted
    cost = {role: claim.spec.num_gpus for role, claim in claims.items()}
    wishes = {role: f.replicas for role, f in fitted.items() if f.replicas is not None}
    reserved = _gpus(
        {role: claim.spec.min_replicas for role, claim in claims.items() if role not in wishes}, cost
    )
    room = budget - reserved
    if _gpus(wishes, cost) <= room:
        return fitted
    minimums = {role: min(wish, claims[role].spec.min_replicas) for role, wish in wishes.items()}
    if _gpus(minimums, cost) > room:
        note = f"the minimums need {_gpus(minimums, cost) + reserved} GPUs, the budget has {budget}"
        infeasible = Constraint.INFEASIBLE_BUDGET
        return {r: Fitted(replicas=c.current, constraint=infeasible, note=note) for r, c in claims.items()}
    weight = {role: float(wish) for role, wish in wishes.items()}
    fair = _raise(minimums, wishes, weight, cost, room)
    fed = {role: max(minimums[role], math.ceil(STARVING * share)) for role, share in fair.items()}
    kept = {role: max(fed[role], min(wish, claims[role].current or 0)) for role, wish in wishes.items()}
    base = _raise(fed, kept, {role: float(had) for role, had in kept.items()}, cost, room)
    shares = _raise(base, wishes, weight, cost, room)
    note = f"the roles ask for {_gpus(wishes, cost)} GPUs, the budget has {room}"
    return {
        role: f
        if f.replicas is None or shares[role] == f.replicas
        else Fitted(replicas=shares[role], constraint=Constraint.GPU_BUDGET, note=note)
        for role, f in fitted.items()
    }


def _raise(
    base: Mapping[Role, int],
    top: Mapping[Role, int],
    weight: Mapping[Role, float],
    cost: Mapping[Role, int],
    room: int,
) -> dict[Role, int]:
    """:func:`~planner_core.maths.shares.raise_within` by role."""

    def column(values: Mapping[Role, float]) -> list[float]:
        return [values[role] for role in base]

    counts = raise_within(column(base), column(top), column(weight), column(cost), room)
    return dict(zip(base, counts.tolist(), strict=True))


def _gpus(replicas: Mapping[Role, int], cost: Mapping[Role, int]) -> int:
    return sum(cost[role] * count for role, count in replicas.items())


def _or(limit: int | None, instead: int) -> int:
    return instead if limit is None else limit
