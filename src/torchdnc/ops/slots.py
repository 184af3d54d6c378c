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


def append_slots(memory_state: MemoryState, extra: int) -> MemoryState:
    """The state with so many empty slots behind the others, which no row has yet where rows have sizes of their own."""
    return map_slots(memory_state, lambda tensor, dim: F.pad(tensor, (0, 0) * (-dim - 1) + (0, extra)))
