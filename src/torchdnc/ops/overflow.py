"""What a full memory does: `MemoryOptions.overflow` as pure functions of the state."""

from __future__ import annotations

import math
from typing import Any, Final

import torch
from torch import Tensor

from torchdnc.ops.slots import of_width
from torchdnc.types import HeadWeights, MemoryOptions, MemoryState, Scalars, Unused, Weights


def age(age_prev: Weights, write_weights: Weights, read_weights: HeadWeights) -> Weights:
    """Steps since a slot was last accessed: n_t = (n_{t−1} + 1) (1 − w^w_t) Π_r (1 − w^r_t). It has no gradient.

    This is the expected number of steps if every head accesses a slot with the probability that its weighting gives: 0
    after a head was wholly there, unchanged but for the step after a head was not there at all.

    Args:
        age_prev: [B, N], of step t−1.
        write_weights: [B, N], of step t.
        read_weights: [B, R, N], of step t.
    Returns:
        [B, N], from 0 to the number of steps.
    """
    missed = (age_prev.detach() + 1) * (1 - write_weights.detach())
    for head in read_weights.detach().unbind(-2):
        missed = missed * (1 - head)
    return missed


IN_USE: Final = 0.5
"""A slot is in use if its usage is above this."""


def released(usage: Weights, age_prev: Weights, pinned: Weights, high: float, low: float) -> Weights:
    """The slots that are released under pressure: of those in use the ones that were not accessed for longest.

    Where more than high · N slots are in use, unpinned slots are released in the order of their age, ties going to the
    lowest slot, until no more than low · N are, or only pinned ones. A released slot is a fresh one: its usage becomes
    0, what it holds is wiped before this step's write, and look-ups that skip unwritten slots pass over it. The choice
    has no gradient.

    Args:
        usage: [B, N], of step t.
        age_prev: [B, N], of step t−1.
        pinned: [B, N], 1 for slots that are never released, 0 for others.
        high, low: shares of the memory, in (0, 1), low at most high.
    Returns:
        [B, N], 1 for slots that are released, 0 for others.
    """
    N, used = usage.shape[-1], usage.detach() > IN_USE
    most, least = math.floor(high * N), math.floor(low * N)
    oldest_first = torch.sort(age_prev.detach(), dim=-1, descending=True, stable=True).indices
    loose = (used & (pinned == 0)).gather(-1, oldest_first)
    count, before = used.sum(-1, keepdim=True), loose.cumsum(-1) - loose.long()
    release = loose & (count > most) & (count - before > least)
    return torch.zeros_like(usage).scatter(-1, oldest_first, release.to(usage.dtype)).detach()


def exists(slots: Scalars | Unused, like: Weights) -> Weights | Unused:
    """Which of the memory's slots a row has: 1 for the first `slots` of them, 0 for others; () where a row has all.

    Args:
        slots: [B], or ().
        like: [B, N], for its N.
    Returns:
        [B, N], 0 or 1; or ().
    """
    if not isinstance(slots, Tensor):
        return ()
    places = torch.arange(like.shape[-1], device=slots.device)
    there: Tensor = (places < slots.unsqueeze(-1)).to(slots.dtype)
    return there


def grow(memory_state: MemoryState, options: MemoryOptions) -> MemoryState:
    """Doubles the slots of the rows that will soon have no fresh one, up to `options.max_memory_size`.

    A row grows where min_i (1 − (1 − u[i])(1 − w^w[i])) > `options.grow_above`: its least used slot, the last write
    counted. Its new slots are those of a fresh state. All rows have as many slots in the tensors as the largest; of
    these a smaller row takes no notice, in no look-up and no allocation.

    Args:
        memory_state: the state after step t−1.
        options: with `overflow="grow"`.
    Returns:
        the state before step t; the one passed in is not changed. At the largest size it is the same.
    Source: Graves et al. 2016 suggest it (growth where the smallest usage passes a threshold).
    """
    u, w, slots = memory_state.usage.detach(), memory_state.write_weights.detach(), memory_state.slots
    there: Any = exists(slots, u)
    counted = (1 - (1 - u) * (1 - w)).masked_fill(there == 0, 1)
    doubled = torch.maximum(slots, (2 * slots).clamp(max=options.max_memory_size))
    slots = torch.where(counted.amin(-1) > options.grow_above, doubled, slots)
    width, most = u.shape[-1], options.max_memory_size or 0
    # At the largest size nothing is asked of the numbers, so that a transform need not know them.
    if width < most and slots.numel():
        memory_state = of_width(memory_state, max(width, int(slots.max())))
    return memory_state._replace(slots=slots)


def trim(memory_state: MemoryState) -> MemoryState:
    """The state of rows with sizes of their own in tensors of the largest row's size."""
    slots = memory_state.slots
    return of_width(memory_state, int(slots.max())) if slots.numel() else memory_state


def pin(memory_state: MemoryState, where: Tensor, pinned: bool = True) -> MemoryState:
    """Keeps slots from being released, or lets go of them again.

    The network itself may still free them or write over them; `resize` to fewer slots keeps them first.

    Args:
        memory_state: of a memory with `overflow="reclaim"`.
        where: [B, N] bool, or [N] without a batch, the slots to pin.
        pinned: False lets go.
    Returns:
        the state; the one passed in is not changed.
    Raises:
        ValueError: the memory does not reclaim, or `where` is of another shape.
        TypeError: `where` is not bool.
    """
    if not isinstance(memory_state.pinned, Tensor):
        raise ValueError("pin needs the state of a memory with overflow='reclaim', which alone releases slots")
    if not isinstance(where, Tensor) or where.dtype != torch.bool:
        raise TypeError(f"where must be a bool tensor, got {where.dtype if isinstance(where, Tensor) else where!r}")
    if where.shape != memory_state.pinned.shape:
        raise ValueError(f"where must have shape {list(memory_state.pinned.shape)}, got {list(where.shape)}")
    return memory_state._replace(pinned=memory_state.pinned.masked_fill(where, float(pinned)))
