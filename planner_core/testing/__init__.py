"""For your own tests: does your extension fit, and does your code stand what a planner may meet?

:func:`check_predictor` and :func:`check_perf_model` fail with one sentence about what doesn't fit. The
strategies (:func:`tick_inputs` and the others) are for Hypothesis, which the extra ``testing`` brings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from planner_core.data.errors import MissingExtraError
from planner_core.testing.conformance import check_perf_model, check_predictor

if TYPE_CHECKING:
    from planner_core.testing.strategies import (
        configs,
        decisions,
        engine_specs,
        forward_pass_metrics,
        fpm_batches,
        observed_latencies,
        states,
        tick_inputs,
        traffic_forecasts,
        traffic_observations,
        worker_counts,
    )

__all__ = [
    "check_perf_model",
    "check_predictor",
    "configs",
    "decisions",
    "engine_specs",
    "forward_pass_metrics",
    "fpm_batches",
    "observed_latencies",
    "states",
    "tick_inputs",
    "traffic_forecasts",
    "traffic_observations",
    "worker_counts",
]


def __getattr__(name: str) -> Any:
    """The strategies, imported at their first use."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from planner_core.testing import strategies
    except ImportError as error:
        if error.name is None or error.name.partition(".")[0] != "hypothesis":
            raise
        raise MissingExtraError(
            f"planner_core.testing.{name} needs Hypothesis: pip install 'planner-core[testing]'"
        ) from None
    return getattr(strategies, name)
