"""Where a configuration comes from: environment variables, a YAML or JSON file, flags; the later ones win.

The core reads none of these. Here they become one mapping of keys, in which every key remembers its origin,
so that a problem names file and line.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs

from planner_core import ConfigError, MissingExtraError, PlannerConfig
from planner_core.config import ENGINE_KEYS, KEYS

ENVIRONMENT = {
    "DYN_NAMESPACE": "namespace",
    "PROMETHEUS_ENDPOINT": "prometheus_endpoint",
    "PLANNER_PROMETHEUS_PORT": "planner_prometheus_port",
}
"""Environment variables and the keys that they set."""

DEFAULT_NAMESPACE = "dynamo"
MAX_FILE_BYTES = 1_000_000

_PLACE = {spelling: key.place for key in (*KEYS, *ENGINE_KEYS) for spelling in (key.name, *key.aliases)}


@attrs.frozen(kw_only=True)
class Settings:
    """Keys as they were written, where each stands, and the file behind them."""

    values: Mapping[str, Any] = attrs.field(factory=dict)
    origins: Mapping[str, str] = attrs.field(factory=dict)
    """Such as ``planner.yaml:12``; a key without one was given by a program or a flag."""
    file: Path | None = None

    def get(self, place: str, default: Any = None) -> Any:
        """What was given for a place of the configuration, such as ``limits.max_gpus``."""
        return next((value for key, value in self.values.items() if _place(key) == place), default)

    def __contains__(self, place: str) -> bool:
        return any(_place(key) == place for key in self.values)

    def over(self, lower: Settings) -> Settings:
        """Both together; where they speak of the same, these win."""
        mine = {_place(key) for key in self.values}
        kept = {key: value for key, value in lower.values.items() if _place(key) not in mine}
        origins = {key: origin for key, origin in lower.origins.items() if key in kept}
        return Settings(
            values={**kept, **self.values}, origins={**origins, **self.origins}, file=self.file or lower.file
        )

    def config(self) -> PlannerConfig:
        """The configuration. :class:`~planner_core.ConfigError` has every problem, each with its origin."""
        try:
            return PlannerConfig.from_mapping(self.values)
        except ConfigError as error:
            raise ConfigError(self._with_origin(problem) for problem in error.problems) from None

    def _with_origin(self, problem: str) -> str:
        named = [
            key for key in self.values if re.search(rf"(?<![\w.-]){re.escape(str(key))}(?![\w.-])", problem)
        ]
        if not named:
            return f"{self.file}: {problem}" if self.file else problem
        first = min(named, key=lambda key: (problem.index(str(key)), -len(str(key))))
        return f"{self.origins[first]}: {problem}" if first in self.origins else problem


def read_settings(
    file: str | Path | None = None,
    flags: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Settings:
    """What environment variables, a file (JSON by its suffix, else YAML) and flags say; the later ones win.

    ``flags`` are keys in any spelling, nested or with dots (``engines.prefill.startup_s``). A file that
    can't be read is a :class:`~planner_core.ConfigError` with file and line.
    """
    settings = _of_environment(environ)
    if file is not None:
        settings = _of_file(Path(file)).over(settings)
    return Settings(values=dict(_flat(flags or {}))).over(settings)


def namespace_of(config: PlannerConfig) -> str:
    """The deployment's logical namespace; ``dynamo`` where it is given none."""
    return config.shell.namespace or DEFAULT_NAMESPACE


def read_value(text: str) -> Any:
    """The value of ``KEY=VALUE``: JSON where it is JSON (``3``, ``true``, ``null``), else the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _place(key: Any) -> str:
    normal = str(key).removeprefix("--").replace("-", "_")
    return _PLACE.get(normal, normal)


def _of_environment(environ: Mapping[str, str]) -> Settings:
    given = {variable: environ[variable] for variable in ENVIRONMENT if environ.get(variable)}
    values: dict[str, Any] = {ENVIRONMENT[variable]: text for variable, text in given.items()}
    port = values.get("planner_prometheus_port", "")
    if port.isdecimal():
        values["planner_prometheus_port"] = int(port)
    return Settings(values=values, origins={ENVIRONMENT[variable]: f"${variable}" for variable in given})


def _flat(mapping: Mapping[Any, Any]) -> Iterator[tuple[Any, Any]]:
    """Keys at the top or under ``features.planner``, those of ``engines`` with dots; the rest as it is."""
    for key, value in mapping.items():
        if key == "features" and isinstance(value, Mapping) and isinstance(value.get("planner"), Mapping):
            yield from _flat(value["planner"])
        elif key == "engines" and isinstance(value, Mapping):
            for role, fields in value.items():
                if isinstance(fields, Mapping):
                    yield from ((f"engines.{role}.{field}", inner) for field, inner in fields.items())
                else:
                    yield f"engines.{role}", fields
        else:
            yield key, value


# Files


def read_document(file: Path) -> tuple[Mapping[Any, Any], dict[str, int]]:
    """The mapping in a file (JSON by its suffix, else YAML) and the line of each key; ``ConfigError`` without one."""
    try:
        with file.open("rb") as opened:
            data = opened.read(MAX_FILE_BYTES + 1)
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{file}: can't be read ({error.strerror or error})") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{file}: is not text; write YAML or JSON") from None
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError(f"{file}: is larger than {MAX_FILE_BYTES:,} bytes; that is no configuration")
    content, lines = _json(file, text) if file.suffix == ".json" else _yaml(file, text)
    if content is None:
        content = {}
    if not isinstance(content, Mapping):
        raise ConfigError(f"{file}: holds a {type(content).__name__}; write a mapping of keys to values")
    return content, lines


def _of_file(file: Path) -> Settings:
    content, lines = read_document(file)
    values: dict[Any, Any] = {}
    try:
        for key, value in _flat(content):
            if values.setdefault(key, value) != value:
                raise ConfigError(f"{file}: {key} is {values[key]!r} and {value!r}; keep one")
    except RecursionError:  # an alias to a node around it
        raise ConfigError(f"{file}: holds itself") from None
    return Settings(
        values=values,
        origins={key: f"{file}:{lines[str(key)]}" if str(key) in lines else str(file) for key in values},
        file=file,
    )


def _json(file: Path, text: str) -> tuple[Any, dict[str, int]]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        twice = next((key for key in keys if keys.count(key) > 1), None)
        if twice is not None:
            raise ConfigError(f"{file}: {twice} is given twice; keep one")
        return dict(pairs)

    try:
        return json.loads(text, object_pairs_hook=unique), dict(_json_lines(text))
    except json.JSONDecodeError as error:
        raise ConfigError(f"{file}:{error.lineno}: is not JSON ({error.msg})") from None
    except RecursionError:
        raise ConfigError(f"{file}: is nested too deeply") from None


_MARK = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]:\n]')


def _json_lines(text: str) -> Iterator[tuple[str, int]]:
    """The line of each key of valid JSON, named as :func:`_flat` names it."""
    line, last, path = 1, "", [""]
    for mark in _MARK.findall(text):
        if mark == "\n":
            line += 1
        elif mark == ":":
            last = f"{path[-1]}{json.loads(last)}"
            yield last.replace("features.planner.", ""), line
        elif mark in "{[":
            path.append(f"{last}." if last else "")
        elif mark in "}]":
            path.pop()
        else:
            last = mark


def _yaml(file: Path, text: str) -> tuple[Any, dict[str, int]]:
    try:
        import yaml
    except ImportError:
        raise MissingExtraError(f"{file}: YAML needs PyYAML: pip install 'planner-core[cli]'") from None
    try:
        content = yaml.safe_load(text)
        tree = yaml.compose(text, yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{file}{line}: is not YAML ({error.problem or error.context})") from None
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{file}: is not YAML ({' '.join(str(error).split())})") from None
    except RecursionError:
        raise ConfigError(f"{file}: is nested too deeply") from None
    return content, dict(_lines(file, tree, ""))


_DOWN = {"": {"features": "features.", "engines": "engines."}, "features.": {"planner": ""}}
"""Sections whose keys are looked at: at the top, and inside of features."""


def _lines(file: Path, node: Any, prefix: str, depth: int = 0) -> Iterator[tuple[str, int]]:
    """The line of each key, named as :func:`_flat` names it. A key that stands twice is an error."""
    if getattr(node, "id", None) != "mapping" or depth > 4:
        return
    first: dict[str, int] = {}
    for key_node, value_node in node.value:
        key, line = str(key_node.value), key_node.start_mark.line + 1
        if key in first:
            raise ConfigError(f"{file}:{line}: {prefix}{key} is given in line {first[key]} already; keep one")
        first[key] = line
        yield f"{prefix}{key}", line
        below = _DOWN.get(prefix, {}).get(key)
        if below is None and prefix == "engines.":
            below = f"engines.{key}."
        if below is not None:
            yield from _lines(file, value_node, below, depth + 1)
