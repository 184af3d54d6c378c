"""One step of a sparse memory, which reads and writes a few slots: the reference, on dense tensors.

Slots exist from when they are first taken on; look-ups know no others. What is chosen, the K best of a look-up or the
slot to take, has no gradient; what is done with it has.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from torchdnc.ops.content import content_weights, word_lengths
from torchdnc.ops.interface import oneplus
from torchdnc.ops.links import directional_weights, precedence
from torchdnc.ops.reading import read_weights, read_words
from torchdnc.types import UNUSED, HeadScalars, HeadWeights, HeadWords, Link, Memory, ReadModes, Scalars, Weights, Word

ACCESSED = 0.005
"""A slot counts as accessed at a step when the weights that it is written and read with are more than this in sum."""


class SparseInterface(NamedTuple):
    """The interface vector of a sparse memory in its parts, squashed into their ranges.

    read_keys [B, R, W]; read_strengths [B, R] in [1, inf); write_vector [B, W]; write_gate, again_gate [B] in [0, 1];
    read_modes [B, R, 3], on the simplex: backward, content, forward; () without links.
    """

    read_keys: HeadWords
    read_strengths: HeadScalars
    write_vector: Word
    write_gate: Scalars
    again_gate: Scalars
    read_modes: ReadModes


class SparseSlots(NamedTuple):
    """Everything a sparse memory carries from one step to the next, as dense tensors. All zeros at the start.

    memory [B, N, W]; accessed [B, N], integers: the step at which a slot was last accessed, counted from 1, and 0 for
    never; clock [B]: steps so far; exists [B, N], bool; read_weights [B, R, N], at most K of a head above 0;
    precedence [B, N] and link [B, N, N] with at most K_L entries, of a row and of a column; () without links.
    """

    memory: Memory
    accessed: Tensor
    clock: Tensor
    exists: Tensor
    read_weights: HeadWeights
    precedence: Weights
    link: Link


def sparse_interface_size(word_size: int, read_heads: int, links: bool) -> int:
    """Width of the interface vector: W·R + W + R + 2, and 3R more with links."""
    return (read_heads + 1) * word_size + read_heads + 2 + 3 * read_heads * links


def split_sparse_interface(interface: Tensor, word_size: int, read_heads: int, links: bool) -> SparseInterface:
    """Cuts the interface vector into its parts and squashes each into its range.

    ξ = [k^{r,1..R}; β^{r,1..R}; v; α; γ; π^{1..R}], strengths by oneplus, gates by the logistic function, read modes by
    a softmax over the three, keys and write vector as they are. Without links there is no π.

    Args:
        interface: [..., sparse_interface_size(W, R, links)].
        word_size, read_heads: W and R.
        links: whether there are read modes.
    Raises:
        ValueError: the last dimension is of another size.
    Source: Rae et al. 2016, sections 3.1 and 3.2.
    """
    W, R = word_size, read_heads
    width = sparse_interface_size(W, R, links)
    if interface.shape[-1] != width:
        raise ValueError(f"interface must have {width} features (with W={W}, R={R}), got {interface.shape[-1]}")
    keys, strengths, vector, gates, modes = interface.split([R * W, R, W, 2, 3 * R * links], -1)
    write_gate, again_gate = torch.sigmoid(gates).unbind(-1)
    return SparseInterface(
        read_keys=keys.unflatten(-1, (R, W)),
        read_strengths=oneplus(strengths),
        write_vector=vector,
        write_gate=write_gate,
        again_gate=again_gate,
        read_modes=torch.softmax(modes.unflatten(-1, (R, 3)), -1) if links else UNUSED,
    )


def keep_largest(values: Tensor, count: int, dim: int = -1) -> Tensor:
    """Zeroes all but the `count` largest along a dimension; ties go to the lowest index.

    Args:
        values: non-negative.
        count: at least 1.
    """
    # What is 0 stays so whether it is kept or not, but would have a gradient.
    return values.masked_fill(~(_largest(values, count, dim) & (values > 0)), 0)


def _largest(values: Tensor, count: int, dim: int = -1) -> Tensor:
    """Where the `count` largest are."""
    order = torch.sort(values.detach(), dim=dim, descending=True, stable=True).indices
    largest = order.narrow(dim, 0, min(count, values.shape[dim]))
    return torch.zeros_like(values, dtype=torch.bool).scatter(dim, largest, True)


def oldest_slot(accessed: Tensor) -> Tensor:
    """The slot to take, [B] of [B, N]: the one not accessed for longest, the lowest of those that never were."""
    # Stable, as `argmin` promises nothing of ties.
    return torch.sort(accessed, dim=-1, stable=True).indices[..., 0]


def sparse_content_weights(memory: Memory, exists: Tensor, keys: Tensor, strengths: Tensor, count: int) -> HeadWeights:
    """A look-up by content that finds the `count` most similar of the slots that exist.

    c = softmax over the K largest of β cos(k, M[i]), and 0 elsewhere; cos as in `content_weights`. The gradient of it
    reaches these K slots only.

    Args:
        memory: [B, N, W].
        exists: [B, N], bool.
        keys: [B, R, W].
        strengths: [B, R], in [1, inf).
        count: K.
    Returns:
        [B, R, N], each weighting of sum 1, or 0 where no slot exists.
    Source: Rae et al. 2016, section 3.1.
    """
    # Each head weighs the slots that it has chosen, as if there were no others.
    among = _nearest(memory.detach(), exists, keys.detach(), count).to(memory.dtype)
    memories = memory.unsqueeze(-3).expand(*keys.shape[:-1], -1, -1)
    return content_weights(memories, keys, strengths, among)


def _nearest(memory: Memory, exists: Tensor, keys: Tensor, count: int) -> Tensor:
    """Whether a slot is among the `count` most similar to a key, [B, R, N]; ties go to the lowest slot."""
    similar = keys @ memory.transpose(-1, -2) / word_lengths(memory).unsqueeze(-2)
    seen = exists.unsqueeze(-2).expand_as(similar)
    return _largest(similar.masked_fill(~seen, -torch.inf), count) & seen


def sparse_write_weights(
    taken: Weights, read_weights_prev: HeadWeights, write_gate: Scalars, again_gate: Scalars
) -> Weights:
    """Where to write: w^w = α (γ w̄^r + (1 − γ) e), into what the heads read before, and into the slot taken.

    w̄^r is the mean of the read weights of the heads, e the slot taken.

    Args:
        taken: [B, N], 1 at one slot.
        read_weights_prev: [B, R, N], of step t−1.
        write_gate, again_gate: α and γ, [B].
    Returns:
        [B, N], of sum at most 1.
    Source: Rae et al. 2016, section 3.2.
    """
    again, gate = again_gate.unsqueeze(-1), write_gate.unsqueeze(-1)
    return gate * (again * read_weights_prev.mean(-2) + (1 - again) * taken)


def sparse_write(memory_prev: Memory, taken: Weights, write_weights: Weights, write_vector: Word) -> Memory:
    """The memory after a write: M_t = (1 − e) M_{t−1} + w^w vᵀ. The slot taken is emptied, others are added to.

    Args:
        memory_prev: [B, N, W].
        taken: e, [B, N], 1 at one slot.
        write_weights: [B, N].
        write_vector: [B, W].
    Source: Rae et al. 2016, section 3.2.
    """
    return (1 - taken).unsqueeze(-1) * memory_prev + write_weights.unsqueeze(-1) * write_vector.unsqueeze(-2)


def sparse_link(link_prev: Link, precedence_prev: Weights, taken: Weights, write_weights: Weights, width: int) -> Link:
    """Which slot was written after which, of every slot the strongest few.

    L'[i, j] = (1 − w[i]) L_{t−1}[i, j] + w[i] p_{t−1}[j], L'[i, i] = 0, with w = w^w_t, where the links of the slot
    taken and its precedence, which were those of another word, count as 0. Of L' stay the K_L largest of every row, and
    of those the K_L largest of every column.

    Args:
        link_prev: [B, N, N].
        precedence_prev: [B, N], of step t−1.
        taken, write_weights: [B, N].
        width: K_L.
    Source: Rae et al. 2016, supplementary D; there L and its transpose are kept apart, each sparse by its own rows.
    """
    others = 1 - taken
    kept = link_prev * others.unsqueeze(-1) * others.unsqueeze(-2)
    after = write_weights.unsqueeze(-1)
    linked = (1 - after) * kept + after * (others * precedence_prev).unsqueeze(-2)
    linked.diagonal(dim1=-2, dim2=-1).zero_()
    return keep_largest(keep_largest(linked, width), width, dim=-2)


def sparse_precedence(precedence_prev: Weights, taken: Weights, write_weights: Weights, width: int) -> Weights:
    """How much each slot was the last one written, of the K_L last: the largest of (1 − Σ w) p_{t−1} + w, w = w^w_t.

    Args:
        precedence_prev: [B, N], of sum at most 1; that of the slot taken counts as 0.
        taken, write_weights: [B, N].
        width: K_L.
    Source: Rae et al. 2016, supplementary D.
    """
    return keep_largest(precedence((1 - taken) * precedence_prev, write_weights), width)


def sparse_access(
    interface: SparseInterface, slots: SparseSlots, sparse_reads: int, link_width: int
) -> tuple[HeadWords, SparseSlots]:
    """One step of a sparse memory: take a slot, write, link, read.

    Args:
        interface: as `split_sparse_interface` gives it; with read modes if the memory has links.
        slots: the memory after step t−1.
        sparse_reads: K, slots that a head reads.
        link_width: K_L, links that a slot has in each direction.
    Returns:
        read_words [B, R, W] and the memory after step t. What is passed in is not changed.
    Source: Rae et al. 2016.
    """
    xi, prev = interface, slots
    slot = oldest_slot(prev.accessed).unsqueeze(-1)
    taken = torch.zeros_like(prev.memory[..., 0]).scatter(-1, slot, 1)
    exists = prev.exists.scatter(-1, slot, True)

    written_at = sparse_write_weights(taken, prev.read_weights, xi.write_gate, xi.again_gate)
    memory = sparse_write(prev.memory, taken, written_at, xi.write_vector)

    read_at = sparse_content_weights(memory, exists, xi.read_keys, xi.read_strengths, sparse_reads)
    recent, links = prev.precedence, prev.link
    if isinstance(links, Tensor):
        with torch.no_grad():
            links = sparse_link(prev.link, prev.precedence, taken, written_at, link_width)
            recent = sparse_precedence(prev.precedence, taken, written_at, link_width)
        forward, backward = directional_weights(links, prev.read_weights)
        read_at = keep_largest(read_weights(backward, read_at, forward, xi.read_modes), sparse_reads)

    clock = prev.clock + 1
    accessed = torch.where(written_at + read_at.sum(-2) > ACCESSED, clock.unsqueeze(-1), prev.accessed)
    return read_words(memory, read_at), SparseSlots(memory, accessed, clock, exists, read_at, recent, links)
