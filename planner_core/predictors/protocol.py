"""What a predictor is: a frozen object of hyper-parameters; what it learns is a state that the caller carries."""

from __future__ import annotations

from typing import Protocol, TypeVar

import attrs
import numpy as np
import numpy.typing as npt

S = TypeVar("S")


def _row(values: npt.ArrayLike) -> npt.NDArray[np.float64]:
    row = np.array(values, dtype=np.float64, ndmin=1)
    row.flags.writeable = False
    return row


@attrs.frozen(kw_only=True)
class Forecast:
    """A forecast of the next steps: mean and standard deviation of each, float64 of shape (steps,)."""

    mean: npt.NDArray[np.float64] = attrs.field(converter=_row, eq=attrs.cmp_using(eq=np.array_equal))
    std: npt.NDArray[np.float64] = attrs.field(converter=_row, eq=attrs.cmp_using(eq=np.array_equal))


class Predictor(Protocol[S]):
    """Forecasts one series of non-negative numbers, a value per interval."""

    def init(self) -> S:
        """The state before the first value."""
        ...

    def observe(self, state: S, value: float) -> S:
        """The state after one more value, which is finite and at least 0; ``state`` itself is unchanged."""
        ...

    def forecast(self, state: S, steps: int = 1) -> Forecast | None:
        """The next ``steps`` values: finite, at least 0; ``None`` while the predictor isn't ready."""
        ...
