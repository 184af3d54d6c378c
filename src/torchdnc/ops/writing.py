"""Where and what to write."""

from __future__ import annotations

import torch

from torchdnc.types import Memory, Scalars, Weights, Word


def write_weights(content: Weights, allocation: Weights, alloc_gate: Scalars, write_gate: Scalars) -> Weights:
    """Chooses between found and fresh slots, or not to write: w^w = g^w (g^a a + (1 − g^a) c^w).

    Args:
        content: [B, N], the content weighting of the write key in the old memory.
        allocation: [B, N].
        alloc_gate: [B] in [0, 1].
        write_gate: [B] in [0, 1].
    Returns:
        [B, N], of sum at most 1.
    Source: Graves et al. 2016, Methods, "Write weighting".
    """
    return write_gate.unsqueeze(-1) * torch.lerp(content, allocation, alloc_gate.unsqueeze(-1))


def deallocate(memory_prev: Memory, retention: Weights) -> Memory:
    """Wipes what is freed: M_{t−1} ∘ ψ_t 1ᵀ, the memory that is then erased and written.

    Args:
        memory_prev: [B, N, W].
        retention: [B, N] in [0, 1], of step t.
    Returns:
        [B, N, W].
    Source: Csordás & Schmidhuber 2019, section 3.2.
    """
    return memory_prev * retention.unsqueeze(-1)


def written(written_prev: Weights, write_weights: Weights) -> Weights:
    """Which slots were ever written to: z_t[i] = 1 where w^w_t[i] > 0, else z_{t−1}[i]. It has no gradient.

    Args:
        written_prev: [B, N], 0 or 1, of step t−1.
        write_weights: [B, N], of step t.
    Returns:
        [B, N], 0 or 1.
    """
    return written_prev.detach().masked_fill(write_weights > 0, 1)


def erase_and_write(memory_prev: Memory, write_weights: Weights, erase: Word, write_vector: Word) -> Memory:
    """Writes one word: M_t = M_{t−1} ∘ (1 − w^w eᵀ) + w^w vᵀ.

    Args:
        memory_prev: [B, N, W].
        write_weights: [B, N].
        erase: [B, W] in [0, 1].
        write_vector: [B, W].
    Returns:
        [B, N, W].
    Source: Graves et al. 2016, Methods, "Memory reading and writing".
    """
    where = write_weights.unsqueeze(-1)
    kept = memory_prev * (1 - where * erase.unsqueeze(-2))
    return torch.addcmul(kept, where, write_vector.unsqueeze(-2))
