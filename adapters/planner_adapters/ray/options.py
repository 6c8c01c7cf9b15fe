"""The autoscaling options of a deployment that the planner scales."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from planner_adapters.ray.policy import PlannerPolicy
from planner_core import ConfigError, MissingExtraError

if TYPE_CHECKING:
    from ray.serve.config import AutoscalingConfig

LOOK_BACK_S = 15.0
"""The planner averages by itself, so a long window would only be late; Serve wants more than its interval of 10 s."""


def autoscaling_config(
    config: Mapping[str, Any], *, tokens_per_request: float | None = None, **options: Any
) -> AutoscalingConfig:
    """What ``@serve.deployment(autoscaling_config=…)`` takes; ``config`` as for :class:`PlannerPolicy`.

    Bounds are those of the configuration: ``max_replicas`` of the engine, else its GPU budget. Serve's delays are 0,
    since the planner waits by itself, and it looks back 15 s. ``options`` are further ones of Serve's
    ``AutoscalingConfig``, and win.

    :class:`~planner_core.ConfigError`, :class:`~planner_core.MissingExtraError` with the pip command.
    """
    try:
        from ray.serve.config import AutoscalingConfig, AutoscalingPolicy
    except ImportError:
        raise MissingExtraError(
            "planner_adapters.ray needs Ray Serve 2.55 or newer: pip install 'planner-core[ray]'"
        ) from None
    kwargs: dict[str, Any] = {"config": dict(config), "tokens_per_request": tokens_per_request}
    planned = PlannerPolicy(**kwargs).config
    (spec,) = planned.engines.values()
    most = [] if spec.max_replicas is None else [spec.max_replicas]
    if planned.limits.max_gpus is not None:
        most.append(planned.limits.max_gpus // spec.num_gpus)
    if not most and "max_replicas" not in options:
        raise ConfigError(
            "max_gpu_budget: there is no limit; Ray Serve needs one, or the option max_replicas"
        )
    bounds = {"min_replicas": spec.min_replicas} | ({"max_replicas": min(most)} if most else {})
    usual = {
        **bounds,
        "upscale_delay_s": 0.0,
        "downscale_delay_s": 0.0,
        "downscale_to_zero_delay_s": 0.0,
        "look_back_period_s": LOOK_BACK_S,
    }
    policy = AutoscalingPolicy(policy_function="planner_adapters.ray:PlannerPolicy", policy_kwargs=kwargs)
    return AutoscalingConfig(**{**usual, **options, "policy": policy})
