"""Dynamic memory allocation: which slots are in use, and which to write next."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from torchdnc.types import UNUSED, HeadScalars, HeadWeights, Unused, Weights


def retention(free_gates: HeadScalars, read_weights_prev: HeadWeights) -> Weights:
    """How much of each slot is kept, given what was read and may be freed: ψ = Π_i (1 − f^i w^{r,i}_{t−1}).

    Args:
        free_gates: [B, R] in [0, 1].
        read_weights_prev: [B, R, N], the read weightings of step t−1.
    Returns:
        [B, N] in [0, 1].
    Source: Graves et al. 2016, Methods, "Dynamic memory allocation".
    """
    kept = (1 - free_gates.unsqueeze(-1) * read_weights_prev).unbind(-2)
    # An explicit product of the few heads: its gradient is exact where factors are zero, nothing is divided.
    result = kept[0]
    for head in kept[1:]:
        result = result * head
    return result


def usage(usage_prev: Weights, write_weights_prev: Weights, retention: Weights) -> Weights:
    """How much each slot is in use: u_t = (1 − (1 − u_{t−1})(1 − w^w_{t−1})) ψ_t.

    The paper writes u + w − u w; this form is the same and stays at exactly 1 once there.

    Args:
        usage_prev: [B, N] in [0, 1].
        write_weights_prev: [B, N], the write weighting of step t−1.
        retention: [B, N] in [0, 1], of step t.
    Returns:
        [B, N] in [0, 1].
    Source: Graves et al. 2016, Methods, "Dynamic memory allocation".
    """
    return (1 - (1 - usage_prev) * (1 - write_weights_prev)) * retention


def allocation_weights(usage: Weights, exists: Weights | Unused = UNUSED) -> Weights:
    """Points at the least used slots: a[φ_j] = (1 − u[φ_j]) Π_{i<j} u[φ_i], φ sorting u in ascending order.

    Ties go to the lowest slot. Exact at 0 and 1: with a free slot the sum is 1, with every usage at 1 it is
    0, and always Σ a = 1 − Π u. The gradient flows through the usages and not through the order, which jumps
    where usages tie.

    Args:
        usage: [B, N] in [0, 1].
        exists: [B, N], 1 for slots that there are, 0 for others, which are never allocated; () for all.
    Returns:
        [B, N], of sum at most 1.
    Source: Graves et al. 2016, Methods, "Dynamic memory allocation".
    """
    if isinstance(exists, Tensor):
        usage = usage.masked_fill(exists == 0, 1)
    ascending, free_list = torch.sort(usage, dim=-1, stable=True)
    # Moved up by one place: before the first slot of the free list there is nothing, of product 1.
    used_before = F.pad(torch.cumprod(ascending, -1), (1, -1), value=1.0)
    return torch.zeros_like(usage).scatter(-1, free_list, (1 - ascending) * used_before)
