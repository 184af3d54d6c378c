"""A memory of another size, without training again."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from torchdnc.ops.slots import map_slots, of_width
from torchdnc.types import MemoryState


def resize_memory(state: MemoryState, memory_size: int) -> MemoryState:
    """The state with `memory_size` slots: empty ones appended, or pinned ones and those of highest usage kept."""
    if memory_size >= state.usage.shape[-1]:
        resized = of_width(state, memory_size)
    else:
        pinned = state.pinned if isinstance(state.pinned, Tensor) else 0
        resized = map_slots(state, partial(_take, _most_used(state.usage + pinned, memory_size)))
    if isinstance(state.slots, Tensor):
        resized = resized._replace(slots=torch.full_like(state.slots, memory_size))
    return resized


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
