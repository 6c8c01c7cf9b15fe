"""One GPU budget for many deployments: what each may run of what it wants, and why.

What every deployment keeps comes first: its minimum, or its wish where that is less. Then those of the highest
priority have their wish, then the next. Equals share by replicas ÷ wish, so that each serves the same part of its need:
up to half of everybody's wish, then what runs already, then the rest. So nobody starves beside an equal who came first,
and engines that take minutes to start aren't moved for a small difference.

What isn't known fails closed: a deployment whose replicas can't be read now counts with the last that were, and while
there are none of which that is known, nobody grows. Holding and shrinking are always allowed.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

import attrs
import numpy as np
from numpy.typing import NDArray

from planner_core.data.checks import config_number, measured_number, text
from planner_core.data.errors import ConfigError
from planner_core.data.roles import Role
from planner_core.maths.shares import Counts, raise_within

_COUNT = measured_number(whole=True, least=0, most=1_000_000)
_COUNT_OR_NONE = measured_number(whole=True, least=0, most=1_000_000, optional=True)
_LIMIT = config_number(whole=True, least=0, optional=True)


class GrantReason(enum.StrEnum):
    """What stood between a deployment and its wish."""

    GRANTED = "granted"
    """Nothing: it has what it asked for."""
    GPU_BUDGET = "gpu_budget"
    """The budget, which it shares with those of its priority."""
    OUTRANKED = "outranked"
    """Deployments of a higher priority come first."""
    INFEASIBLE_BUDGET = "infeasible_budget"
    """The budget doesn't hold the minimums: what runs is kept."""
    USAGE_UNKNOWN = "usage_unknown"
    """Replicas can't be read now, its own or another's, so that it doesn't grow."""
    MIN_GPUS = "min_gpus"
    """It keeps more than it asked for, since so many GPUs are to stay in use."""


@attrs.frozen(kw_only=True)
class RoleClaim:
    """One role of a deployment. Counts are replicas."""

    current: int | None = attrs.field(validator=_COUNT_OR_NONE)
    """What the environment is asked to run; where ``stale``, the last that was known; ``None``: never known."""
    wish: int | None = attrs.field(default=None, validator=_COUNT_OR_NONE)
    """``None``: no opinion, it stays as it is."""
    num_gpus: int = attrs.field(default=1, validator=config_number(whole=True, least=1))
    """GPUs of one replica, over all its nodes."""
    min_replicas: int = attrs.field(default=0, validator=_COUNT)
    stale: bool = False
    """Whether ``current`` couldn't be read now."""


@attrs.frozen(kw_only=True)
class Claim:
    """What a deployment asks for."""

    deployment: str = attrs.field(validator=text())
    roles: Mapping[Role, RoleClaim]
    priority: int = attrs.field(
        default=0, validator=config_number(whole=True, least=-1_000_000, most=1_000_000)
    )
    """Higher comes first."""


@attrs.frozen(kw_only=True)
class Grant:
    """What it may run."""

    deployment: str
    replicas: dict[Role, int]
    """Absolute; never above the wish, but for :attr:`GrantReason.MIN_GPUS`. A role left out stays as it is."""
    reason: GrantReason
    note: str = ""
    """The numbers behind the reason, on one line."""


def arbitrate(
    claims: Iterable[Claim], *, max_total_gpus: int | None = None, min_total_gpus: int | None = None
) -> dict[str, Grant]:
    """A grant for each claim, by deployment, whatever order they come in. A limit of ``None`` is none.

    Together the grants use at most ``max_total_gpus``, unless the minimums alone need more: then what runs is kept, or
    shrinks as it asks to. Nothing shrinks below ``min_total_gpus``, but nothing is made to grow for it.
    :class:`~planner_core.ConfigError` for limits that contradict each other, and for two claims of one deployment.
    """
    ordered = sorted(claims, key=lambda claim: (-claim.priority, claim.deployment))
    _check(ordered, max_total_gpus, min_total_gpus)
    rows = _Rows.of(ordered, budget=max_total_gpus)
    counts = rows.wish if max_total_gpus is None else _at_most(rows)
    counts = _at_least(rows, counts, min_total_gpus or 0)
    return {claim.deployment: _grant(number, claim, rows, counts) for number, claim in enumerate(ordered)}


def _check(claims: Sequence[Claim], most: int | None, least: int | None) -> None:
    names = sorted(claim.deployment for claim in claims)
    problems = [
        f"there are two claims of the deployment {one!r}: keep one"
        for one, other in pairwise(names)
        if one == other
    ]
    for name, limit in (("max_total_gpus", most), ("min_total_gpus", least)):
        if not _LIMIT.admits(limit):
            problems.append(f"{name} = {limit!r}: must be {_LIMIT.want}")
    if not problems and most is not None and least is not None and least > most:
        problems.append(f"min_total_gpus = {least} is above max_total_gpus = {most}: lower one")
    if problems:
        raise ConfigError(problems)


@attrs.frozen(kw_only=True, eq=False)
class _Rows:
    """The roles of all claims, highest priority first, as columns of shape (roles,)."""

    owner: Counts
    """The number of the claim."""
    priority: Counts
    cost: Counts
    current: Counts
    """0 where it was never known."""
    asked: Counts
    wish: Counts
    """What is asked for, without growth that can't be checked against the budget."""
    least: Counts
    """What is kept for it before anybody grows."""
    read: NDArray[np.bool_]
    """Whether what it is told is what it uses; else it counts with ``current``."""
    lost: tuple[str, ...]
    """Deployments of which a role was never known."""
    budget: int | None

    @classmethod
    def of(cls, claims: Sequence[Claim], *, budget: int | None) -> _Rows:
        found = [
            (number, claim, claim.roles[role])
            for number, claim in enumerate(claims)
            for role in Role
            if role in claim.roles
        ]
        lost = tuple(dict.fromkeys(claim.deployment for _, claim, role in found if role.current is None))
        read = np.array([not role.stale and role.current is not None for _, _, role in found], dtype=bool)
        current = _column(role.current or 0 for _, _, role in found)
        asked = _column((role.current or 0) if role.wish is None else role.wish for _, _, role in found)
        blocked = np.zeros_like(read) if budget is None else np.ones_like(read) if lost else ~read
        wish = np.where(blocked, np.minimum(asked, current), asked)
        return cls(
            owner=_column(number for number, _, _ in found),
            priority=_column(claim.priority for _, claim, _ in found),
            cost=_column(role.num_gpus for _, _, role in found),
            current=current,
            asked=asked,
            wish=wish,
            least=np.minimum(_column(role.min_replicas for _, _, role in found), wish),
            read=read,
            lost=lost,
            budget=budget,
        )

    def gpus(self, counts: Counts) -> int:
        """That these counts use."""
        return int(np.where(self.read, counts, self.current) @ self.cost)

    @property
    def infeasible(self) -> bool:
        """Whether the budget doesn't hold the minimums."""
        return self.budget is not None and self.gpus(self.least) > self.budget


def _column(values: Iterable[int]) -> Counts:
    return np.fromiter(values, dtype=np.int64)


def _at_most(rows: _Rows) -> Counts:
    """Counts within the budget: minimums, then class by class of equal priority."""
    assert rows.budget is not None
    running = np.minimum(rows.wish, rows.current)
    if rows.infeasible:
        base, steps = running, [np.maximum(running, rows.least)]
    else:
        half = np.maximum(rows.least, -(-rows.wish // 2))
        base, steps = rows.least, [half, np.maximum(half, running), rows.wish]
    counts = np.where(rows.read, base, rows.wish)
    for priority in np.unique(rows.priority)[::-1]:
        for step in steps:
            of_class = np.flatnonzero(rows.read & (rows.priority == priority))
            before = counts[of_class]
            top = np.maximum(before, step[of_class])
            room = rows.budget - rows.gpus(counts) + int(before @ rows.cost[of_class])
            counts[of_class] = raise_within(before, top, rows.wish[of_class], rows.cost[of_class], room)
    return counts


def _at_least(rows: _Rows, counts: Counts, least: int) -> Counts:
    """Counts that shrink no further than so many GPUs in use."""
    missing = least - rows.gpus(counts)
    held = np.where(rows.read, np.maximum(counts, rows.current), counts)
    if missing <= 0:
        return counts
    room = missing + int(counts @ rows.cost)
    counts = raise_within(counts, held, held, rows.cost, room)
    missing = least - rows.gpus(counts)
    fits = np.inf if rows.budget is None else rows.budget - rows.gpus(counts)
    able = np.flatnonzero((counts < held) & (rows.cost <= fits))
    if missing > 0 and len(able):  # one whole replica beyond, where it must be
        counts[able[np.argmin(rows.cost[able])]] += 1
    return counts


def _grant(number: int, claim: Claim, rows: _Rows, counts: Counts) -> Grant:
    """What the claim gets, and why not what it asked for."""
    mine = np.flatnonzero(rows.owner == number)
    told = dict(zip((role for role in Role if role in claim.roles), counts[mine].tolist(), strict=True))
    blind = [role for role, asks in claim.roles.items() if asks.current is None]
    untold = [role for role in blind if rows.budget is not None or claim.roles[role].wish is None]
    replicas = {role: count for role, count in told.items() if role not in untold}

    def grant(reason: GrantReason, note: str = "") -> Grant:
        return Grant(deployment=claim.deployment, replicas=replicas, reason=reason, note=note)

    if (counts[mine] > rows.asked[mine]).any():
        return grant(GrantReason.MIN_GPUS, f"{rows.gpus(counts)} GPUs are in use, and no fewer are to be")
    short = mine[counts[mine] < rows.asked[mine]]
    if not len(short) and not any(claim.roles[role].wish is not None for role in untold):
        return grant(GrantReason.GRANTED)
    if (rows.wish[short] < rows.asked[short]).any() or untold:
        names = ", ".join(rows.lost or (claim.deployment,))
        return grant(GrantReason.USAGE_UNKNOWN, f"the replicas of {names} can't be read")
    if rows.infeasible:
        return grant(
            GrantReason.INFEASIBLE_BUDGET,
            f"the minimums need {rows.gpus(rows.least)} GPUs, the budget has {rows.budget}",
        )
    above = rows.priority > claim.priority
    if (counts[above] > rows.least[above]).any():
        gpus = int(counts[above] @ rows.cost[above])
        return grant(GrantReason.OUTRANKED, f"higher priorities have {gpus} of {rows.budget} GPUs")
    asked = rows.gpus(rows.asked)
    return grant(
        GrantReason.GPU_BUDGET, f"the deployments ask for {asked} GPUs, the budget has {rows.budget}"
    )
