"""What there is to see of a run, as a value of bounded size."""

from __future__ import annotations

import attrs
import numpy as np

from planner_adapters.report.sampling import Floats
from planner_core import Explanation, PlannerConfig, Role

_same = attrs.cmp_using(eq=lambda a, b: np.array_equal(a, b, equal_nan=True))


@attrs.frozen(kw_only=True)
class Curve:
    """A line: real points, of which none that stand out are left out. NaN: it breaks here."""

    at_s: Floats = attrs.field(eq=_same)
    values: Floats = attrs.field(eq=_same)


@attrs.frozen(kw_only=True)
class Moment:
    """What a decision said about one role: of a stretch of time, the most notable one."""

    at_s: float
    reason: str
    sentence: str
    """:meth:`planner_core.Explanation.sentence`, whole."""


@attrs.frozen(kw_only=True)
class Feed:
    """One input of the planner: when it came last."""

    name: str
    """Such as ``traffic`` or ``fpm.decode``."""
    age_s: float | None
    """``None``: it never came."""
    fed: bool
    """Whether it comes as often as it is used."""


@attrs.frozen(kw_only=True)
class Series:
    """A run, ready to be drawn."""

    config: PlannerConfig | None
    """The last one in force; ``None``: there was no tick."""
    start_s: float
    end_s: float
    bucket_s: float
    """Of this much time, each curve has its first, lowest, highest and last point, each timeline one moment."""
    num_skipped: int
    """Ticks whose time was not after that of the tick before."""
    curves: dict[str, Curve]
    """By the names of :data:`planner_adapters.report.NAMES`; what was never known isn't there."""
    timelines: dict[tuple[Role, str], tuple[Moment, ...]]
    """By role and loop; where a loop didn't run, its last moment goes on."""
    changes: dict[tuple[Role, str], tuple[Moment, ...]]
    """When another number of replicas was decided, by role and ``up`` or ``down``: of each stretch the largest step."""
    latest: dict[Role, Explanation]
    feeds: tuple[Feed, ...]
    totals: dict[str, float]
    """``ticks``; ``gpu_s`` and ``gpu_known_s``; ``observed`` ticks with latencies and those ``within`` the SLA;
    changes as ``prefill.up``; seconds as ``prefill.load.no_change``."""

    @property
    def since_epoch(self) -> bool:
        """Whether times are seconds since 1970, or since the start of a simulation."""
        return self.start_s > 1e8
