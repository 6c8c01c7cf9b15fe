"""What would have changed a decision: measured quantities and promises, moved until the tick decides otherwise.

Each answer has been tried: the tick was made again with that value, and decided as is said.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

import attrs

from planner_core import FpmBatch, Role, TickInput, tick

WIDEST = 16.0
"""Quantities are moved up to this factor, up and down."""
FINE = 0.01
"""How near to the turning point the value is that is given, as a share of it."""

Move = Callable[[TickInput, float], TickInput]
"""The same input with a quantity times a factor."""


@attrs.frozen(kw_only=True)
class Lever:
    """A quantity that a decision rests on."""

    name: str
    unit: str
    value: float
    move: Move


@attrs.frozen(kw_only=True)
class Turned:
    """A value with which the tick decides otherwise, just beyond the one where it begins to."""

    quantity: str
    unit: str
    was: float
    value: float
    replicas: Mapping[Role, int]
    """What is decided then."""
    changed: tuple[Role, ...]
    """The roles that get another number than they got."""
    inputs: TickInput = attrs.field(repr=False)
    """The tick that was tried; ``tick(inputs)`` gives these replicas."""

    def sentence(self) -> str:
        """In words."""
        outcome = ", ".join(f"{role} {self.replicas.get(role, '–')}" for role in self.changed)
        return f"{self.quantity} {self.value:.4g} {self.unit} (was {self.was:.4g}): {outcome}"


def turning_points(inputs: TickInput) -> list[Turned]:
    """For each quantity, the nearest value above and below it that changes the decision, as far as there is one."""
    decided = tick(inputs).replicas
    found = []
    for lever in _levers(inputs):
        for direction in (1, -1):
            turned = _search(inputs, decided, lever, direction)
            if turned is not None:
                found.append(turned)
    return found


def _search(inputs: TickInput, decided: Mapping[Role, int], lever: Lever, direction: int) -> Turned | None:
    """By steps that double, then by halving the last one; on the logarithm of the quantity."""

    def tried(step: float) -> Turned | None:
        moved = lever.move(inputs, math.exp(direction * step))
        replicas = tick(moved).replicas
        changed = tuple(role for role in moved.config.engines if replicas.get(role) != decided.get(role))
        if not changed:
            return None
        return Turned(
            quantity=lever.name,
            unit=lever.unit,
            was=lever.value,
            value=lever.value * math.exp(direction * step),
            replicas=replicas,
            changed=changed,
            inputs=moved,
        )

    kept, step, turned = 0.0, 0.05, None
    while turned is None and kept < math.log(WIDEST):
        step = min(step, math.log(WIDEST))
        turned = tried(step)
        if turned is None:
            kept, step = step, 2 * step
    while turned is not None and step - kept > FINE:
        middle = (kept + step) / 2
        nearer = tried(middle)
        kept, step, turned = (kept, middle, nearer) if nearer is not None else (middle, step, turned)
    return turned


def _levers(inputs: TickInput) -> Iterator[Lever]:
    """What this decision can rest on: what was measured, and what was promised."""
    traffic, config = inputs.traffic, inputs.config
    if traffic is not None and traffic.num_requests:
        rate_rps = traffic.num_requests / traffic.duration_s
        yield Lever(name="arrivals", unit="requests/s", value=rate_rps, move=_arrivals)
    for role, batch in inputs.fpm.items():
        if role not in config.engines or not len(batch.latest):
            continue
        queued = float(batch.queued_prefill_tokens[batch.latest].sum())
        if role.prefills and queued > 0:
            yield Lever(name=f"{role} queue", unit="tokens", value=queued, move=_queue(role))
        decodes = float(batch.num_decode[batch.latest].sum())
        if role.decodes and decodes > 0:
            yield Lever(name=f"{role} batches", unit="requests", value=decodes, move=_batches(role))
    if config.target == "sla":
        yield Lever(name="TTFT target", unit="ms", value=config.sla.ttft_ms, move=_target("ttft_ms"))
        yield Lever(name="ITL target", unit="ms", value=config.sla.itl_ms, move=_target("itl_ms"))


def _arrivals(inputs: TickInput, factor: float) -> TickInput:
    assert inputs.traffic is not None
    assert inputs.traffic.num_requests is not None
    traffic = attrs.evolve(inputs.traffic, num_requests=min(inputs.traffic.num_requests * factor, 1e12))
    return attrs.evolve(inputs, traffic=traffic)


def _queue(role: Role) -> Move:
    return _columns(role, ("queued_num_prefill", "queued_prefill_tokens"))


def _batches(role: Role) -> Move:
    return _columns(role, ("num_decode", "decode_kv_tokens"))


def _columns(role: Role, names: tuple[str, ...]) -> Move:
    def move(inputs: TickInput, factor: float) -> TickInput:
        batch: FpmBatch = inputs.fpm[role]
        changed = attrs.evolve(batch, **{name: getattr(batch, name) * factor for name in names})
        return attrs.evolve(inputs, fpm={**inputs.fpm, role: changed})

    return move


def _target(name: str) -> Move:
    def move(inputs: TickInput, factor: float) -> TickInput:
        sla = attrs.evolve(inputs.config.sla, **{name: getattr(inputs.config.sla, name) * factor})
        return attrs.evolve(inputs, config=attrs.evolve(inputs.config, sla=sla))

    return move
