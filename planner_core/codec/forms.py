"""How single values, collections and arrays travel, each form with both its ways."""

from __future__ import annotations

import enum
import math
import reprlib
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any

import attrs
import numpy as np

from planner_core.data.errors import PlannerError


class CodecError(PlannerError):
    """Data that can't be read or a value that can't be written; names the path: ``roles.prefill.floor``."""

    def __init__(self, problem: str, path: str = "") -> None:
        self.problem = problem
        self.path = path
        super().__init__(f"{path}: {problem}" if path else problem)

    def within(self, part: object) -> CodecError:
        """The same error, seen from one level further out."""
        return CodecError(self.problem, f"{part}.{self.path}" if self.path else str(part))


@attrs.frozen(eq=False)
class Form:
    """How the values of one type travel. Both ways raise :class:`CodecError`."""

    encode: Callable[[Any], Any]
    decode: Callable[[Any], Any]


@contextmanager
def within(part: object) -> Generator[None, None, None]:
    """Errors inside get this part of the path."""
    try:
        yield
    except CodecError as error:
        raise error.within(part) from None


def refuse(value: Any, want: str) -> CodecError:
    """The error for a value that isn't as wanted."""
    return CodecError(f"{reprlib.repr(value)} must be {want}")


def _only(cls: type, want: str) -> Form:
    """Values of exactly this class; numpy's scalars are written as Python's."""

    def encode(value: Any) -> Any:
        value = value.item() if isinstance(value, np.generic) else value
        if not isinstance(value, cls) or (isinstance(value, bool) and cls is not bool):
            raise refuse(value, want)
        return cls(value)

    def decode(data: Any) -> Any:
        if type(data) is not cls:
            raise refuse(data, want)
        return data

    return Form(encode, decode)


_NOT_IN_JSON = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def _encode_number(value: Any) -> Any:
    if type(value) is float:
        return value if math.isfinite(value) else _name_of_number(value)
    if isinstance(value, np.generic):
        return _encode_number(value.item())
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise refuse(value, "a number")
    return value


def _decode_number(data: Any) -> Any:
    if type(data) is float or type(data) is int:
        return data
    if type(data) is str and data in _NOT_IN_JSON:
        return _NOT_IN_JSON[data]
    raise refuse(data, "a number")


def _name_of_number(value: float) -> str:
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


NUMBER = Form(_encode_number, _decode_number)
"""A field of floats may hold a whole number: it stays one."""
PLAIN = {
    bool: _only(bool, "true or false"),
    int: _only(int, "a whole number"),
    float: NUMBER,
    str: _only(str, "text"),
    type(None): _only(type(None), "null"),
}


def enum_form(cls: type[enum.Enum]) -> Form:
    """Members by their values."""

    def decode(data: Any) -> Any:
        try:
            return cls(data)
        except ValueError:
            raise refuse(data, f"one of {', '.join(str(m.value) for m in cls)}") from None

    return Form(lambda value: cls(value).value, decode)


def literal_form(choices: tuple[Any, ...]) -> Form:
    """One of a few words."""

    def check(value: Any) -> Any:
        if value not in choices or isinstance(value, bool):
            raise refuse(value, f"one of {', '.join(map(str, choices))}")
        return value

    return Form(check, check)


# --- collections


def each(values: Any, convert: Callable[[Any], Any]) -> list[Any]:
    """All values converted; an error names the number of its value."""
    result = []
    for number, value in enumerate(values):
        with within(number):
            result.append(convert(value))
    return result


def sequence_form(cls: type, item: Form) -> Form:
    """Any number of values of one type, as a list."""

    def decode(data: Any) -> Any:
        if type(data) is not list:
            raise refuse(data, "a list")
        return cls(each(data, item.decode))

    in_order: Any = sorted if cls is frozenset else list  # so that equal sets give equal text
    return Form(lambda value: in_order(each(value, item.encode)), decode)


def row_form(items: tuple[Form, ...]) -> Form:
    """A tuple with a type for each place, as a list."""

    def decode(data: Any) -> Any:
        if type(data) is not list or len(data) != len(items):
            raise refuse(data, f"a list of {len(items)}")
        return tuple(item.decode(value) for item, value in zip(items, data, strict=True))

    return Form(lambda row: [item.encode(value) for item, value in zip(items, row, strict=True)], decode)


def mapping_form(key: Form, item: Form) -> Form:
    """A mapping as an object; its keys travel as text."""

    def convert(
        values: Mapping[Any, Any], key: Callable[[Any], Any], item: Callable[[Any], Any]
    ) -> dict[Any, Any]:
        result = {}
        for name, value in values.items():
            with within(name):
                result[key(name)] = item(value)
        return result

    def decode(data: Any) -> Any:
        if type(data) is not dict:
            raise refuse(data, "an object")
        return convert(data, key.decode, item.decode)

    return Form(lambda values: convert(values, key.encode, item.encode), decode)


def optional_form(form: Form) -> Form:
    """Values of a type, or ``None``."""
    return Form(
        lambda value: None if value is None else form.encode(value),
        lambda data: None if data is None else form.decode(data),
    )


TYPES_IN_COLUMN: dict[str, set[type]] = {
    "f": {float, int, type(None), str},
    "i": {int},
    "u": {int},
    "U": {str},
    "b": {bool},
}
"""What a JSON list may hold, by the kind of the array's dtype."""


def column_form(dtype: np.dtype[Any]) -> Form:
    """A one-dimensional array as a list; any other shape is named beside its values."""

    def encode(array: Any) -> Any:
        array = np.asarray(array, dtype=dtype if dtype.kind != "U" else None)
        values = array.ravel().tolist()
        if dtype.kind == "f" and not np.isfinite(array).all():
            values = [None if v != v else _encode_number(v) for v in values]
        return values if array.ndim == 1 else {"shape": list(array.shape), "values": values}

    def decode(data: Any) -> Any:
        shape = data.get("shape") if type(data) is dict else None
        values = data.get("values") if type(data) is dict else data
        if type(values) is not list or not set(map(type, values)) <= TYPES_IN_COLUMN[dtype.kind]:
            raise refuse(values, f"a list of {dtype.name} numbers" if dtype.kind != "U" else "a list of text")
        try:
            numbers = (
                [_decode_number(v) if type(v) is str else v for v in values] if dtype.kind == "f" else values
            )
            array = np.array(numbers, dtype=dtype)
            return array if shape is None else array.reshape(shape)
        except (ValueError, TypeError, OverflowError) as error:
            raise CodecError(str(error)) from None

    return Form(encode, decode)
