"""An engine as its performance model knows it, and its curve, which is drawn again only once something has changed.

A model learns from every pass and mostly concludes what it knew. Curves of the last engines, specs and requests are
therefore kept: a memo of a pure function, which changes no answer.
"""

from __future__ import annotations

import functools
from collections.abc import Hashable
from typing import Any

import attrs

from planner_core.config import EngineSpec
from planner_core.data.fpm import SHORTEST_S
from planner_core.data.roles import Role
from planner_core.maths.shape import RequestShape
from planner_core.maths.sla import Curve, curve
from planner_core.perf import BatchLoad, PerfModel

CURVES_KEPT = 1024
"""About 20 kB each."""


@attrs.frozen(eq=False)
class Engine:
    """Mean duration of a pass, as a function of its load. Engines of one model are equal if they know the same."""

    model: PerfModel[Any]
    state: Any
    knowledge: Hashable
    """``None`` where the model can't tell."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Engine) and self.model is other.model and self.knowledge == other.knowledge

    def __hash__(self) -> int:
        return hash(self.knowledge)

    def __call__(self, load: BatchLoad) -> Any:
        """Seconds, of the load's shape."""
        estimate = self.model.iteration_s(self.state, load)
        assert estimate is not None  # a model that is ready for one load is ready for all
        return estimate.mean_s + SHORTEST_S  # never 0, so that everything may be divided by it


def engine_of(model: PerfModel[Any], state: Any) -> Engine | None:
    """The engine; ``None`` while its model isn't ready."""
    if model.iteration_s(state, BatchLoad(num_decode=1.0)) is None:
        return None
    knowledge = getattr(model, "knowledge", None)
    return Engine(model, state, None if knowledge is None else knowledge(state))


def curve_of(role: Role, engine: Engine, spec: EngineSpec, shape: RequestShape, quantile: float) -> Curve:
    """:func:`planner_core.maths.sla.curve`, of engines that were asked about before as it was then."""
    draw = curve if engine.knowledge is None else _kept
    return draw(role, engine, spec, shape, quantile)


_kept = functools.lru_cache(maxsize=CURVES_KEPT)(curve)
