"""What came a period ago, moved to where the series stands now."""

from __future__ import annotations

import attrs
import numpy as np

from planner_core.data.checks import config_number
from planner_core.predictors._history import Values
from planner_core.predictors._spread import Spread

LOOK_EVERY = 48
"""Values between two searches for a period."""
OFFSET_MEMORY = 100
"""Values over which it is learned how much of a difference to the last period stays."""


@attrs.frozen(kw_only=True)
class SeasonalNaiveState:
    """The values seen, and how long a difference to the last period lasts."""

    values: Values = attrs.field(factory=lambda: np.zeros(0), eq=attrs.cmp_using(eq=np.array_equal))
    """The latest values: two periods of them, or ``memory`` while none is known."""
    count: int = 0
    """Values seen in all."""
    period: int | None = None
    offset: float = 0.0
    """What the last value was above the one a period before it."""
    products: tuple[float, float] = (1.0, 1.0)
    """Recent sums: of successive offsets' products, and of their squares."""
    spread: Spread = Spread()


@attrs.frozen(kw_only=True)
class SeasonalNaive:
    """Repeats the last period, moved by as much of its last error as usually stays."""

    period: int | None = attrs.field(
        default=None, validator=config_number(whole=True, least=2, optional=True)
    )
    """Steps of the season, such as 480 for a day of 180-s intervals; ``None``: found from the data."""
    memory: int = attrs.field(default=4096, validator=config_number(whole=True, least=64))
    """Values among which a period is looked for."""

    def init(self) -> SeasonalNaiveState:
        """Nothing seen."""
        return SeasonalNaiveState(period=self.period)

    def observe(self, state: SeasonalNaiveState, value: float) -> SeasonalNaiveState:
        raise NotImplementedError
