"""Dataclasses as plain data (dict, list, str, int, float, bool, None) and back, strictly; and as TOML."""

import json
import types
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from torchdnc.checks import check_choice

T = TypeVar("T")


def to_plain(value: Any) -> Any:
    """The value with dataclasses as dicts, tuples as lists and paths as strings."""
    if is_dataclass(value):
        return {field.name: to_plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, tuple | list):
        return [to_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def from_plain(cls: type[T], data: Mapping[str, Any], where: str) -> T:
    """A dataclass from plain data; raises ValueError for what it does not know, lacks or cannot take."""
    options = {field.name: field for field in fields(cast(Any, cls))}
    if not isinstance(data, Mapping):
        raise ValueError(f"{where} must be a table of options, got {data!r}")
    for key in data:
        if key not in options:
            raise ValueError(f"{where} has no option {key!r}: its options are {', '.join(options)}")
    for name, field in options.items():
        if name not in data and _required(field):
            raise ValueError(f"{where} needs the option {name!r}")
    hints = get_type_hints(cls)
    return cls(**{key: convert(value, hints[key], f"{where}.{key}") for key, value in data.items()})


def _required(field: "Field[Any]") -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def convert(value: Any, hint: Any, where: str) -> Any:
    """The plain value as the annotated type; raises ValueError where it is of another."""
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _convert_union(value, args, where)
    if origin is Literal:
        check_choice(where, value, args)
        return value
    if origin is tuple and isinstance(value, list | tuple):
        return _convert_tuple(value, args, where)
    if isinstance(hint, type) and is_dataclass(hint) and isinstance(value, Mapping):
        return from_plain(hint, value, where)
    if hint is float and type(value) is int:
        return float(value)
    if hint is Path and isinstance(value, str):
        return Path(value)
    # True is an int to Python, but not to someone who writes `steps = true`.
    if origin is not None or not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise ValueError(f"{where} must be {_type_name(hint)}, got {value!r}")
    return value


def _convert_union(value: Any, args: tuple[Any, ...], where: str) -> Any:
    if value is None and type(None) in args:
        return None
    candidates = [arg for arg in args if arg is not type(None)]
    for candidate in candidates:
        try:
            return convert(value, candidate, where)
        except ValueError:
            if candidate is candidates[-1]:
                raise
    raise AssertionError("a union has at least one member")


def _convert_tuple(value: list[Any] | tuple[Any, ...], args: tuple[Any, ...], where: str) -> tuple[Any, ...]:
    hints = args[:1] * len(value) if args[1:] == (...,) else args
    if len(hints) != len(value):
        raise ValueError(f"{where} must have {len(hints)} elements, got {len(value)}")
    return tuple(convert(item, hint, where) for item, hint in zip(value, hints, strict=True))


def _type_name(hint: Any) -> str:
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    return names.get(hint, "a list" if get_origin(hint) is tuple else getattr(hint, "__name__", str(hint)))


def to_toml(data: Mapping[str, Any], within: str = "") -> str:
    """Plain data as TOML: values first, then one table each for nested dicts; None is left out.

    Args:
        data: the values of a table.
        within: the table's name, with a dot behind it.
    """
    values = {key: value for key, value in data.items() if value is not None}
    tables = {key: value for key, value in values.items() if isinstance(value, Mapping)}
    lines = [f"{key} = {json.dumps(value)}" for key, value in values.items() if key not in tables]
    blocks = ["\n".join(lines)] if lines else []
    blocks += [f"[{within}{key}]\n{to_toml(table, f'{within}{key}.')}" for key, table in tables.items()]
    return "\n\n".join(blocks)
