"""A memory of another size, without training again."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from torchdnc.types import MemoryState


def resize_memory(state: MemoryState, memory_size: int) -> MemoryState:
    """The state with `memory_size` slots: empty ones appended, or those of highest usage kept in order."""
    extra = memory_size - state.usage.shape[-1]
    return _append(state, extra) if extra >= 0 else _keep(state, memory_size)


def _append(state: MemoryState, extra: int) -> MemoryState:
    return MemoryState(
        memory=F.pad(state.memory, (0, 0, 0, extra)),
        usage=F.pad(state.usage, (0, extra)),
        precedence=F.pad(state.precedence, (0, extra)),
        link=F.pad(state.link, (0, extra, 0, extra)),
        write_weights=F.pad(state.write_weights, (0, extra)),
        read_weights=F.pad(state.read_weights, (0, extra)),
    )


def _keep(state: MemoryState, memory_size: int) -> MemoryState:
    # Stable: of slots with the same usage the lowest stay.
    order = torch.sort(state.usage, dim=-1, descending=True, stable=True).indices
    slots = order[..., :memory_size].sort(-1).values

    def take(tensor: Tensor, dim: int) -> Tensor:
        """The kept slots along `dim`, the slot dimension counted from the end."""
        index = slots.reshape(*slots.shape[:-1], *[1] * (tensor.dim() - slots.dim()), memory_size).movedim(-1, dim)
        shape = list(tensor.shape)
        shape[dim] = memory_size
        return tensor.gather(dim, index.expand(shape))

    return MemoryState(
        memory=take(state.memory, -2),
        usage=take(state.usage, -1),
        precedence=take(state.precedence, -1),
        link=take(take(state.link, -2), -1),
        write_weights=take(state.write_weights, -1),
        read_weights=take(state.read_weights, -1),
    )
