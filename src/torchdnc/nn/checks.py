"""Sentences for bad arguments."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from torchdnc.engines.reference import autocasts


def check_size(name: str, value: Any, least: int = 1) -> None:
    """Raises unless `value` is an integer of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")


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


def cast_dtypes(device: torch.device) -> tuple[torch.dtype, ...]:
    """The dtypes that autocast turns into its own: none where it is off, and never float64."""
    return (torch.float32, torch.bfloat16, torch.float16) if autocasts(device) else ()


def check_type(name: str, value: Any, expected: type[Any]) -> None:
    """Raises unless `value` is of the expected type."""
    if not isinstance(value, expected):
        raise TypeError(f"{name} must be of type {expected.__name__}, got {type(value).__name__}")


def check_dtype(name: str, value: Any) -> None:
    """Raises unless `value` is None or a floating point dtype."""
    if value is not None and not (isinstance(value, torch.dtype) and value.is_floating_point):
        raise TypeError(f"{name} must be None or a floating point dtype, got {value!r}")


def check_bound(name: str, value: Any) -> None:
    """Raises unless `value` is None or a positive number."""
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be None or a number, got {value!r}")
    if not value > 0:
        raise ValueError(f"{name} must be positive, got {value}")
