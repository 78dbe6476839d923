"""Frozen dataclasses as JSON objects: the fields are the keys, and a key that isn't a field is an error that names file and line."""

from __future__ import annotations

import dataclasses
import types
from functools import cache
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")
_WORDS = {float: "a number", int: "a whole number", str: "text", bool: "true or false"}


def to_json(value: Any, *, sparse: bool = False) -> Any:
    """A dataclass as a JSON-ready dict, in the order of its fields.

    Args:
        sparse: leave out fields that are None or empty, which a reader fills with their defaults.
    """
    if dataclasses.is_dataclass(value):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        entries = {str(key): to_json(entry, sparse=sparse) for key, entry in value.items()}
        return {key: entry for key, entry in entries.items() if not sparse or entry not in (None, {}, [])}
    return [to_json(entry, sparse=sparse) for entry in value] if isinstance(value, (list, tuple)) else value


def from_json(kind: type[T], given: Any, where: str) -> T:
    """A JSON object as a dataclass.

    None is what was not measured: it stands for the field's default.

    Args:
        where: file and line, for messages.

    Raises:
        ValueError: not an object, an unknown key, a missing one, or a value of another type.
    """
    if not isinstance(given, dict):
        raise ValueError(f"{where}: expected an object, got {given!r}")
    hints, fields = _hints(kind), {field.name: field for field in dataclasses.fields(kind)}
    if unknown := [key for key in given if key not in fields]:
        raise ValueError(f"{where}: unknown {', '.join(unknown)}; expected {', '.join(fields)}")
    required = [name for name, field in fields.items() if field.default is field.default_factory is dataclasses.MISSING]
    if missing := [name for name in required if name not in given]:
        raise ValueError(f"{where}: {', '.join(missing)} missing; measure that part again")
    told = {name: value for name, value in given.items() if value is not None or name in required}
    return kind(**{name: _converted(hints[name], value, f"{where}, {name}") for name, value in told.items()})


def from_settings(kind: type[T], given: dict[str, Any], where: str) -> T:
    """A dataclass from settings that a file holds by the names of its fields. Null is the value None, and what is missing has its default.

    Args:
        where: the file, for messages.

    Raises:
        ValueError: a value of another type, or one that the dataclass refuses.
    """
    hints = _hints(kind)
    try:
        return kind(**{name: _converted(hints[name], value, name) for name, value in given.items()})
    except ValueError as error:
        raise ValueError(f"{where} is damaged or of another version: {error}") from error


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _converted(kind: Any, value: Any, where: str, or_null: str = "") -> Any:
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):  # X | None is the only union of a line
        return None if value is None else _converted(inner[0], value, where, " or null")
    if origin is Literal:
        if not isinstance(value, str) or value not in inner:
            raise ValueError(f"{where}: expected one of {', '.join(inner)}{or_null}, got {value!r}")
        return value
    if dataclasses.is_dataclass(kind):
        return from_json(kind, value, where)
    if origin is tuple:
        if not isinstance(value, list):
            raise ValueError(f"{where}: expected a list{or_null}, got {value!r}")
        return tuple(_converted(inner[0], entry, where) for entry in value)
    if origin is dict:
        if not isinstance(value, dict):
            raise ValueError(f"{where}: expected an object{or_null}, got {value!r}")
        return {key: _converted(inner[1], entry, f"{where}, {key}") for key, entry in value.items()}
    if kind is Any or isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
        return value
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return value  # a count stays a whole number where it is shown
    raise ValueError(f"{where}: expected {_WORDS[kind]}{or_null}, got {value!r}")
