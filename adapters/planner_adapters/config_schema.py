"""The JSON schema of configuration files, made from the table of keys that also parses them."""

from __future__ import annotations

import re
from typing import Any

from planner_core.config import ENGINE_KEYS, KEYS, Key
from planner_core.data.roles import Role


def config_schema() -> dict[str, Any]:
    """JSON schema, draft 2020-12. It knows single values in every spelling; contradictions are for ``config check``."""
    known: dict[str, Any] = {}
    spellings: dict[str, Any] = {}
    for key in (*KEYS, *ENGINE_KEYS):
        known[key.name] = _value(key) | {"description": key.meaning.replace("`", "")}
        for alias in key.aliases:
            known[alias] = _value(key) | {"description": f"Same as {key.name}."}
        for name in (key.name, *key.aliases):
            spellings["^(--)?" + re.escape(name).replace("_", "[-_]") + "$"] = _value(key)
    engines: dict[str, dict[str, Any]] = {
        role: {
            "type": "object",
            "additionalProperties": False,
            "description": f"One replica of the role {role}.",
            "properties": {
                key.name.rpartition(".")[2]: known[key.name]
                for key in ENGINE_KEYS
                if key.name.startswith(f"engines.{role}.")
            },
        }
        for role in map(str, Role)
    }
    keys: dict[str, Any] = {
        "type": "object",
        "properties": known
        | {"engines": {"type": "object", "properties": engines, "additionalProperties": False}},
        "patternProperties": spellings,
        "additionalProperties": False,
    }
    nested = {"type": "object", "properties": {"planner": {"$ref": "#/$defs/keys"}}, "required": ["planner"]}
    top = {**keys, "properties": {**keys["properties"], "features": nested}}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Configuration of the planner",
        **top,
        "$defs": {"keys": keys},
    }


def _value(key: Key) -> dict[str, Any]:
    check = key.check
    kinds = [check.kind, *(["null"] if check.optional else [])]
    schema: dict[str, Any] = {"type": kinds[0] if len(kinds) == 1 else kinds, **check.bounds}
    if check.choices:
        schema["enum"] = list(check.choices) + ([None] if check.optional else [])
    if check.kind == "string" and not check.choices:
        schema["minLength"] = 1
    if key.default is not None:
        schema["default"] = key.default
    return schema
