"""What one step did to the memory, for those who watch it."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchdnc.ops.allocation import retention, usage
from torchdnc.ops.overflow import exists, grow
from torchdnc.types import Interface, MemoryOptions, MemoryState, Scalars


class MemoryReport(NamedTuple):
    """The memory at every step, each [T, B], or [B] of a single step.

    occupancy: mean usage of the slots that there are, in [0, 1]. free_slots: Σ (1 − u). lost: of the write of this
    step, what should have gone to fresh slots and went nowhere, g^w g^a Π u, in [0, 1]. overwritten: how many slots in
    use were written to, Σ w^w u. evicted: how many were released, in usage. slots: how many there are; 0 past the end
    of a sequence.
    """

    occupancy: Scalars
    free_slots: Scalars
    lost: Scalars
    overwritten: Scalars
    evicted: Scalars
    slots: Scalars

    def summary(self) -> dict[str, Tensor]:
        """Per sequence [B]: the highest occupancy, the fewest free slots, the most slots, and the sums of the rest."""
        return {
            "occupancy": self.occupancy.amax(0),
            "free_slots": self.free_slots.masked_fill(self.slots == 0, torch.inf).amin(0).nan_to_num(posinf=0.0),
            "lost": self.lost.sum(0),
            "overwritten": self.overwritten.sum(0),
            "evicted": self.evicted.sum(0),
            "slots": self.slots.amax(0),
        }


def memory_report(
    interface: Interface, before: MemoryState, after: MemoryState, options: MemoryOptions
) -> MemoryReport:
    """What a step from one state of the memory to the next did, without a gradient.

    Args:
        interface, before, options: the arguments of `access`.
        after: the state that it returned.
    """
    if options.overflow == "grow":
        before = grow(before, options)
    used, there = after.usage.detach(), _there(after)
    unreleased = usage(before.usage, before.write_weights, retention(interface.free_gates, before.read_weights))
    slots, free = there.sum(-1), ((1 - used) * there).sum(-1)
    report = MemoryReport(
        occupancy=1 - free / slots,
        free_slots=free,
        lost=interface.write_gate * interface.alloc_gate * used.masked_fill(there == 0, 1).prod(-1),
        overwritten=(after.write_weights * used).sum(-1),
        evicted=(unreleased - used).sum(-1),
        slots=slots,
    )
    return MemoryReport(*map(Tensor.detach, report))


def _there(state: MemoryState) -> Tensor:
    """1 for slots that there are, [B, N]."""
    there: Any = exists(state.slots, state.usage)
    return there if isinstance(there, Tensor) else torch.ones_like(state.usage)
