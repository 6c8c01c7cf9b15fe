"""Every key of a configuration file or command line: the one table behind parsing, docs and schema."""

from __future__ import annotations

from typing import Any

import attrs

from planner_core.config.planner import PlannerConfig
from planner_core.config.sections import (
    EngineSpec,
    Limits,
    LoadScaling,
    QueueThresholds,
    ShellSettings,
    SlaTargets,
    ThroughputScaling,
)
from planner_core.data.checks import Check, config_number, flag, one_of
from planner_core.data.roles import ROLES_OF_MODE, Role
from planner_core.perf import Linear
from planner_core.predictors import BY_NAME

SECTIONS: dict[str, type[Any]] = {
    "": PlannerConfig,
    "sla": SlaTargets,
    "thresholds": QueueThresholds,
    "throughput": ThroughputScaling,
    "load": LoadScaling,
    "limits": Limits,
    "perf": Linear,
    "shell": ShellSettings,
    **{f"engines.{role}": EngineSpec for role in Role},
    "engines.*": EngineSpec,
}
"""The class behind each section of a place."""


@attrs.frozen
class Key:
    """One key of a configuration file: its names, what it may hold and where that goes."""

    name: str
    """Canonical: with ``_``, and the unit at the end."""
    place: str
    """Where it goes in a :class:`~planner_core.PlannerConfig`, such as ``limits.max_gpus``."""
    meaning: str
    aliases: tuple[str, ...] = attrs.field(default=(), kw_only=True)
    check: Check = attrs.field(kw_only=True)
    """What it may hold, in words, kind and bounds."""
    default: Any = attrs.field(kw_only=True)
    """As a file would give it; ``None``: unset."""


_OF_THE_FIELD: Any = attrs.NOTHING


def _key(
    name: str,
    place: str,
    meaning: str,
    *,
    aliases: tuple[str, ...] = (),
    check: Check = _OF_THE_FIELD,
    default: Any = _OF_THE_FIELD,
) -> Key:
    """A key; check and default are those of the field where it goes, unless given."""
    section, _, field = place.rpartition(".")
    if check is _OF_THE_FIELD:
        validator = attrs.fields_dict(SECTIONS[section])[field].validator
        assert isinstance(validator, Check)  # the sections are ours
        check = validator
    if default is _OF_THE_FIELD:
        default = attrs.fields_dict(SECTIONS[section])[field].default
        default = None if default is attrs.NOTHING else default
    return Key(name, place, meaning, aliases=aliases, check=check, default=default)


_GPU_BUDGET = config_number(whole=True, optional=True)
_NOISE = config_number(above=0, optional=True)

KEYS: tuple[Key, ...] = (
    # What is deployed, and what it promises
    _key(
        "mode",
        "engines",
        "The roles of the deployment: prefill and decode engines, one of them alone, or aggregated ones.",
        check=one_of(tuple(ROLES_OF_MODE)),
        default="disagg",
    ),
    _key("backend", "shell.backend", "The inference engine."),
    _key("model_name", "shell.model_name", "The model that is served; unset: the shell finds it."),
    _key(
        "optimization_target",
        "target",
        "What decides: thresholds on queue and KV use (`throughput`, `latency`; yours: `load`) or the SLA.",
    ),
    _key("ttft_ms", "sla.ttft_ms", "Promised time to first token; for `sla`.", aliases=("ttft",)),
    _key("itl_ms", "sla.itl_ms", "Promised inter-token latency; for `sla`.", aliases=("itl",)),
    _key("sla_quantile", "sla.quantile", "Share of requests that must meet the SLA; unset: 0.99."),
    _key(
        "prefill_scale_up_queue_tokens",
        "thresholds.prefill_scale_up_queue_tokens",
        "Target `load`: prefill grows from this many queued prompt tokens per engine.",
    ),
    _key(
        "prefill_scale_down_queue_tokens",
        "thresholds.prefill_scale_down_queue_tokens",
        "Target `load`: prefill shrinks below this many queued prompt tokens per engine.",
    ),
    _key(
        "decode_scale_up_kv_rate",
        "thresholds.decode_scale_up_kv_rate",
        "Target `load`: decode grows above this share of an engine's KV cache, running and queued.",
    ),
    _key(
        "decode_scale_down_kv_rate",
        "thresholds.decode_scale_down_kv_rate",
        "Target `load`: decode shrinks below this share of an engine's KV cache.",
    ),
    # Limits
    _key(
        "max_gpu_budget",
        "limits.max_gpus",
        "GPUs that all roles together may use; negative: no limit.",
        check=_GPU_BUDGET,
    ),
    _key(
        "min_gpu_budget",
        "limits.min_gpus",
        "GPUs that stay in use whatever the load; negative: no limit.",
        check=_GPU_BUDGET,
        default=-1,
    ),
    _key(
        "min_endpoint",
        "engines.*.min_replicas",
        "Replicas that each role keeps, whatever the load.",
        aliases=("min_replicas",),
    ),
    _key(
        "prefill_min_endpoint",
        "engines.prefill.min_replicas",
        "`min_endpoint` of prefill alone.",
        default=None,
    ),
    _key("decode_min_endpoint", "engines.decode.min_replicas", "`min_endpoint` of decode.", default=None),
    _key("prefill_engine_num_gpu", "engines.prefill.num_gpus", "GPUs of a prefill replica, all nodes."),
    _key("decode_engine_num_gpu", "engines.decode.num_gpus", "GPUs of a decode replica, all nodes."),
    _key("max_scale_up_replicas", "limits.max_up_replicas", "Largest growth of a role in one decision."),
    _key("max_scale_down_replicas", "limits.max_down_replicas", "Largest cut of a role in one decision."),
    # The slow loop
    _key(
        "enable_throughput_scaling",
        "throughput",
        "The slow, predictive loop; it runs under `sla` only.",
        check=flag(),
        default=True,
    ),
    _key(
        "throughput_adjustment_interval_seconds",
        "throughput.interval_s",
        "Time between its decisions.",
        aliases=("throughput_adjustment_interval", "adjustment_interval"),
    ),
    _key(
        "max_throughput_scaling_replicas",
        "throughput.max_step_replicas",
        "Largest change of a role's floor in one of its decisions.",
    ),
    _key(
        "forecast_quantile",
        "throughput.quantile",
        "Quantile of the forecast rate that the floor is planned for; 0.5 is the mean.",
    ),
    _key("throughput_metrics_source", "shell.throughput_metrics_source", "Where traffic is measured."),
    _key(
        "load_predictor",
        "throughput.predictor",
        "What forecasts the traffic.",
        check=one_of(tuple(BY_NAME)),
        default=next(name for name, cls in BY_NAME.items() if isinstance(ThroughputScaling().predictor, cls)),
    ),
    _key(
        "load_predictor_log1p",
        "predictors.log1p",
        "Forecast log(1 + x) instead of x.",
        check=flag(),
        default=False,
    ),
    _key(
        "load_predictor_warmup_trace",
        "shell.load_predictor_warmup_trace",
        "Past requests to learn from: JSONL of `timestamp` (ms), `input_length`, `output_length`.",
    ),
    _key(
        "prophet_window_size",
        "predictors.prophet.window_size",
        "`prophet`: points that it fits.",
        check=config_number(whole=True, least=2),
        default=50,
    ),
    _key(
        "kalman_q_level",
        "predictors.kalman.q_level",
        "`kalman`: variance of the level's change; 1 if one of the two others is set; all unset: estimated.",
        check=_NOISE,
        default=None,
    ),
    _key(
        "kalman_q_trend",
        "predictors.kalman.q_trend",
        "`kalman`: variance of the trend's change; likewise 0.1, or estimated.",
        check=_NOISE,
        default=None,
    ),
    _key(
        "kalman_r",
        "predictors.kalman.r",
        "`kalman`: variance of the measurement; likewise 10, or estimated.",
        check=_NOISE,
        default=None,
    ),
    _key(
        "kalman_min_points",
        "predictors.kalman.min_points",
        "`kalman`: points before its first forecast.",
        check=config_number(whole=True, least=1),
        default=5,
    ),
    # The fast loop
    _key(
        "enable_load_scaling",
        "load",
        "The fast, reactive loop under `sla`; the other targets always run it.",
        aliases=("enable_loadbased_scaling",),
        check=flag(),
        default=False,
    ),
    _key(
        "load_adjustment_interval_seconds",
        "load.interval_s",
        "Time between its decisions; less than the slow loop's.",
        aliases=("load_adjustment_interval", "loadbased_adjustment_interval"),
    ),
    _key(
        "load_scaling_down_sensitivity",
        "load.down_sensitivity",
        "Percent of the SLA that a smaller fleet must keep; 0: never scale down.",
        aliases=("loadbased_scaling_down_sensitivity",),
    ),
    _key("load_step", "load.step", "`sized`: as many replicas as the load needs; `unit`: one per decision."),
    _key(
        "load_metric_samples",
        "load.metric_samples",
        "Latest passes per engine that are averaged in a decision.",
        aliases=("loadbased_metric_samples",),
    ),
    _key("load_drain_seconds", "load.drain_s", "Time in which new replicas are to work off a backlog."),
    _key(
        "load_stabilisation_seconds",
        "load.stabilisation_s",
        "A role shrinks only to what sufficed during all of this time.",
        aliases=("load_stabilization_seconds",),
    ),
    _key(
        "load_idle_seconds",
        "load.idle_s",
        "The last replica goes, where the minimum is 0, after this time without any work.",
    ),
    _key(
        "load_patience_seconds",
        "load.patience_s",
        "How long to wait for replicas that don't come up and engines that don't report.",
    ),
    # The regression
    _key("max_num_fpm_samples", "perf.max_samples", "Forward passes that a role's regression keeps."),
    _key(
        "fpm_sample_bucket_size",
        "perf.num_buckets",
        "Buckets over the inputs that they are spread over.",
        check=config_number(whole=True, square=True, least=1),
    ),
    _key(
        "load_min_observations",
        "perf.min_observations",
        "Forward passes before the regression is used.",
        aliases=("loadbased_min_observations",),
    ),
    _key(
        "speculative_nextn",
        "speculative_nextn",
        "Tokens drafted ahead: the accept length is taken as 1 to this + 1.",
    ),
    # What the shells read
    _key("namespace", "shell.namespace", "Logical namespace; unset: `$DYN_NAMESPACE`, else `dynamo`."),
    _key("environment", "shell.environment", "Where replicas are scaled."),
    _key(
        "global_planner_namespace",
        "shell.global_planner_namespace",
        "Namespace of the global planner; for the environment `global-planner`.",
    ),
    _key("advisory", "shell.advisory", "Decide and report, change nothing.", aliases=("no_operation",)),
    _key("profile_results_dir", "shell.profile_results_dir", "Folder of measured engine profiles."),
    _key(
        "pre_deployment_sweeping_mode",
        "shell.pre_deployment_sweeping_mode",
        "`rapid`: a modelled prior where no profile is found; `thorough`: a profile must be there; "
        "`none`: live passes alone.",
    ),
    _key(
        "gpu_type",
        "shell.gpu_type",
        "For the modelled prior: the GPU, such as `h100`; unset: there is no modelled prior.",
    ),
    _key(
        "model_parameters_billions",
        "shell.model_parameters_billions",
        "For the modelled prior: the model's size; unset: as in `model_name`, where it says 8B.",
    ),
    _key(
        "model_weight_bits",
        "shell.model_weight_bits",
        "For the modelled prior: bits of a weight; unset: as in `model_name`, where it says FP8, else 16.",
    ),
    _key(
        "prometheus_endpoint",
        "shell.prometheus_endpoint",
        "Address of Prometheus; unset: `$PROMETHEUS_ENDPOINT`, else the in-cluster one.",
        aliases=("metric_pulling_prometheus_endpoint",),
    ),
    _key(
        "planner_prometheus_port",
        "shell.planner_prometheus_port",
        "Port of the planner's own metrics; 0: off; unset: `$PLANNER_PROMETHEUS_PORT`, else 0.",
        aliases=("metric_reporting_prometheus_port",),
    ),
    _key("report_interval_hours", "shell.report_interval_hours", "Tick time between reports; null: off."),
    _key("report_output_dir", "shell.report_output_dir", "Folder of the reports."),
    _key("live_dashboard_port", "shell.live_dashboard_port", "Port of the live dashboard; 0: off."),
    _key("log_dir", "shell.log_dir", "Folder of the logs."),
)
"""The flat keys, by topic."""

_OF_ENGINES = {
    "num_gpus": "GPUs of a replica, over all its nodes.",
    "min_replicas": "Replicas that the role keeps, whatever the load.",
    "max_replicas": "Most replicas of the role.",
    "max_num_batched_tokens": "Most tokens in one forward pass; longer prompts are computed in chunks of it.",
    "max_num_seqs": "Most requests in one forward pass.",
    "context_length": "Longest context of a request, in tokens.",
    "max_kv_tokens": "Tokens that the KV cache of one engine holds.",
    "startup_s": "How long a start takes, until the planner has seen some.",
    "cost_per_hour": "Price of a replica; unset: its GPUs stand for it.",
}
ENGINE_KEYS: tuple[Key, ...] = tuple(
    _key(f"engines.{role}.{field}", f"engines.{role}.{field}", meaning)
    for role in Role
    for field, meaning in _OF_ENGINES.items()
)
"""The keys of the section ``engines``, nested in a file or with dots."""
