"""What planners last decided, by deployment and role: connectors publish it, the scaler reads it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping

from planner_core import Role

VALID_S = 600.0
"""How long a decision holds without being made again. Planners decide every few seconds, or minutes."""


class UnknownDeploymentError(LookupError):
    """Nobody plans for that deployment, or that role of it. The message is one line with those that there are."""


class UndecidedError(Exception):
    """There is no decision, or none that is recent enough. The message is one line."""


class Decided:
    """Replica counts of any number of deployments. Use it within one event loop."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._counts: dict[str, dict[Role, tuple[int, float] | None]] = {}
        self._valid_s: dict[str, float] = {}
        self._published = asyncio.Event()

    def expect(self, deployment: str, roles: Iterable[Role], *, valid_s: float = VALID_S) -> None:
        """From now on the deployment and its roles are known, with nothing decided yet.

        A decision holds for ``valid_s``, unless it is made again.
        """
        self._counts[deployment] = dict.fromkeys(map(Role, roles))
        self._valid_s[deployment] = valid_s

    def publish(self, deployment: str, replicas: Mapping[Role, int]) -> None:
        """The counts in force from now on; a role that is left out keeps its own until that is too old."""
        now_s = self._clock()
        self._counts[deployment].update({Role(role): (count, now_s) for role, count in replicas.items()})
        self._published.set()
        self._published = asyncio.Event()

    def replicas(self, deployment: str, role: str) -> int:
        """The count in force. :class:`UnknownDeploymentError`, :class:`UndecidedError`."""
        self.check(deployment, role)
        last = self._counts[deployment][Role(role)]
        if last is None:
            raise UndecidedError(f"nothing is decided for {role} of {_short(deployment)} yet")
        count, at_s = last
        if (age_s := self._clock() - at_s) > self._valid_s[deployment]:
            raise UndecidedError(
                f"the last decision for {role} of {_short(deployment)} is {age_s:.0f} s old: "
                "does the planner still run, and is it more than advisory?"
            )
        return count

    def check(self, deployment: str, role: str) -> None:
        """:class:`UnknownDeploymentError` unless somebody plans for it."""
        roles = self._counts.get(deployment)
        if roles is None:
            raise UnknownDeploymentError(
                f"no planner here decides for the deployment {_short(deployment)}: it is one of {_these(self._counts)}"
            )
        if role not in roles:
            raise UnknownDeploymentError(
                f"the deployment {_short(deployment)} has no role {_short(role)}: it is one of {_these(roles)}"
            )

    async def changes(self, deployment: str, role: str) -> AsyncIterator[int | None]:
        """The count in force, and again after each decision that is published; ``None`` for one that isn't known."""
        while True:
            published = self._published
            try:
                yield self.replicas(deployment, role)
            except UndecidedError:
                yield None
            await published.wait()


def _short(name: str) -> str:
    """A name that somebody sent, fit for one line."""
    return repr(name if len(name) <= 80 else f"{name[:79]}…")


def _these(names: Iterable[str]) -> str:
    return ", ".join(sorted(map(str, names))) or "none"
