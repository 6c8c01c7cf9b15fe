"""Flat keys, as in a YAML file or on a command line, to a configuration and back."""

from __future__ import annotations

import difflib
import re
import reprlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, TypeVar

import attrs

from planner_core.config.keys import ENGINE_KEYS, KEYS, SECTIONS, Key
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
from planner_core.data.errors import ConfigError
from planner_core.data.roles import ROLES_OF_MODE, Role
from planner_core.perf import Linear
from planner_core.predictors import BY_NAME, Log1p

T = TypeVar("T")


@attrs.frozen
class _Given:
    """One key as it was written."""

    spelling: str
    value: Any
    key: Key

    def __str__(self) -> str:
        return f"{self.spelling} = {reprlib.repr(self.value)}"


def config_from_mapping(mapping: Mapping[str, Any]) -> PlannerConfig:
    """The configuration that the keys describe; :class:`ConfigError` with every problem at once."""
    problems: list[str] = []
    given = list(_recognised(mapping, problems))
    bad = [g for g in given if not g.key.check.admits(g.value)]
    problems += [f"{g}: must be {g.key.check.want}" for g in bad]
    mode = next((g.value for g in given if g.key.name == "mode" and g not in bad), "disagg")
    build = _Builder(at=_by_place(given, mode, problems), bad={g.key.name for g in bad}, problems=problems)

    target: Any = build.value("target", "throughput")
    thresholds = _thresholds(build, needed=target == "load")
    if target == "load" and thresholds is None:
        target = "throughput"  # stands in, so that the rest can be looked at
    engines = {role: build.section(f"engines.{role}", EngineSpec) for role in ROLES_OF_MODE[mode]}
    limits = build.section("limits", Limits)
    throughput_is_on = build.value("throughput", True)
    load_is_on = target != "sla" or build.value("load", False)
    config = build.attempt(
        lambda: PlannerConfig(
            engines=engines,
            target=target,
            sla=build.section("sla", SlaTargets),
            thresholds=thresholds,
            throughput=_throughput(build) if throughput_is_on else None,
            load=build.section("load", LoadScaling) if load_is_on else None,
            limits=limits,
            perf=build.section("perf", Linear),
            speculative_nextn=build.value("speculative_nextn", None),
            shell=build.section("shell", ShellSettings),
        )
    )
    build.attempt(lambda: _check_that_the_minimums_fit(engines, limits))
    if problems or config is None:
        raise ConfigError(problems)
    return config


# --- from what was written to known keys

_BY_SPELLING = {spelling: key for key in (*KEYS, *ENGINE_KEYS) for spelling in (key.name, *key.aliases)}


def _recognised(mapping: Any, problems: list[str]) -> Iterator[_Given]:
    """The keys that exist, in the order of the file; the others are problems."""
    if not isinstance(mapping, Mapping):
        problems.append(f"the configuration is {reprlib.repr(mapping)}: must be a mapping of keys to values")
        return
    for spelling, value in _flat(mapping, problems):
        normal = spelling.removeprefix("--").replace("-", "_")
        if normal in _BY_SPELLING:
            yield _Given(spelling, value, _BY_SPELLING[normal])
            continue
        near = difflib.get_close_matches(normal, _BY_SPELLING, n=1, cutoff=0.85 if "." in normal else 0.6)
        hint = f"; did you mean {near[0]}?" if near else ""
        problems.append(f"{_shown(spelling)} = {reprlib.repr(value)}: there is no such key{hint}")


def _shown(spelling: str) -> str:
    """On one line, whatever it holds."""
    return spelling if spelling.isprintable() and spelling else repr(spelling)


def _flat(mapping: Mapping[Any, Any], problems: list[str]) -> Iterator[tuple[str, Any]]:
    """Keys and values, with the section ``features.planner`` unpacked and the section ``engines`` in dots."""
    for spelling, value in mapping.items():
        if not isinstance(spelling, str):
            problems.append(f"{spelling!r} = {reprlib.repr(value)}: keys are text")
        elif spelling == "features":
            planner = value.get("planner") if isinstance(value, Mapping) else None
            if isinstance(planner, Mapping):
                yield from _flat(planner, problems)
            else:
                problems.append(
                    f"features = {reprlib.repr(value)}: must hold a section planner with the keys"
                )
        elif spelling == "engines":
            yield from _dotted(spelling, value, problems, ("roles with their engines", "fields of an engine"))
        else:
            yield spelling, value


def _dotted(path: str, value: Any, problems: list[str], levels: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    if not levels:
        yield path, value
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _dotted(f"{path}.{name}", inner, problems, levels[1:])
    else:
        problems.append(f"{_shown(path)} = {reprlib.repr(value)}: must be a mapping of {levels[0]}")


def _by_place(given: list[_Given], mode: str, problems: list[str]) -> dict[str, _Given]:
    """The keys by where they go. What is said twice must be said alike."""
    roles = ROLES_OF_MODE[mode]
    at: dict[str, _Given] = {}
    for g in given:
        place = g.key.place
        role, _, field = place.removeprefix("engines.").rpartition(".")
        if g.key.name.startswith("engines.") and role not in roles:
            has = " and ".join(roles)
            problems.append(f"{g}: mode = {mode!r} has no {role} engines, only {has}; change one of the two")
            continue
        if mode == "agg" and role in ("prefill", "decode"):
            place = f"engines.agg.{field}"  # an aggregated engine does both: a key of either is a key of it
        first = at.setdefault(place, g)
        if (type(first.value), first.value) != (type(g.value), g.value):
            problems.append(f"{first} and {g}: they mean the same, so they must agree; leave one out")
    if "engines.*.min_replicas" in at:
        for role in roles:
            at.setdefault(f"engines.{role}.min_replicas", at["engines.*.min_replicas"])
    return at


# --- from known keys to sections

_NAME_OF_PLACE = {key.place: key.name for key in (*ENGINE_KEYS, *KEYS)}
_FIELD = re.compile(rf"\b({'|'.join({cls.__name__ for cls in SECTIONS.values()})})\.(\w+)( = [^\s,:;]+)?")
"""A field in a section's own message, such as ``Limits.max_gpus = 8``."""


@attrs.frozen(kw_only=True)
class _Builder:
    """Builds sections from what was given, and tells their problems in the words of the file."""

    at: dict[str, _Given]
    bad: set[str]
    """Names of keys whose value is a problem already; defaults stand in while the rest is looked at."""
    problems: list[str]

    def value(self, place: str, default: T) -> T:
        """What was given for a place."""
        return (
            self.at[place].value if place in self.at and self.at[place].key.name not in self.bad else default
        )

    def fields(self, section: str) -> dict[str, Any]:
        """What was given for the fields of a section."""
        return {
            place.removeprefix(f"{section}."): given.value
            for place, given in self.at.items()
            if place.startswith(f"{section}.") and given.key.name not in self.bad
        }

    def section(self, section: str, cls: Callable[..., T]) -> T:
        """The section with what was given; with nothing if that can't be built."""
        fields = self.fields(section)
        if section == "limits":
            fields = {
                name: None if value is not None and value < 0 else value for name, value in fields.items()
            }
        return self.attempt(lambda: cls(**fields), section) or cls()

    def attempt(self, build: Callable[[], T], section: str = "") -> T | None:
        """What ``build`` gives; ``None`` if it has problems: noted, unless they follow from others."""
        try:
            return build()
        except ConfigError as error:
            for problem in error.problems:
                places = [self.place(cls, field, section) for cls, field, _ in _FIELD.findall(problem)]
                if not any(place in self.at and self.at[place].key.name in self.bad for place in places):
                    words = partial(self.in_words_of_the_file, section=section)
                    self.problems.append(_FIELD.sub(words, problem))
            return None

    def place(self, cls: str, field: str, section: str) -> str:
        """Where a field that a message names goes; ``section`` is where the message comes from."""
        sections = [section, *SECTIONS]
        return next(f"{s}.{field}".removeprefix(".") for s in sections if SECTIONS[s].__name__ == cls)

    def in_words_of_the_file(self, match: re.Match[str], section: str = "") -> str:
        """The key for a field that a message names, as it was written."""
        cls, field, value = match.groups(default="")
        place = self.place(cls, field, section)
        if place in self.at:
            return self.at[place].spelling + value
        return _NAME_OF_PLACE.get(place, place) + (f"{value} (the default)" if value else "")


def _thresholds(build: _Builder, *, needed: bool) -> QueueThresholds | None:
    """The user's thresholds if all are there; targets that don't need them don't look at them."""
    missing = [name for name in attrs.fields_dict(QueueThresholds) if f"thresholds.{name}" not in build.at]
    fields = build.fields("thresholds")
    if missing and needed:
        build.problems.append(f"{build.at['target']} needs {', '.join(missing)}")
    if len(fields) < len(attrs.fields(QueueThresholds)):
        return None
    return build.attempt(lambda: QueueThresholds(**fields))


def _throughput(build: _Builder) -> ThroughputScaling:
    fields = build.fields("throughput")
    if "predictor" in fields:
        name = fields["predictor"]
        fields["predictor"] = BY_NAME[name](**build.fields(f"predictors.{name}"))
    if build.value("predictors.log1p", False):
        fields["predictor"] = Log1p(fields.get("predictor") or ThroughputScaling().predictor)
    return build.attempt(lambda: ThroughputScaling(**fields)) or ThroughputScaling()


def _check_that_the_minimums_fit(engines: dict[Role, EngineSpec], limits: Limits) -> None:
    """Of files alone: a program may well grant a budget for a while that the minimums don't fit into."""
    least = sum(spec.min_replicas * spec.num_gpus for spec in engines.values())
    if limits.max_gpus is not None and least > limits.max_gpus:
        parts = " + ".join(f"{spec.min_replicas} {role} × {spec.num_gpus}" for role, spec in engines.items())
        raise ConfigError(
            f"the minimums need {least} GPUs ({parts}), Limits.max_gpus = {limits.max_gpus}: "
            "raise the budget or lower the minimums"
        )


# --- and back


def config_to_mapping(config: PlannerConfig) -> dict[str, Any]:
    """The canonical keys that say this configuration; :class:`ConfigError` if none can."""
    predictor: Any = config.throughput and config.throughput.predictor
    on_logarithms = isinstance(predictor, Log1p)
    predictor = predictor.predictor if on_logarithms else predictor
    name = next((name for name, cls in BY_NAME.items() if type(predictor) is cls), None)
    mapping: dict[str, Any] = {"mode": config.mode}
    for key in KEYS:
        section, _, field = key.place.rpartition(".")
        if key.place in ("throughput", "load"):
            mapping[key.name] = getattr(config, key.place) is not None
        elif key.place == "throughput.predictor":
            mapping[key.name] = name
        elif key.place == "predictors.log1p":
            mapping[key.name] = on_logarithms
        elif section.startswith("predictors."):
            if section == f"predictors.{name}":
                mapping[key.name] = getattr(predictor, field)
        elif section in SECTIONS and not section.startswith("engines"):
            owner = getattr(config, section) if section else config
            if hasattr(owner, field) and key.name != "mode":
                mapping[key.name] = getattr(owner, field)
    for budget in ("max_gpu_budget", "min_gpu_budget"):
        mapping[budget] = -1 if mapping[budget] is None else mapping[budget]
    mapping["engines"] = {str(role): attrs.asdict(spec) for role, spec in config.engines.items()}
    if name is None:
        del mapping["load_predictor"]
    said = config_from_mapping(mapping)
    lost = [
        f.name
        for f in attrs.fields(PlannerConfig)
        if f.eq and getattr(said, f.name) != getattr(config, f.name)
    ]
    if lost:
        raise ConfigError(
            f"PlannerConfig.{part} = {getattr(config, part)!r}: no keys say this" for part in lost
        )
    return mapping
