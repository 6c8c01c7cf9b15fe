"""The parts of a configuration. Each checks itself, and names class, field and value of what is wrong."""

from __future__ import annotations

from typing import Any, Literal

import attrs

from planner_core.data.checks import config_number, flag, object_with, one_of, text
from planner_core.data.errors import ConfigError
from planner_core.predictors import Predictor

_COUNT_OR_NONE = config_number(whole=True, least=0, optional=True)
_POSITIVE_OR_NONE = config_number(whole=True, least=1, optional=True)


@attrs.frozen(kw_only=True)
class EngineSpec:
    """One kind of engine: what a replica costs and holds. ``None``: not known, or no limit."""

    num_gpus: int = attrs.field(default=1, validator=config_number(whole=True, least=1))
    """GPUs of one replica, over all its nodes."""
    min_replicas: int = attrs.field(default=1, validator=config_number(whole=True, least=0))
    max_replicas: int | None = attrs.field(default=None, validator=_COUNT_OR_NONE)
    max_num_batched_tokens: int | None = attrs.field(default=None, validator=_POSITIVE_OR_NONE)
    """Most tokens in one forward pass; longer prompts are computed in chunks of it."""
    max_num_seqs: int | None = attrs.field(default=None, validator=_POSITIVE_OR_NONE)
    """Most requests in one forward pass."""
    context_length: int | None = attrs.field(default=None, validator=_POSITIVE_OR_NONE)
    max_kv_tokens: int | None = attrs.field(default=None, validator=_POSITIVE_OR_NONE)
    """Tokens that the KV cache of one engine holds."""
    startup_s: float = attrs.field(default=120.0, validator=config_number(least=0))
    """How long a start takes, until the planner has seen some."""
    cost_per_hour: float | None = attrs.field(default=None, validator=config_number(least=0, optional=True))
    """Price of one replica; ``None``: its GPUs stand for it."""

    def __attrs_post_init__(self) -> None:
        if self.max_replicas is not None and self.max_replicas < self.min_replicas:
            raise ConfigError(
                f"EngineSpec.min_replicas = {self.min_replicas!r} is above "
                f"EngineSpec.max_replicas = {self.max_replicas!r}: lower one"
            )


NEARLY_ALL = 0.99
"""Share of the requests that fleets are sized for where none is given. A mean is no promise: half of the requests may
miss it."""


@attrs.frozen(kw_only=True)
class SlaTargets:
    """What users are promised."""

    ttft_ms: float = attrs.field(default=500.0, validator=config_number(above=0))
    itl_ms: float = attrs.field(default=50.0, validator=config_number(above=0))
    quantile: float | None = attrs.field(
        default=None, validator=config_number(above=0, most=0.9999, optional=True)
    )
    """Share of the requests that must meet the targets, such as 0.95; ``None``: nearly all, 0.99."""

    @property
    def share(self) -> float:
        """The share of the requests that fleets are sized for."""
        return NEARLY_ALL if self.quantile is None else self.quantile


@attrs.frozen(kw_only=True)
class QueueThresholds:
    """The user's own thresholds, for the target ``load``; per engine."""

    prefill_scale_up_queue_tokens: float = attrs.field(validator=config_number(above=0))
    prefill_scale_down_queue_tokens: float = attrs.field(validator=config_number(least=0))
    decode_scale_up_kv_rate: float = attrs.field(validator=config_number(above=0))
    decode_scale_down_kv_rate: float = attrs.field(validator=config_number(least=0))

    def __attrs_post_init__(self) -> None:
        pairs = (
            ("prefill_scale_down_queue_tokens", "prefill_scale_up_queue_tokens"),
            ("decode_scale_down_kv_rate", "decode_scale_up_kv_rate"),
        )
        problems = [
            f"QueueThresholds.{down} = {getattr(self, down)!r} must be below "
            f"QueueThresholds.{up} = {getattr(self, up)!r}, else the fleet grows and shrinks at once"
            for down, up in pairs
            if getattr(self, down) >= getattr(self, up)
        ]
        if problems:
            raise ConfigError(problems)


def _ensemble() -> Predictor[Any]:
    from planner_core.predictors import Ensemble  # here, so that only those who forecast load it

    return Ensemble()


@attrs.frozen(kw_only=True)
class ThroughputScaling:
    """The slow, predictive loop: a forecast sets a floor under each role."""

    interval_s: float = attrs.field(default=180.0, validator=config_number(above=0))
    predictor: Predictor[Any] = attrs.field(
        factory=_ensemble, validator=object_with("init", "observe", "forecast")
    )
    """Forecasts request rate, ISL and OSL, each with a state of its own."""
    max_step_replicas: int = attrs.field(default=8, validator=config_number(whole=True, least=1))
    """Largest change of a role's floor in one decision."""
    quantile: float = attrs.field(default=0.8, validator=config_number(least=0.5, most=0.999))
    """Quantile of the forecast rate that the floor is planned for; 0.5 is the mean."""
    z: float = attrs.field(init=False, eq=False, repr=False)
    """The quantile in standard deviations of the normal distribution."""

    def __attrs_post_init__(self) -> None:
        from statistics import NormalDist

        object.__setattr__(self, "z", NormalDist().inv_cdf(self.quantile))


@attrs.frozen(kw_only=True)
class LoadScaling:
    """The fast, reactive loop: engine telemetry against the SLA or thresholds."""

    interval_s: float = attrs.field(default=5.0, validator=config_number(above=0))
    down_sensitivity: float = attrs.field(default=80.0, validator=config_number(least=0, most=100))
    """Percent of the SLA that a smaller fleet must keep; 0 = never scale down."""
    step: Literal["sized", "unit"] = attrs.field(default="sized", validator=one_of(("sized", "unit")))
    """As many replicas as the load needs, or one per decision."""
    metric_samples: int = attrs.field(default=10, validator=config_number(whole=True, least=1))
    """Passes of an engine, the latest ones, over which the mix of prefill and decode is averaged."""
    drain_s: float = attrs.field(default=30.0, validator=config_number(above=0))
    """Time in which a backlog is to be worked off once new replicas are ready."""
    stabilisation_s: float = attrs.field(default=60.0, validator=config_number(least=0))
    """A role shrinks only to what sufficed during all of this time."""
    idle_s: float = attrs.field(default=300.0, validator=config_number(least=0))
    """The last replica goes, where the minimum is 0, after this time without any work."""
    patience_s: float = attrs.field(default=600.0, validator=config_number(above=0))
    """How long to wait for replicas that don't come up and engines that don't report."""


@attrs.frozen(kw_only=True)
class Limits:
    """What no decision leaves. ``None``: no limit."""

    max_gpus: int | None = attrs.field(default=8, validator=_COUNT_OR_NONE)
    """GPU budget over all roles."""
    min_gpus: int | None = attrs.field(default=None, validator=_COUNT_OR_NONE)
    """GPUs that stay in use whatever the load."""
    max_up_replicas: int | None = attrs.field(default=None, validator=_POSITIVE_OR_NONE)
    """Largest growth of a role in one decision."""
    max_down_replicas: int | None = attrs.field(default=None, validator=_POSITIVE_OR_NONE)
    """Largest shrinkage of a role in one decision."""

    def __attrs_post_init__(self) -> None:
        if self.max_gpus is not None and self.min_gpus is not None and self.min_gpus > self.max_gpus:
            raise ConfigError(
                f"Limits.min_gpus = {self.min_gpus!r} is above Limits.max_gpus = {self.max_gpus!r}: lower one"
            )


@attrs.frozen(kw_only=True)
class ShellSettings:
    """What only the shells around the core read; carried here so that one file configures everything."""

    namespace: str | None = attrs.field(default=None, validator=text(optional=True))
    environment: Literal["kubernetes", "virtual", "global-planner"] = attrs.field(
        default="kubernetes", validator=one_of(("kubernetes", "virtual", "global-planner"))
    )
    backend: Literal["vllm", "sglang", "trtllm", "mocker"] = attrs.field(
        default="vllm", validator=one_of(("vllm", "sglang", "trtllm", "mocker"))
    )
    advisory: bool = attrs.field(default=False, validator=flag())
    """Decide and report, change nothing."""
    throughput_metrics_source: Literal["frontend", "router"] = attrs.field(
        default="frontend", validator=one_of(("frontend", "router"))
    )
    profile_results_dir: str = attrs.field(default="profiling_results", validator=text())
    pre_deployment_sweeping_mode: Literal["rapid", "thorough", "none"] = attrs.field(
        default="rapid", validator=one_of(("rapid", "thorough", "none"))
    )
    gpu_type: str | None = attrs.field(default=None, validator=text(optional=True))
    model_parameters_billions: float | None = attrs.field(
        default=None, validator=config_number(above=0, optional=True)
    )
    model_weight_bits: float | None = attrs.field(
        default=None, validator=config_number(above=0, most=64, optional=True)
    )
    load_predictor_warmup_trace: str | None = attrs.field(default=None, validator=text(optional=True))
    prometheus_endpoint: str | None = attrs.field(default=None, validator=text(optional=True))
    planner_prometheus_port: int | None = attrs.field(
        default=None, validator=config_number(whole=True, least=0, most=65535, optional=True)
    )
    report_interval_hours: float | None = attrs.field(
        default=24.0, validator=config_number(above=0, optional=True)
    )
    report_output_dir: str = attrs.field(default="./planner_reports", validator=text())
    live_dashboard_port: int = attrs.field(
        default=8080, validator=config_number(whole=True, least=0, most=65535)
    )
    global_planner_namespace: str | None = attrs.field(default=None, validator=text(optional=True))
    model_name: str | None = attrs.field(default=None, validator=text(optional=True))
    log_dir: str | None = attrs.field(default=None, validator=text(optional=True))

    def __attrs_post_init__(self) -> None:
        if self.environment == "global-planner" and not self.global_planner_namespace:
            raise ConfigError(
                "ShellSettings.environment = 'global-planner' needs ShellSettings.global_planner_namespace"
            )
