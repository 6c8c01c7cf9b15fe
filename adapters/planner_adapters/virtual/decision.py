"""What the planner asks of an environment that it doesn't run: how many replicas, under a number of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from planner_core import Role
from planner_core.data.checks import measured_number

MOST_REPLICAS = 1_000_000

_IS_ID = measured_number(whole=True, least=1)
_IS_COUNT = measured_number(whole=True, least=0, most=MOST_REPLICAS)


def are_counts(instance: Any, attribute: attrs.Attribute[Any], counts: Mapping[Role, int]) -> None:
    """An attrs validator: whole numbers from 0 to a million."""
    for count in counts.values():
        _IS_COUNT(instance, attribute, count)


@attrs.frozen(kw_only=True)
class VirtualDecision:
    """Replicas that the environment is asked to run. Absolute: carrying it out twice changes nothing."""

    decision_id: int = attrs.field(validator=_IS_ID)
    """1, 2, 3, …: a later decision has a greater one, and no two share one."""
    replicas: dict[Role, int] = attrs.field(validator=are_counts)
    """A role left out stays as it is."""
    drain: dict[Role, tuple[str, ...]] = attrs.field(factory=dict)
    """Worker ids to remove first where a role shrinks, as far as they are known."""

    def to_wire(self) -> dict[str, Any]:
        """As it travels to schedulers: ``decision_id``, ``num_prefill`` and ``num_decode`` or ``num_agg``, and
        ``drain`` where there is any."""
        wire: dict[str, Any] = {"decision_id": self.decision_id, **counts_to_wire(self.replicas)}
        if self.drain:
            wire["drain"] = {str(role): list(ids) for role, ids in self.drain.items()}
        return wire


def counts_to_wire(counts: Mapping[Role, int]) -> dict[str, int]:
    """``{"num_prefill": 2, …}``."""
    return {f"num_{role}": count for role, count in counts.items()}


def counts_from_wire(wire: Mapping[str, Any]) -> dict[Role, int]:
    """The other way round; ``ValueError`` with one line for what can't be meant."""
    names = {f"num_{role}": role for role in Role}
    if not wire:
        raise ValueError(f"says no counts: give some of {', '.join(names)}")
    for name, count in wire.items():
        if name not in names:
            raise ValueError(f"{name[:40]!r} is no count: must be one of {', '.join(names)}")
        if not _IS_COUNT.admits(count):
            raise ValueError(f"{name} must be {_IS_COUNT.want}")
    return {names[name]: count for name, count in wire.items()}
