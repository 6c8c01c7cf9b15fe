"""A simulated cluster as an environment: time passes as fast as it can be computed."""

from __future__ import annotations

from planner_adapters.environment import Measured, Order
from planner_adapters.simulation.cluster import Cluster
from planner_core import NextTick


class SimulatedEnvironment:
    """Waits, observes and scales a :class:`Cluster`, which it plays on."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster

    def wait_until(self, at_s: float) -> float:
        """Plays the cluster on to ``at_s``."""
        self.cluster.advance(at_s)
        return self.cluster.now_s

    def observe(self, upcoming: NextTick) -> Measured:
        """All that is asked for; traffic of the window since it was last asked for."""
        seen = self.cluster.observe(traffic="traffic" in upcoming.needs)
        return Measured(
            workers=dict(seen.workers), fpm=dict(seen.fpm), traffic=seen.traffic, observed=seen.observed
        )

    def scale(self, order: Order) -> None:
        """Starts or drains replicas."""
        drain = [worker for workers in order.drain.values() for worker in workers]
        self.cluster.scale(order.replicas, drain=drain)
