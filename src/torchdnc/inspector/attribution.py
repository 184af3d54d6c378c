"""Where what is read from a memory came from."""

from __future__ import annotations

import torch
from torch import Tensor


def origins(origins_prev: Tensor, write_weights: Tensor, part: int) -> Tensor:
    """How much of each slot each part of the input wrote: o_t(i, s) = (1 − w_t(i)) o_{t−1}(i, s) + w_t(i) [s = s_t].

    A write takes its weight's share of a slot, and leaves the rest to those who were there before. What a memory with
    `deallocation` wipes stays with those who wrote it.

    Args:
        origins_prev: [N, S], each row of sum at most 1; zero where nothing was written.
        write_weights: [N] in [0, 1], of step t.
        part: s_t, the part of the input, of S, that step t belongs to.
    Returns:
        [N, S].
    """
    kept = origins_prev * (1 - write_weights).unsqueeze(-1)
    kept[:, part] += write_weights
    return kept


def read_shares(writes: Tensor, reads: Tensor, parts: Tensor, asking: Tensor) -> Tensor:
    """How much of what some steps read was written by each part: Σ_t Σ_r Σ_i w^r_{t,r}(i) o_t(i, s), normalised.

    Args:
        writes: [T, N], write weightings.
        reads: [T, R, N], read weightings; a step reads after it has written.
        parts: [T] integers from 0, the part of the input that each step belongs to.
        asking: [T] bool, the steps whose reads count.
    Returns:
        [S], S = 1 + the largest part; of sum 1, or all zero if nothing that was written was read.
    """
    T, N = writes.shape
    origin = writes.new_zeros(N, int(parts.max()) + 1)
    shares = writes.new_zeros(origin.shape[1])
    for t in range(T):
        origin = origins(origin, writes[t], int(parts[t]))
        if asking[t]:
            shares += reads[t].sum(0) @ origin
    total = shares.sum()
    return shares / total if total > 0 else torch.zeros_like(shares)
