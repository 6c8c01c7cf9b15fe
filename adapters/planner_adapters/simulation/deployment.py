"""Settings and an engine to a deployment: what is simulated, and what the planner is told of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import attrs

from planner_adapters.config_file import Settings
from planner_adapters.dynamo.profiles import load_profile
from planner_adapters.prior import with_prior
from planner_adapters.simulation.model import EngineModel
from planner_adapters.simulation.pool import PoolSpec
from planner_adapters.simulation.presets import PRESETS
from planner_core import ConfigError, EngineSpec, PlannerConfig, Role
from planner_core.perf import Profiled

DEFAULT_ENGINE = "llama-3.1-8b-fp8-h200"
"""An 8B model on one GPU, measured: the default budget of 8 GPUs holds eight of them."""
ASSUMED_KV_TOKENS = 500_000
"""For a profile that doesn't say: an 8B model in BF16 on 80 GB."""

_CAPACITIES = ("num_gpus", "max_kv_tokens", "max_num_batched_tokens", "max_num_seqs", "context_length")
"""What an engine model and the planner's :class:`~planner_core.EngineSpec` both know."""


@attrs.frozen(kw_only=True)
class Deployment:
    """A simulated deployment and the configuration of its planner; they agree in every capacity."""

    config: PlannerConfig
    roles: Mapping[Role, PoolSpec]
    engine: str
    """Its name."""


@attrs.frozen
class NamedEngine:
    """An engine model and where it comes from."""

    name: str
    model: EngineModel
    profile: Profiled | None = None
    """Where the model comes from one; the planner is told of it too."""


def engine_of(*, profile: str | Path | None = None, name: str | None = None) -> NamedEngine:
    """The engine of a profile, or a built-in one. ``ProfileError`` if the profile can't be used."""
    if profile is None:
        name = name or DEFAULT_ENGINE
        return NamedEngine(name, PRESETS[name])
    measured = load_profile(profile)
    unknown = {} if measured.max_kv_tokens else {"max_kv_tokens": ASSUMED_KV_TOKENS}
    return NamedEngine(Path(profile).stem, EngineModel.from_profile(measured, **unknown), measured)


def plan_deployment(
    settings: Settings,
    engine: NamedEngine,
    *,
    startup_s: float | None = None,
    replicas: int | Mapping[Role, int] | None = None,
) -> Deployment:
    """What to simulate, and the configuration for it.

    Capacities that the settings name in ``engines`` are those of the simulated engine too; the planner is
    told the others. ``startup_s`` is how long a start really takes (by default what the settings, else the
    planner, expect); ``replicas`` run at the start, by default the minimum, but at least one. A profile is the
    planner's prior too, unless ``pre_deployment_sweeping_mode`` is ``none``.
    :class:`~planner_core.ConfigError` has every problem.
    """
    if startup_s is not None and not 0 <= startup_s < float("inf"):
        raise ConfigError(f"startup_s = {startup_s:g}: must be a finite number of at least 0")
    said = settings.config()
    counts = _counts(said, replicas)
    told: dict[str, object] = {}
    models = {}
    for role, spec in said.engines.items():
        known = {field: getattr(spec, field) for field in _CAPACITIES if _names(settings, role, field)}
        models[role] = model = attrs.evolve(engine.model, **known)
        # A model without a context length of its own takes what its memory holds.
        has = {field: getattr(model, field) or model.longest_request_tokens for field in _CAPACITIES}
        if startup_s is not None:
            has["startup_s"] = startup_s
        told |= {f"engines.{role}.{field}": has[field] for field in has if not _names(settings, role, field)}
    config = with_prior(settings.over(Settings(values=told)).config(), engine.profile)
    pools = {
        role: PoolSpec(
            engine=models[role],
            replicas=counts[role],
            startup_s=spec.startup_s if startup_s is None else startup_s,
        )
        for role, spec in config.engines.items()
    }
    return Deployment(config=config, roles=pools, engine=engine.name)


def _names(settings: Settings, role: Role, field: str) -> bool:
    """Whether the settings name this field of the role's engine; a key of either role is one of agg."""
    roles = tuple(Role) if role is Role.AGG else (role,)
    return any(f"engines.{r}.{field}" in settings for r in roles)


def _counts(config: PlannerConfig, replicas: int | Mapping[Role, int] | None) -> dict[Role, int]:
    specs: dict[Role, EngineSpec] = config.engines
    given = dict.fromkeys(specs, replicas) if isinstance(replicas, int) else dict(replicas or {})
    strangers = [role for role in given if role not in specs]
    if strangers:
        raise ConfigError(
            f"replicas of {', '.join(strangers)}: mode = {config.mode!r} has {' and '.join(specs)} alone"
        )
    return {role: given.get(role, max(1, spec.min_replicas)) for role, spec in specs.items()}
