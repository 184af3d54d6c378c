"""A sparse memory as dense tensors, and back: for the reference engine, and for whoever looks at a state."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from torchdnc.engines.sparse.pages import CLOCK, EXISTING, Layout, Pages, Version
from torchdnc.engines.sparse.states import SparseMemoryState, token
from torchdnc.ops import SparseSlots
from torchdnc.ops.content import word_lengths
from torchdnc.types import UNUSED


def snapshot(state: SparseMemoryState, slots: int | None = None) -> SparseSlots:
    """The memory as dense tensors of its own, through which gradients flow.

    Args:
        state: with a batch dimension.
        slots: how many to show, at least as many as exist; None for just these, and one where there is none.
    Returns:
        all of it, [B, slots, ·].
    """
    layout = state.version.layout
    with state.version.locked():
        pages = state.version.read()
        existing = np.zeros(layout.batch_size, np.int32) if pages is None else pages.existing.copy()
        M = max(1, int(existing.max(initial=0))) if slots is None else slots
        words, accessed, clock, link = _dense(layout, pages, M)
    exists = torch.arange(M) < torch.from_numpy(existing).unsqueeze(-1)
    linked = layout.link_width > 0
    return SparseSlots(
        memory=_Words.apply(state.content, words, exists),
        accessed=accessed,
        clock=clock,
        exists=exists,
        read_weights=_scatter(state.read_slots, state.read_weights, M),
        precedence=_scatter(state.precedence_slots, state.precedence, M) if linked else UNUSED,
        link=link if linked else UNUSED,
    )


def _dense(layout: Layout, pages: Pages | None, M: int) -> tuple[Tensor, ...]:
    """Words, when they were accessed, steps so far and links of the first M slots."""
    B, W, links = layout.batch_size, layout.word_size, layout.link_width
    words, accessed = torch.zeros(B, M, W, dtype=layout.dtype), torch.zeros(B, M, dtype=torch.int64)
    clock, link = torch.zeros(B, dtype=torch.int64), torch.zeros(B, M * bool(links), M, dtype=layout.dtype)
    for b in range(B if pages is not None else 0):
        assert pages is not None
        n = int(pages.existing[b])
        table = {name: torch.from_numpy(rows[b]) for name, rows in pages.tables.items()}
        words[b, :n], accessed[b, :n] = table["content"][: n * W].view(n, W), table["accessed"][:n].long()
        clock[b] = int(pages.counts[b, CLOCK])
        if links:
            slots = table["back_slots"][: n * links].view(n, links)
            link[b, :n] = _scatter(slots, table["back"][: n * links].view(n, links), M)
    return words, accessed, clock, link


def _scatter(slots: Any, weights: Any, M: int) -> Tensor:
    """[..., M] of the weights of some slots, each of which is there once; -1 for none."""
    # A place behind the last one takes what is nowhere.
    places = torch.where(slots < 0, M, slots).long()
    room: Tensor = weights.new_zeros(*weights.shape[:-1], M + 1)
    return room.scatter(-1, places, weights)[..., :M]


def condense(slots: SparseSlots, layout: Layout, sparse_reads: int) -> SparseMemoryState:
    """A memory of the same content with pages of its own; the opposite of `snapshot`."""
    read_slots, read_weights = _strongest(slots.read_weights, sparse_reads)
    precedence_slots: Any = UNUSED
    precedence: Any = UNUSED
    if layout.link_width:
        precedence_slots, precedence = _strongest(slots.precedence, layout.link_width)
    return SparseMemoryState(
        content=_Content.apply(slots.memory, layout),
        read_slots=read_slots,
        read_weights=read_weights,
        precedence_slots=precedence_slots,
        precedence=precedence,
        version=Version(layout, _pages(slots, layout)),
    )


def _strongest(weights: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Slots and weights of the largest, -1 and 0 where there are fewer; ties go to the lowest slot."""
    slots = torch.sort(weights.detach(), dim=-1, descending=True, stable=True).indices[..., :count]
    values = weights.gather(-1, slots)
    pad = (0, count - slots.shape[-1])
    slots = torch.where(values > 0, slots, -1).to(torch.int32)
    return torch.nn.functional.pad(slots, pad, value=-1), torch.nn.functional.pad(values, pad)


def _pages(slots: SparseSlots, layout: Layout) -> Pages:
    B, links = layout.batch_size, layout.link_width
    existing = slots.exists.sum(-1)
    pages = Pages(layout, max(1, int(existing.max()) if B else 1))
    for b, n in enumerate(existing.tolist()):
        words = slots.memory[b, :n].detach()
        found = {"content": words, "lengths": word_lengths(words), "accessed": slots.accessed[b, :n]}
        if links:
            link = slots.link[b, :n, :n]
            found["back_slots"], found["back"] = _strongest(link, links)
            found["ahead_slots"], found["ahead"] = _strongest(link.mT, links)
        for name, rows in found.items():
            pages.tables[name][b, : rows.numel()] = rows.reshape(-1).numpy()
        pages.counts[b, EXISTING], pages.counts[b, CLOCK] = n, int(slots.clock[b])
    pages.grow(0)
    pages.relink()
    return pages


class _Words(torch.autograd.Function):
    """The words of a state, as a function of what stands for them."""

    @staticmethod
    def forward(ctx: Any, content: Tensor, words: Tensor, exists: Tensor) -> Tensor:
        ctx.shape = content.shape
        ctx.save_for_backward(exists)
        return words

    @staticmethod
    def backward(ctx: Any, d_words: Tensor) -> tuple[Tensor, None, None]:
        (exists,) = ctx.saved_tensors
        places = exists.nonzero().T
        return sparse_gradient(places, d_words[exists], ctx.shape), None, None


class _Content(torch.autograd.Function):
    """What stands for the words of a state, as a function of them."""

    @staticmethod
    def forward(ctx: Any, words: Tensor, layout: Layout) -> Tensor:
        ctx.shape = words.shape
        ctx.set_materialize_grads(False)
        return token(layout)

    @staticmethod
    def backward(ctx: Any, d_content: Tensor | None) -> tuple[Tensor | None, None]:
        if d_content is None:
            return None, None
        B, M, W = ctx.shape
        if not d_content.is_sparse:
            return d_content[:, :M], None
        d_content = d_content.coalesce()
        (rows, slots), values = d_content.indices(), d_content.values()
        there = slots < M
        return values.new_zeros(B, M, W).index_put((rows[there], slots[there]), values[there]), None


def sparse_gradient(places: Tensor, values: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A gradient of what stands for the words, of a few of them: rows of the batch and slots [2, n], and [n, W]."""
    return torch.sparse_coo_tensor(places, values, shape, check_invariants=False)
