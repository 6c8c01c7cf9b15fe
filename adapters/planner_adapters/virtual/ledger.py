"""All that planner and environment have said to each other, as a value; what either says next makes a new one.

Ids only grow. A decision is open until the environment reports it, or a later one, as scaled; while it is open a
newer one supersedes it. What runs is what the environment says. Nothing here reads a clock or a store.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import attrs
import msgspec

from planner_adapters.virtual.decision import VirtualDecision, are_counts
from planner_core import Role, WorkerCounts

REMEMBERED = 64
"""Open decisions kept, newest first: an environment may still finish one that has been superseded."""


class UnknownDecisionError(ValueError):
    """The environment speaks of a decision that isn't in the store; one line with the mend."""


@attrs.frozen(kw_only=True)
class Asked:
    """A decision and when it was made, in seconds of the planner's clock."""

    decision: VirtualDecision
    asked_at_s: float


@attrs.frozen(kw_only=True)
class Ledger:
    """One deployment's decisions and acknowledgements."""

    scaled_decision_id: int = 0
    """The greatest decision that the environment has reported as carried out; 0: none."""
    running: dict[Role, int] = attrs.field(factory=dict, validator=are_counts)
    """Replicas that the environment last said it runs; a role that it hasn't spoken of is left out."""
    asked: tuple[Asked, ...] = ()
    """Oldest first: the open decisions, or the last one."""

    @property
    def latest(self) -> VirtualDecision | None:
        """The newest decision, open or not."""
        return self.asked[-1].decision if self.asked else None

    @property
    def decision_id(self) -> int:
        """The newest decision's id; 0: none was ever made."""
        return self.latest.decision_id if self.latest else 0

    @property
    def open(self) -> tuple[Asked, ...]:
        """The decisions that aren't acknowledged, oldest first."""
        return self.asked if self.decision_id > self.scaled_decision_id else ()

    def overdue(self, now_s: float, timeout_s: float) -> bool:
        """Whether the newest decision is open for so long that nobody counts on it any more."""
        return bool(self.open) and now_s - self.open[-1].asked_at_s >= timeout_s


def decide(
    ledger: Ledger,
    replicas: Mapping[Role, int],
    drain: Mapping[Role, Iterable[str]],
    *,
    now_s: float,
    timeout_s: float,
) -> Ledger:
    """The ledger after the planner has asked for ``replicas``; the same one where that stands already.

    A role left out keeps what an open decision asks for it.
    """
    overdue = ledger.overdue(now_s, timeout_s)
    superseded = ledger.open[-1].decision.replicas if ledger.open else {}
    standing = ledger.running | superseded
    if not overdue and all(standing.get(role) == count for role, count in replicas.items()):
        return ledger
    decision = VirtualDecision(
        decision_id=ledger.decision_id + 1,
        replicas={**superseded, **replicas},
        drain={role: tuple(ids) for role, ids in drain.items() if role in replicas and ids},
    )
    # Only the newest is ever handed out: the others are kept for their counts.
    before = (attrs.evolve(a, decision=attrs.evolve(a.decision, drain={})) for a in ledger.open)
    asked = (*before, Asked(decision=decision, asked_at_s=now_s))
    return attrs.evolve(ledger, asked=asked[-REMEMBERED:])


def complete(ledger: Ledger, decision_id: int) -> Ledger:
    """The ledger after the environment has carried out a decision, the newest or one that was superseded since.

    Again, or late, changes nothing. :class:`UnknownDecisionError` for one that was never made.
    """
    if decision_id < 1 or decision_id > ledger.decision_id:
        raise UnknownDecisionError(
            f"decision {decision_id} was never made here, the newest is {ledger.decision_id}: "
            "was the store emptied? begin again with after = 0"
        )
    if decision_id <= ledger.scaled_decision_id:
        return ledger
    done = [a.decision for a in ledger.asked if a.decision.decision_id == decision_id]
    if not done:
        raise UnknownDecisionError(
            f"decision {decision_id} is forgotten, since more than {REMEMBERED} newer ones superseded it: "
            f"carry out decision {ledger.decision_id}"
        )
    return attrs.evolve(
        ledger,
        scaled_decision_id=decision_id,
        running=ledger.running | done[0].replicas,
        asked=tuple(a for a in ledger.asked if a.decision.decision_id > decision_id) or ledger.asked[-1:],
    )


def report(ledger: Ledger, running: Mapping[Role, int]) -> Ledger:
    """The ledger after the environment has said what runs, whether it was asked for it or not."""
    return attrs.evolve(ledger, running=ledger.running | dict(running))


def worker_counts(ledger: Ledger, *, now_s: float, timeout_s: float) -> dict[Role, WorkerCounts]:
    """What runs and what is on its way, for each role that the environment has spoken of.

    An open decision counts until it is overdue. Each replica that it adds has been starting since the first of the
    open decisions that asked for it, and went on asking.
    """
    counts = {}
    for role, running in ledger.running.items():
        starts: list[float] = []
        expected = running
        for asked in ledger.open:
            expected = asked.decision.replicas.get(role, expected)
            more = max(0, expected - running)
            del starts[more:]
            starts += [asked.asked_at_s] * (more - len(starts))
        if ledger.overdue(now_s, timeout_s):
            starts, expected = [], running
        ages = [max(0.0, now_s - start) for start in starts]
        counts[role] = WorkerCounts(ready=running, expected=expected, starting_ages_s=ages)
    return counts


def dumps(ledger: Ledger) -> str:
    """As JSON."""
    return msgspec.json.encode(ledger).decode()


def loads(text: str | None) -> Ledger:
    """From JSON, or an empty one; ``ValueError`` for anything else."""
    return Ledger() if text is None else msgspec.json.decode(text, type=Ledger)
