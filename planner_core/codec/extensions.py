"""Which types may travel where anything may stand: Python's own, ours, and those that users register."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

import attrs
import numpy as np

from planner_core import perf, predictors
from planner_core.codec.forms import (
    NUMBER,
    PLAIN,
    TYPES_IN_COLUMN,
    CodecError,
    Form,
    column_form,
    mapping_form,
    sequence_form,
)
from planner_core.codec.objects import KNOWN, NAME_OF, OPEN, arguments_of, object_form, path_of

T = TypeVar("T")


def register(
    cls: type[T],
    *,
    name: str | None = None,
    encode: Callable[[T], Any] | None = None,
    decode: Callable[[Any], T] | None = None,
) -> type[T]:
    """Let values of this class travel: a predictor, a performance model, or what one of them learns.

    Also a decorator. attrs classes and dataclasses need nothing more; for any other class ``encode`` gives
    its JSON data and ``decode`` takes them. ``name``, the class's own unless given, stands in the data.
    """
    name = name or cls.__name__
    if name in KNOWN and path_of(KNOWN[name][0]) != path_of(cls):
        raise CodecError(
            f"the name {name} is {path_of(KNOWN[name][0])}'s already: register {path_of(cls)} by another"
        )
    if encode is not None and decode is not None:
        form = _tagged_value(encode, decode)
    elif not attrs.has(cls) and not dataclasses.is_dataclass(cls):
        raise CodecError(f"{path_of(cls)} is neither an attrs class nor a dataclass: give encode and decode")
    elif any(argument == "type" for argument, *_ in arguments_of(cls)):
        raise CodecError(f"{path_of(cls)} has a field 'type', where its name stands: give encode and decode")
    else:
        form = object_form(cls)
    KNOWN[name], NAME_OF[cls] = (cls, form), name
    return cls


def _tagged_value(encode: Callable[[Any], Any], decode: Callable[[Any], Any]) -> Form:
    def take(data: dict[str, Any]) -> Any:
        try:
            return decode(data.get("value"))
        except CodecError:
            raise
        except (ValueError, TypeError, KeyError) as error:
            raise CodecError(repr(error)) from None

    return Form(lambda value: {"value": encode(value)}, take)


def _encode_array(array: np.ndarray[Any, Any]) -> Any:
    if array.dtype.kind not in TYPES_IN_COLUMN:
        raise CodecError(f"an array of {array.dtype} can't travel")
    return {"dtype": array.dtype.str, "values": column_form(array.dtype).encode(array)}


def _decode_array(data: dict[str, Any]) -> Any:
    try:
        dtype = np.dtype(PLAIN[str].decode(data.get("dtype")))
    except TypeError as error:
        raise CodecError(str(error), "dtype") from None
    if dtype.kind not in TYPES_IN_COLUMN:
        raise CodecError(f"an array of {dtype} can't travel", "dtype")
    return column_form(np.dtype(np.str_) if dtype.kind == "U" else dtype).decode(data.get("values"))


_text_to_any = mapping_form(PLAIN[str], OPEN)
register(float, encode=NUMBER.encode, decode=NUMBER.decode)
register(tuple, encode=sequence_form(tuple, OPEN).encode, decode=sequence_form(tuple, OPEN).decode)
register(dict, encode=_text_to_any.encode, decode=_text_to_any.decode)
KNOWN["array"], NAME_OF[np.ndarray] = (np.ndarray, Form(_encode_array, _decode_array)), "array"
for _extension in (getattr(package, name) for package in (predictors, perf) for name in package.__all__):
    if isinstance(_extension, type) and attrs.has(_extension):
        register(_extension)
