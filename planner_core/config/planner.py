"""The whole configuration, and what its parts must agree on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import attrs

from planner_core.config.sections import (
    EngineSpec,
    Limits,
    LoadScaling,
    QueueThresholds,
    ShellSettings,
    SlaTargets,
    ThroughputScaling,
)
from planner_core.data.checks import config_number, instance_of, object_with, one_of
from planner_core.data.errors import ConfigError
from planner_core.data.roles import ROLES_OF_MODE, Role
from planner_core.perf import Linear, PerfModel

Target: TypeAlias = Literal["throughput", "latency", "load", "sla"]


def _by_role(values: Any) -> Any:
    """By role, in the order of the enum, so that equal configurations compare equal and run alike."""
    if not isinstance(values, Mapping):
        return values
    unknown = [role for role in values if role not in set(Role)]
    if unknown:
        raise ConfigError([f"{role!r} is no role: must be one of {', '.join(Role)}" for role in unknown])
    return {role: values[role] for role in Role if role in values}


def _are_specs(instance: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    if not isinstance(value, dict):
        raise ConfigError(f"PlannerConfig.engines = {value!r}: must be a mapping of roles to EngineSpec")
    check = instance_of(EngineSpec)
    for role, spec in value.items():
        if not check.accepts(spec):
            raise ConfigError(f"PlannerConfig.engines[{role!s}] = {spec!r}: must be {check.want}")


def _are_models(instance: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    check = object_with("init", "observe", "iteration_s")
    for model in value.values() if isinstance(value, dict) else (value,):
        check(instance, attribute, model)


@attrs.frozen(kw_only=True)
class PlannerConfig:
    """Everything that a tick is told about its deployment.

    With a target other than ``sla`` the load loop runs and the throughput loop doesn't, whatever is set here,
    and ``sla`` is ignored: :attr:`load_loop` and :attr:`throughput_loop` say what is in force.
    """

    engines: dict[Role, EngineSpec] = attrs.field(converter=_by_role, validator=_are_specs)
    """The roles of the deployment and their engines: disagg is prefill and decode, agg is agg alone."""
    target: Target = attrs.field(
        default="throughput", validator=one_of(("throughput", "latency", "load", "sla"))
    )
    sla: SlaTargets = attrs.field(factory=SlaTargets, validator=instance_of(SlaTargets))
    thresholds: QueueThresholds | None = attrs.field(
        default=None, validator=instance_of(QueueThresholds, optional=True)
    )
    """For the target ``load``."""
    throughput: ThroughputScaling | None = attrs.field(
        factory=ThroughputScaling, validator=instance_of(ThroughputScaling, optional=True)
    )
    load: LoadScaling | None = attrs.field(
        factory=LoadScaling, validator=instance_of(LoadScaling, optional=True)
    )
    limits: Limits = attrs.field(factory=Limits, validator=instance_of(Limits))
    perf: PerfModel[Any] | Mapping[Role, PerfModel[Any]] = attrs.field(
        factory=Linear, converter=_by_role, validator=_are_models
    )
    """How long passes take: one model for every role (each role's state is its own), or one per role."""
    speculative_nextn: int | None = attrs.field(
        default=None, validator=config_number(whole=True, least=1, optional=True)
    )
    """Tokens drafted ahead: the accept length is taken as 1 to this + 1."""
    shell: ShellSettings = attrs.field(factory=ShellSettings, validator=instance_of(ShellSettings))

    mode: str = attrs.field(init=False, eq=False, repr=False)
    """The name of the set of roles: ``disagg``, ``prefill``, ``decode`` or ``agg``."""

    def __attrs_post_init__(self) -> None:
        roles = tuple(self.engines)
        modes = [mode for mode, roles_of_mode in ROLES_OF_MODE.items() if roles_of_mode == roles]
        if not modes:
            raise ConfigError(
                f"PlannerConfig.engines has the roles {', '.join(roles) or 'none'}: must be "
                "prefill and decode, prefill, decode, or agg"
            )
        object.__setattr__(self, "mode", modes[0])
        problems = []
        load, throughput = self.load_loop, self.throughput_loop
        if load is None and throughput is None:
            problems.append(
                "PlannerConfig.target = 'sla' needs a loop: "
                "PlannerConfig.load, PlannerConfig.throughput or both"
            )
        if load is not None and throughput is not None and load.interval_s >= throughput.interval_s:
            problems.append(
                f"LoadScaling.interval_s = {load.interval_s:g} must be below "
                f"ThroughputScaling.interval_s = {throughput.interval_s:g}"
            )
        if self.target == "load" and self.thresholds is None:
            problems.append("PlannerConfig.target = 'load' needs PlannerConfig.thresholds")
        if isinstance(self.perf, Mapping):
            problems += [
                f"PlannerConfig.perf has no model for the role {role}"
                for role in roles
                if role not in self.perf
            ]
        if problems:
            raise ConfigError(problems)

    @property
    def load_loop(self) -> LoadScaling | None:
        """The load loop in force; ``None`` where it is off."""
        return self.load if self.target == "sla" else self.load or _DEFAULT_LOAD

    @property
    def throughput_loop(self) -> ThroughputScaling | None:
        """The throughput loop in force; ``None`` where it is off."""
        return self.throughput if self.target == "sla" else None

    def perf_model(self, role: Role) -> PerfModel[Any]:
        """The performance model of a role."""
        return self.perf[role] if isinstance(self.perf, Mapping) else self.perf

    def effective(self) -> PlannerConfig:
        """The same configuration with the loops that are in force under its target."""
        return attrs.evolve(self, load=self.load_loop, throughput=self.throughput_loop)

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> PlannerConfig:
        """The configuration that flat keys describe, as in a YAML file or on a command line.

        Takes every key of :data:`~planner_core.config.KEYS` in every spelling (``-`` or ``_``, with or
        without ``--``), at the top or under ``features.planner``, and a section ``engines`` with the fields
        of :class:`EngineSpec` per role. :class:`ConfigError` holds every problem at once, one line each, with
        the nearest valid key for an unknown one.
        """
        from planner_core.config.mapping import config_from_mapping

        return config_from_mapping(mapping)

    def to_mapping(self) -> dict[str, Any]:
        """The flat keys, by their canonical names, that :meth:`from_mapping` turns into an equal one.

        :class:`ConfigError` names what no key can say, such as a predictor of the user's own.
        """
        from planner_core.config.mapping import config_to_mapping

        return config_to_mapping(self)


_DEFAULT_LOAD = LoadScaling()
