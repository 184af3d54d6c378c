"""A memory of another size, without training again."""

from __future__ import annotations

from functools import partial
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from torchdnc.types import MemoryState

SLOT_DIMS: Final = {"memory": (-2,), "link": (-2, -1)}
"""The slot dimensions of a field of the state, counted from its end; (-1,) of all others."""


def resize_memory(state: MemoryState, memory_size: int) -> MemoryState:
    """The state with `memory_size` slots: empty ones appended, or those of highest usage kept in order."""
    extra = memory_size - state.usage.shape[-1]
    change = partial(_append, extra) if extra >= 0 else partial(_take, _most_used(state.usage, memory_size))
    resized = state._asdict()
    for name, leaf in resized.items():
        for dim in SLOT_DIMS.get(name, (-1,)) if isinstance(leaf, Tensor) else ():
            resized[name] = change(resized[name], dim)
    return MemoryState(**resized)


def _append(extra: int, tensor: Tensor, dim: int) -> Tensor:
    """So many zeros behind the others along `dim`."""
    return F.pad(tensor, (0, 0) * (-dim - 1) + (0, extra))


def _most_used(usage: Tensor, memory_size: int) -> Tensor:
    """The slots of highest usage, in ascending order. Stable: of slots with the same usage the lowest stay."""
    order = torch.sort(usage, dim=-1, descending=True, stable=True).indices
    return order[..., :memory_size].sort(-1).values


def _take(slots: Tensor, tensor: Tensor, dim: int) -> Tensor:
    """The slots along `dim`, the slot dimension counted from the end."""
    memory_size = slots.shape[-1]
    index = slots.reshape(*slots.shape[:-1], *[1] * (tensor.dim() - slots.dim()), memory_size).movedim(-1, dim)
    shape = list(tensor.shape)
    shape[dim] = memory_size
    return tensor.gather(dim, index.expand(shape))
