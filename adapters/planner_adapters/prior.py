"""What the planner may believe of an engine before it has seen it run: a profile, else what its data sheet says."""

from __future__ import annotations

import re

import attrs

from planner_adapters.dynamo.profiles import NoProfileError, load_profile
from planner_core import ConfigError, PlannerConfig
from planner_core.config import EngineSpec, ShellSettings
from planner_core.perf import Blended, Linear, Prior, Profiled, Roofline

_SIZE = re.compile(r"(?<![A-Za-z0-9.])(\d+(?:\.\d+)?)B(?![A-Za-z])", re.IGNORECASE)
_ACTIVE = re.compile(r"(?<![A-Za-z0-9])A(\d+(?:\.\d+)?)B(?![A-Za-z])", re.IGNORECASE)
_BITS = {8.0: ("fp8", "int8", "w8a8", "-8bit"), 4.0: ("fp4", "int4", "awq", "gptq", "w4a16", "-4bit")}
"""How names of models tell the bits of their weights."""


def with_prior(config: PlannerConfig, profile: Profiled | None = None) -> PlannerConfig:
    """The same configuration, with performance models that begin from a prior, by ``pre_deployment_sweeping_mode``.

    ``profile`` is the engine's, if the caller has one; else the one in ``profile_results_dir``, if there is one. It
    also tells ``max_kv_tokens``, where the configuration doesn't. ``thorough`` without a profile is a
    :class:`~planner_core.ConfigError` under the target ``sla``; ``rapid`` makes do with what ``gpu_type`` and the size
    of the model tell, if they are known; ``none`` leaves everything to live passes. A performance model of the user's
    own stays.
    """
    shell = config.shell
    if shell.pre_deployment_sweeping_mode == "none" or not isinstance(config.perf, Linear):
        return config
    profile = profile or _found(config)
    if profile is None:
        models = {role: _modelled(shell, spec) for role, spec in config.engines.items()}
        if None in models.values():
            return config
        return attrs.evolve(config, perf={role: _blended(config.perf, p) for role, p in models.items() if p})
    engines = {
        role: spec if spec.max_kv_tokens else attrs.evolve(spec, max_kv_tokens=profile.max_kv_tokens)
        for role, spec in config.engines.items()
    }
    return attrs.evolve(config, engines=engines, perf=_blended(config.perf, profile))


def _blended(live: Linear, prior: Prior) -> Blended:
    return Blended(prior=prior, max_samples=live.max_samples, num_buckets=live.num_buckets)


def _found(config: PlannerConfig) -> Profiled | None:
    """The profile of ``profile_results_dir``; one that is there and broken is an error in every mode."""
    shell = config.shell
    try:
        return load_profile(shell.profile_results_dir)
    except NoProfileError as error:
        if shell.pre_deployment_sweeping_mode == "thorough" and config.target == "sla":
            raise ConfigError(
                f"pre_deployment_sweeping_mode = 'thorough' needs a profile in profile_results_dir: {error}"
            ) from None
        return None


def _modelled(shell: ShellSettings, spec: EngineSpec) -> Roofline | None:
    """What the data sheet says, if GPU and size are known. ``ConfigError`` for a GPU that nobody knows."""
    name = shell.model_name or ""
    size, active = _SIZE.search(name), _ACTIVE.search(name)
    billions = shell.model_parameters_billions or (float(size[1]) if size else None)
    if shell.gpu_type is None or billions is None:
        return None
    told = (bits for bits, words in _BITS.items() if any(word in name.lower() for word in words))
    bits = shell.model_weight_bits or next(told, 16.0)
    return Roofline.of(
        gpu=shell.gpu_type,
        num_gpus=spec.num_gpus,
        num_parameters=billions * 1e9,
        active_parameters=float(active[1]) * 1e9 if active else None,
        bytes_per_parameter=bits / 8,
    )
