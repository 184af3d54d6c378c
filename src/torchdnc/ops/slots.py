"""The slots of a state, as a dimension of its tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch.nn.functional as F
from torch import Tensor

from torchdnc.types import MemoryState

SLOT_DIMS: Final = {"memory": (-2,), "link": (-2, -1), "slots": ()}
"""The slot dimensions of a field of a memory's state, counted from its end; (-1,) of all others."""


def map_slots(memory_state: MemoryState, change: Callable[[Tensor, int], Tensor]) -> MemoryState:
    """The state changed along every slot dimension: `change` takes a tensor and the dimension, counted from the end."""
    changed = memory_state._asdict()
    for name, leaf in changed.items():
        for dim in SLOT_DIMS.get(name, (-1,)) if isinstance(leaf, Tensor) else ():
            changed[name] = change(changed[name], dim)
    return MemoryState(**changed)


def of_width(memory_state: MemoryState, memory_size: int) -> MemoryState:
    """The state with empty slots behind the others, or without the last ones, in tensors of this many slots."""
    extra = memory_size - memory_state.usage.shape[-1]
    if extra == 0:
        return memory_state
    if extra < 0:
        return map_slots(memory_state, lambda tensor, dim: tensor.narrow(dim, 0, memory_size))
    return map_slots(memory_state, lambda tensor, dim: F.pad(tensor, (0, 0) * (-dim - 1) + (0, extra)))
