"""States, inputs and decisions to plain JSON data and back, exactly.

``from_data(to_data(x), type(x)) == x`` for every data class of the library, and what ``loads`` makes of a
text, ``dumps`` turns into the same text. Whole numbers stay whole, floats keep every bit. In columns NaN
travels as ``null``; other numbers that JSON lacks are ``"NaN"``, ``"Infinity"`` and ``"-Infinity"``.

Extensions (predictors, performance models, and what they learn) travel with their name, as in
``{"type": "Linear", "max_samples": 64, …}``. Ours are known; :func:`register` makes yours so. Nothing is ever
imported by a name that stands in data: reading a stranger's file runs none of their code.
"""

from __future__ import annotations

import json
from typing import Any, TypeVar

import msgspec

from planner_core.codec.extensions import register
from planner_core.codec.forms import CodecError
from planner_core.codec.objects import form_of

__all__ = ["CodecError", "dumps", "from_data", "loads", "register", "to_data"]

T = TypeVar("T")


def dumps(value: Any) -> str:
    """One line of JSON."""
    data = to_data(value)
    try:
        return msgspec.json.encode(data).decode()
    except UnicodeEncodeError:  # half a surrogate pair in an engine's name: no UTF-8, but JSON can escape it
        return json.dumps(data, separators=(",", ":"))


def loads(text: str | bytes, type: type[T]) -> T:
    """The value of this type that the text holds; :class:`CodecError` says what is wrong, and where."""
    try:
        data = msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        if "\\ud" not in str(text):
            raise CodecError(f"this is no JSON: {error}") from None
        try:
            data = json.loads(text)
        except ValueError as error:
            raise CodecError(f"this is no JSON: {error}") from None
    except RecursionError:
        raise CodecError("this is nested too deeply") from None
    return from_data(data, type)


def to_data(value: Any) -> Any:
    """The value as dicts, lists, text, numbers, booleans and ``None``."""
    return form_of(type(value)).encode(value)


def from_data(data: Any, type: type[T]) -> T:
    """The value of this type that the data hold; :class:`CodecError` says what is wrong, and where."""
    value: T = form_of(type).decode(data)
    return value
