"""How objects travel: by their fields' annotations, or with their type's name where those leave it open."""

from __future__ import annotations

import dataclasses
import difflib
import enum
import math
import reprlib
import types
import typing
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

import attrs
import numpy as np

from planner_core.codec.forms import (
    PLAIN,
    CodecError,
    Form,
    column_form,
    each,
    enum_form,
    literal_form,
    mapping_form,
    optional_form,
    refuse,
    row_form,
    sequence_form,
)
from planner_core.data.state import PlannerState

VERSIONS: dict[type, int] = {PlannerState: 1}
"""Classes whose data carry the version of their format."""
KNOWN: dict[str, tuple[type, Form]] = {}
"""By the name that stands in data: the types that may stand where a field's annotation leaves it open."""
NAME_OF: dict[type, str] = {}


def object_form(cls: Any) -> Form:
    """An attrs class or dataclass by its constructor's arguments; those with defaults may be left out."""
    version = VERSIONS.get(cls)

    def encode(value: Any) -> Any:
        if value.__class__ is not cls:
            raise refuse(value, f"a {cls.__name__}")
        data = {} if version is None else {"version": version}
        name = ""
        try:
            for name, field in _fields(cls).items():
                data[name] = field.form.encode(getattr(value, field.attribute))
        except CodecError as error:
            raise error.within(name) from None
        return data

    def decode(data: Any) -> Any:
        if type(data) is not dict:
            raise refuse(data, f"an object with the fields of {cls.__name__}")
        if version is not None:
            data = dict(data)
            found = data.pop("version", None)
            if found != version:
                raise CodecError(
                    f"{found!r} must be {version}, the version of {cls.__name__} that this library reads",
                    "version",
                )
        fields = _fields(cls)
        name, values = "", {}
        try:
            for name, value in data.items():
                if name not in fields:
                    raise CodecError(f"{cls.__name__} has no such field{_near(name, fields)}")
                values[name] = fields[name].form.decode(value)
        except CodecError as error:
            raise error.within(name) from None
        missing = [name for name, field in fields.items() if field.required and name not in values]
        if missing:
            raise CodecError(f"{cls.__name__} lacks {', '.join(missing)}")
        try:
            return cls(**values)
        except (ValueError, TypeError) as error:
            raise CodecError(str(error)) from None

    return Form(encode, decode)


def _near(name: str, names: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {near[0]}?" if near else ""


@attrs.frozen
class _Field:
    attribute: str
    required: bool
    form: Form


@cache
def _fields(cls: type) -> dict[str, _Field]:
    """What is written of an object, and how, by the names of the constructor's arguments."""
    try:
        hints = typing.get_type_hints(cls)
    except NameError:  # a class inside a function may name types that only the function knows
        hints = {}
    return {
        name: _Field(attribute, required, form_of(hints.get(attribute, Any)))
        for name, attribute, required in arguments_of(cls)
    }


def arguments_of(cls: Any) -> list[tuple[str, str, bool]]:
    """The arguments of the constructor: name, attribute, and whether it must be given."""
    if attrs.has(cls):
        return [(f.alias or f.name, f.name, f.default is attrs.NOTHING) for f in attrs.fields(cls) if f.init]
    nothing = dataclasses.MISSING
    return [
        (f.name, f.name, f.default is nothing and f.default_factory is nothing)
        for f in dataclasses.fields(cls)
        if f.init
    ]


_FORMS: dict[Any, Form] = {}


def form_of(hint: Any) -> Form:
    """The form of a type, as fields are annotated."""
    if hint not in _FORMS:
        _FORMS[hint] = PLAIN.get(hint) or _composed_form(hint)
    return _FORMS[hint]


def _composed_form(hint: Any) -> Form:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        rest = [arg for arg in args if arg is not type(None)]
        return optional_form(form_of(rest[0])) if len(rest) == 1 and len(rest) < len(args) else OPEN
    if origin is typing.Literal:
        return literal_form(args)
    if origin is np.ndarray:
        scalar: Any = (*typing.get_args(args[1]), Any)[0]
        return OPEN if scalar is Any else column_form(np.dtype(scalar))
    if origin is tuple:
        if args[1:] == (...,):
            return sequence_form(tuple, form_of(args[0]))
        return row_form(tuple(map(form_of, args)))
    if origin in (list, frozenset):
        return sequence_form(origin, form_of(args[0]))
    if origin in (dict, Mapping):
        return mapping_form(form_of(args[0]), form_of(args[1]))
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return enum_form(hint)
    if isinstance(hint, type) and attrs.has(hint):
        return object_form(hint)
    return OPEN  # Any, a protocol, a type variable


def _encode_open(value: Any) -> Any:
    """A value of any type: JSON's own as they are, others with the name of their type."""
    value = value.item() if isinstance(value, np.generic) else value
    if value is None or isinstance(value, (bool, int)) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, str):
        return str(value)
    if type(value) is list:
        return each(value, _encode_open)
    name = NAME_OF.get(type(value))
    if name is None:
        raise CodecError(
            f"a {path_of(type(value))} is not known: "
            f"call planner_core.codec.register({type(value).__name__}) beside its definition"
        )
    return {"type": name, **KNOWN[name][1].encode(value)}


def _decode_open(data: Any) -> Any:
    if isinstance(data, list):
        return each(data, _decode_open)
    if not isinstance(data, dict):
        return data
    name = data.get("type")
    if not isinstance(name, str) or name not in KNOWN:
        raise CodecError(
            f"{reprlib.repr(name)} is not known; planner_core.codec.register adds to {', '.join(KNOWN)}",
            "type",
        )
    return KNOWN[name][1].decode({key: value for key, value in data.items() if key != "type"})


OPEN = Form(_encode_open, _decode_open)


def path_of(cls: type) -> str:
    """Module and name of a class, for messages."""
    return f"{cls.__module__}.{cls.__qualname__}"
