"""How many requests of a window miss the SLA with n replicas? Each window by itself, on the simulator.

A survey is what the oracle plans on. Windows don't depend on each other, so they can be surveyed in parallel.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import attrs
import numpy as np

from planner_adapters.simulation.cluster import Cluster
from planner_adapters.simulation.pool import PoolSpec, Routing
from planner_adapters.simulation.results import Bools, Floats, Ints, RequestResults
from planner_adapters.simulation.workload import Workload
from planner_core import Role, SlaTargets

WARMUP_S = 30.0
"""Arrivals before a window that fill the engines; they aren't counted."""
TAIL_S = 5.0
"""Arrivals after it, which its last requests share the engines with."""
HOPELESS = 0.5
"""Where more than this share of a window misses, fewer replicas are not looked at: all of it would."""
PATIENCE = 3
"""Steps up without fewer misses, after which more replicas are taken not to help."""


@attrs.frozen(kw_only=True, eq=False)
class Curve:
    """Misses of one window over replicas, at the numbers that were looked at, rising."""

    replicas: tuple[int, ...]
    misses: tuple[int, ...]
    requests: int

    def at(self, replicas: Ints) -> Floats:
        """Misses with so many replicas: all of the window below the least number looked at (no fewer than one
        replica can be), as many as with the most beyond it, a straight line between."""
        values = np.interp(replicas, self.replicas, self.misses)
        values[replicas < self.replicas[0]] = self.requests
        return values

    @property
    def enough(self) -> int:
        """The fewest replicas with the fewest misses."""
        return self.replicas[int(np.argmin(self.misses))]


@attrs.frozen(kw_only=True, eq=False)
class Survey:
    """One ``Curve`` per role and window of ``window_s``, from 0 on."""

    window_s: float
    curves: Mapping[Role, tuple[Curve, ...]]

    def __add__(self, later: Survey) -> Survey:
        """The windows of both, one after the other."""
        return Survey(
            window_s=self.window_s,
            curves={role: mine + later.curves[role] for role, mine in self.curves.items()},
        )


def num_windows(workload: Workload, window_s: float) -> int:
    """Windows until the last arrival."""
    return int(workload.arrival_s[-1] // window_s) + 1


def survey(
    workload: Workload,
    roles: Mapping[Role, PoolSpec],
    sla: SlaTargets,
    *,
    window_s: float,
    windows: range | None = None,
    routing: Routing = "round_robin",
    seed: int = 0,
) -> Survey:
    """Looks at ``windows`` (by default all of them). A role of several is looked at by itself: prefill for
    its TTFT, decode for its ITL with prompts that come computed.
    """
    windows = range(num_windows(workload, window_s)) if windows is None else windows
    curves = {}
    for role, spec in roles.items():
        found: list[Curve] = []
        guess = 1
        for window in windows:
            scene = _Scene.of(workload, window * window_s, (window + 1) * window_s)

            def misses(replicas: int, role: Role = role, spec: PoolSpec = spec, scene: _Scene = scene) -> int:
                pool = {role: attrs.evolve(spec, replicas=replicas)}
                cluster = Cluster(roles=pool, routing=routing, seed=seed, now_s=scene.start_s)
                return scene.misses(cluster, sla)

            found.append(_curve(misses, scene.num_counted, guess))
            guess = found[-1].enough or guess
        curves[role] = tuple(found)
    return Survey(window_s=window_s, curves=curves)


@attrs.frozen(kw_only=True, eq=False)
class _Scene:
    """Requests around a window, as rows of the workload, and those in it, as rows of these."""

    workload: Workload
    rows: slice
    counted: slice
    start_s: float

    @classmethod
    def of(cls, workload: Workload, start_s: float, end_s: float) -> _Scene:
        begin_s = max(start_s - WARMUP_S, 0.0)
        edges = (begin_s, start_s, end_s, end_s + TAIL_S)
        first, since, until, last = np.searchsorted(workload.arrival_s, edges).tolist()
        return cls(
            workload=workload,
            rows=slice(first, last),
            counted=slice(since - first, until - first),
            start_s=begin_s,
        )

    @property
    def num_counted(self) -> int:
        return int(self.counted.stop - self.counted.start)

    def misses(self, cluster: Cluster, sla: SlaTargets) -> int:
        """Requests of the window that miss the SLA on a cluster of its own."""
        hits = self.workload.prefix_hit_tokens
        arrival_s = self.workload.arrival_s[self.rows]
        output_tokens = self.workload.output_tokens[self.rows]
        cluster.submit(
            arrival_s=arrival_s,
            input_tokens=self.workload.input_tokens[self.rows],
            output_tokens=output_tokens,
            prefix_hit_tokens=None if hits is None else hits[self.rows],
        )
        decode_ms = sla.itl_ms * (output_tokens[self.counted] - 1)
        latest_s = float(np.max(arrival_s[self.counted] + (sla.ttft_ms + decode_ms) / 1e3))
        cluster.advance(latest_s + 1e-6)  # whoever isn't done by then has missed
        return int(np.sum(~met(cluster.results(), sla)[self.counted]))


def met(results: RequestResults, sla: SlaTargets) -> Bools:
    """Requests that kept both targets."""
    return results.met_ttft(sla.ttft_ms) & results.met_itl(sla.itl_ms)


def _curve(misses: Callable[[int], int], number: int, guess: int) -> Curve:
    """From a guess to the replicas that are enough, then down until it is hopeless; coarser steps for larger fleets."""
    if not number:
        return Curve(replicas=(0,), misses=(0,), requests=0)
    seen: dict[int, int] = {}

    def look(replicas: int) -> int:
        if replicas not in seen:
            seen[replicas] = misses(replicas)
        return seen[replicas]

    here, in_vain = guess, 0
    while look(here) and in_vain < PATIENCE:
        best = min(seen.values())
        here += _step(here) * (4 if seen[here] > HOPELESS * number else 1)
        in_vain = in_vain + 1 if look(here) >= best else 0
    enough = min(seen, key=lambda n: (seen[n], n))
    low = max((n for n in seen if n < enough), default=0)
    while enough - low > _step(low):
        middle = (low + enough) // 2
        if look(middle) <= seen[enough]:
            enough = middle
        else:
            low = middle
    here = enough
    while here > 1 and look(here) <= HOPELESS * number:
        here = max(1, here - _step(here))
    look(here)
    return Curve(replicas=tuple(sorted(seen)), misses=tuple(seen[n] for n in sorted(seen)), requests=number)


def _step(replicas: int) -> int:
    return max(1, replicas // 10)
