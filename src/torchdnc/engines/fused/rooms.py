"""Tensors as the arrays that kernels work on, and room for more of them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from torch import Tensor

from torchdnc.engines.fused.kernels.arrays import Array

CACHE_LINE: Final = 64
"""Bytes."""


def array(tensor: Tensor) -> Array:
    """The tensor's numbers, shared if they lie in order."""
    numbers: Array = tensor.detach().resolve_neg().contiguous().numpy()
    return numbers


def rooms(like: Tensor, *shapes: tuple[int, ...]) -> list[Array]:
    """Arrays of these shapes, which hold nothing yet, in one piece of memory."""
    return cut(empty(like, starts(shapes)[-1]), shapes)


def empty(like: Tensor, size: int) -> Tensor:
    """So many numbers, which hold nothing yet, from a cache line on.

    By NumPy, which asks the system for large pages: of a long tape there are many small ones, each handed out alone.
    """
    dtype = torch.empty(0, dtype=like.dtype).numpy().dtype
    numbers = np.empty(size + CACHE_LINE // dtype.itemsize, dtype)
    first = -numbers.ctypes.data % CACHE_LINE // dtype.itemsize
    return torch.from_numpy(numbers[first : first + size])


def cut(room: Tensor, shapes: Sequence[tuple[int, ...]]) -> list[Array]:
    """Arrays of these shapes, one after another in the room, each from a cache line on."""
    numbers = array(room)
    return [
        numbers[at : at + math.prod(shape)].reshape(shape) for at, shape in zip(starts(shapes), shapes, strict=False)
    ]


def starts(shapes: Sequence[tuple[int, ...]]) -> list[int]:
    """Where arrays of these shapes start, and where the last one ends."""
    return list(itertools.accumulate((-(-math.prod(shape) // 16) * 16 for shape in shapes), initial=0))
