"""Who runs how much now: remembers wishes, reads what runs, asks the core, and scales, one request at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping

import attrs

from planner_adapters.environment import AsyncEnvironment, NotScaled
from planner_adapters.runner.logs import log, logfmt
from planner_core import NextTick, PlannerConfig, Role, WorkerCounts
from planner_core.fleet import Claim, Grant, GrantReason, RoleClaim, arbitrate

WISH_S = 600.0
"""A wish that isn't repeated for so long is forgotten: the deployment keeps what it has."""
SETTLE_S = 30.0
"""So long after an order the higher of what was ordered and what is read counts: a cluster's answer may lag behind."""
LOOK = NextTick(at_s=0.0, load=False, throughput=False, needs=frozenset({"workers"}), traffic_window_s=1.0)
"""What is asked of a deployment's environment."""


@attrs.frozen(kw_only=True)
class Managed:
    """A deployment under the budget."""

    config: PlannerConfig
    """Its roles, the GPUs of a replica and the minimums; the rest isn't looked at."""
    environment: AsyncEnvironment
    """Where it is read and scaled."""
    priority: int = 0
    callers: frozenset[str] = frozenset()
    """Who may ask for it."""


@attrs.frozen(kw_only=True)
class _Wish:
    replicas: Mapping[Role, int]
    at_s: float


@attrs.frozen(kw_only=True)
class _Order:
    """What an environment is told."""

    replicas: Mapping[Role, int]
    drain: Mapping[Role, tuple[str, ...]] = attrs.field(factory=dict)
    next_tick: NextTick = LOOK


@attrs.define
class _Memory:
    """What is known of one deployment: from its planner, its environment, and us."""

    wish: _Wish | None = None
    seen: dict[Role, int] = attrs.field(factory=dict)
    ordered: dict[Role, tuple[int, float]] = attrs.field(factory=dict)


class Arbiter:
    """Deployments under one budget. Keeps nothing on disk: what runs is read, and wishes are told again soon."""

    def __init__(
        self,
        deployments: Mapping[str, Managed],
        *,
        max_total_gpus: int | None,
        min_total_gpus: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.deployments = dict(deployments)
        self._limits = {"max_total_gpus": max_total_gpus, "min_total_gpus": min_total_gpus}
        arbitrate([], **self._limits)  # refuses limits that contradict each other
        self._clock = clock
        self._memory = {name: _Memory() for name in self.deployments}
        self._one_at_a_time = asyncio.Lock()

    async def ask(
        self, name: str, replicas: Mapping[Role, int], drain: Mapping[Role, tuple[str, ...]] | None = None
    ) -> Grant:
        """What the deployment may run of these replicas; it runs that, or is on its way, when this returns.

        What others have to give up for it is taken back first. :class:`~planner_adapters.environment.NotScaled` if its
        own environment didn't obey; if another's didn't, it doesn't grow.
        """
        async with self._one_at_a_time:
            self._memory[name].wish = _Wish(replicas=dict(replicas), at_s=self._clock())
            claims = await self._claims()
            grants = arbitrate(claims.values(), **self._limits)
            kept = [
                other
                for other in claims
                if other != name and not await self._take_back(claims[other], grants[other])
            ]
            grant = grants[name]
            if kept:
                grant = _without_growth(
                    claims[name], grant, f"{', '.join(kept)} didn't give back what is needed"
                )
            told = {str(role): f"{grant.replicas.get(role, '-')}/{n}" for role, n in replicas.items()}
            log.info(logfmt("grant", deployment=name, **told, reason=grant.reason, note=grant.note or None))
            await self._order(name, {r: c for r, c in grant.replicas.items() if r in replicas}, drain or {})
            return grant

    async def close(self) -> None:
        """Closes the environments."""
        await asyncio.gather(*(managed.environment.close() for managed in self.deployments.values()))

    async def _claims(self) -> dict[str, Claim]:
        """What every deployment has and wants."""
        found = await asyncio.gather(*map(self._workers, self.deployments.values()))
        return {
            name: self._claim(name, workers) for name, workers in zip(self.deployments, found, strict=True)
        }

    async def _workers(self, managed: Managed) -> Mapping[Role, WorkerCounts]:
        try:
            return (await managed.environment.observe(LOOK)).get("workers") or {}
        except Exception as error:  # noqa: BLE001  # an environment may be anybody's: what it can't tell is unknown
            log.warning(logfmt("not observed", error=f"{type(error).__name__}: {error}"))
            return {}

    def _claim(self, name: str, workers: Mapping[Role, WorkerCounts]) -> Claim:
        managed, memory, now_s = self.deployments[name], self._memory[name], self._clock()
        wish = memory.wish if memory.wish is not None and now_s - memory.wish.at_s < WISH_S else None
        roles = {}
        for role, spec in managed.config.engines.items():
            counts = workers.get(role)
            if counts is not None:
                started = counts.ready + len(counts.starting_ages_s)
                memory.seen[role] = started if counts.expected is None else counts.expected
            ordered, at_s = memory.ordered.get(role, (0, -SETTLE_S))
            known = memory.seen.get(role)
            roles[role] = RoleClaim(
                current=max(known, ordered) if known is not None and now_s - at_s < SETTLE_S else known,
                wish=None if wish is None else wish.replicas.get(role),
                num_gpus=spec.num_gpus,
                min_replicas=spec.min_replicas,
                stale=counts is None,
            )
        return Claim(deployment=name, roles=roles, priority=managed.priority)

    async def _take_back(self, claim: Claim, grant: Grant) -> bool:
        """Whether the deployment has no more than its grant now."""
        less = {
            role: count for role, count in grant.replicas.items() if count < (claim.roles[role].current or 0)
        }
        if not less:
            return True
        told = {str(role): count for role, count in less.items()}
        log.info(logfmt("taken back", deployment=claim.deployment, **told, note=grant.note))
        try:
            await self._order(claim.deployment, less, {})
        except NotScaled as error:
            log.warning(logfmt("not taken back", deployment=claim.deployment, error=str(error)))
            return False
        return True

    async def _order(
        self, name: str, replicas: Mapping[Role, int], drain: Mapping[Role, tuple[str, ...]]
    ) -> None:
        if not replicas:
            return
        memory, now_s = self._memory[name], self._clock()
        # Before it is sent: it may be carried out and the answer be lost.
        memory.ordered |= {role: (count, now_s) for role, count in replicas.items()}
        try:
            await self.deployments[name].environment.scale(_Order(replicas=replicas, drain=drain))
        except Exception as error:  # an environment may be anybody's
            raise NotScaled(f"{name}: {str(error) or type(error).__name__}") from error
        memory.seen |= replicas


def _without_growth(claim: Claim, grant: Grant, note: str) -> Grant:
    """The grant, or where that is more, what the deployment has."""
    had = {role: each.current for role, each in claim.roles.items() if each.current is not None}
    held = {role: min(count, had.get(role, count)) for role, count in grant.replicas.items()}
    if held == grant.replicas:
        return grant
    return attrs.evolve(grant, replicas=held, reason=GrantReason.GPU_BUDGET, note=note)
