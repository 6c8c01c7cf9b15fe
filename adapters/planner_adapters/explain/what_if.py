"""The same tick under another configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from planner_adapters.config_file import Settings, read_settings
from planner_core import ConfigError, PlannerConfig, ThroughputScaling, TickInput


def with_config(inputs: TickInput, changes: Mapping[str, Any]) -> TickInput:
    """The tick with these keys changed, in any spelling; what had been learned until then stays as it was.

    :class:`~planner_core.ConfigError` for keys that don't exist or don't fit, and for those under which something
    else would have been learned: roles and predictors.
    """
    config = inputs.config
    asked = read_settings(flags=changes, environ={})
    as_keys = read_settings(flags=_unless_for_all(config.to_mapping(), asked), environ={})
    if asked.get("engines", config.mode) != config.mode:
        raise ConfigError("mode: another one has other roles, of which the journal knows nothing")
    new = asked.over(as_keys).config()
    throughput = _same_predictor(config, as_keys.config(), new)
    return attrs.evolve(inputs, config=attrs.evolve(new, perf=config.perf, throughput=throughput))


def _unless_for_all(mapping: Mapping[str, Any], asked: Settings) -> dict[str, Any]:
    """The keys as they were, without those of single roles that are asked for all roles at once."""
    engines = {
        role: {field: value for field, value in fields.items() if f"engines.*.{field}" not in asked}
        for role, fields in mapping["engines"].items()
    }
    return {**mapping, "engines": engines}


def _same_predictor(
    old: PlannerConfig, as_keys: PlannerConfig, new: PlannerConfig
) -> ThroughputScaling | None:
    """The new slow loop with the old predictor, which may be one that no key describes."""
    if new.throughput is None:
        return None
    if old.throughput is None or as_keys.throughput is None:
        raise ConfigError(
            "enable_throughput_scaling: what a predictor would have learned isn't in the journal"
        )
    if new.throughput.predictor != as_keys.throughput.predictor:
        raise ConfigError("load_predictor: what another one would have learned isn't in the journal")
    return attrs.evolve(new.throughput, predictor=old.throughput.predictor)
