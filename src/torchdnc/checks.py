"""Checks of arguments and settings: one sentence that names what is bad, what was expected and what came."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor


def check_size(name: str, value: Any, least: int = 1) -> None:
    """Raises unless `value` is an integer of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")


def check_range(least: int, **bounds: Any) -> None:
    """Raises unless the two named bounds are integers with least <= first <= second."""
    for name, value in bounds.items():
        check_size(name, value, least)
    (first, a), (second, b) = bounds.items()
    if a > b:
        raise ValueError(f"{first} must be at most {second}, got {first} {a} and {second} {b}")


def check_number(name: str, value: Any, *, above: float = -math.inf) -> None:
    """Raises unless `value` is a finite number above the bound."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number, got {value!r}")
    if not above < value < math.inf:
        bound = f" above {above}" if above > -math.inf else ""
        raise ValueError(f"{name} must be a finite number{bound}, got {value}")


def check_bound(name: str, value: Any) -> None:
    """Raises unless `value` is None or a finite number above 0."""
    if value is not None:
        check_number(name, value, above=0)


def check_choice(name: str, value: Any, choices: Iterable[Any]) -> None:
    """Raises unless `value` is one of the choices."""
    choices = list(choices)
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")


def check_type(name: str, value: Any, expected: type[Any]) -> None:
    """Raises unless `value` is of the expected type."""
    if not isinstance(value, expected):
        raise TypeError(f"{name} must be of type {expected.__name__}, got {type(value).__name__}")


def check_dtype(name: str, value: Any) -> None:
    """Raises unless `value` is None or a floating point dtype."""
    if value is not None and not (isinstance(value, torch.dtype) and value.is_floating_point):
        raise TypeError(f"{name} must be None or a floating point dtype, got {value!r}")


def check_shape(name: str, tensor: Any, shape: tuple[int | None, ...]) -> None:
    """Raises unless `tensor` is a tensor of this shape; None stands for any size."""
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(tensor).__name__}")
    fits = tensor.dim() == len(shape) and all(
        want is None or want == got for want, got in zip(shape, tensor.shape, strict=True)
    )
    if not fits:
        wanted = ", ".join("any" if want is None else str(want) for want in shape)
        raise ValueError(f"{name} must have shape [{wanted}], got {list(tensor.shape)}")


def check_like(name: str, tensor: Tensor, parameter: Tensor, also: tuple[torch.dtype, ...] = ()) -> None:
    """Raises unless `tensor` has the parameters' device, and their dtype or one that is accepted `also`."""
    if tensor.device != parameter.device:
        raise ValueError(f"{name} must be on {parameter.device} like the parameters, got {tensor.device}")
    if tensor.dtype not in (parameter.dtype, *also):
        raise TypeError(f"{name} must be {parameter.dtype} like the parameters, got {tensor.dtype}")


def check_share(name: str, value: Any) -> None:
    """Raises unless `value` is a number from 0 up to, not including, 1."""
    check_number(name, value)
    if not 0 <= value < 1:
        raise ValueError(f"{name} must be at least 0 and less than 1, got {value}")
