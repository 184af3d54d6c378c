"""The gradient of one step of the memory by hand: the equations' gradients of `derivation`, composed.

Checked against autograd, and the compiled kernels against it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from torchdnc import ops
from torchdnc.engines.fused.derivation import (
    allocation_weights_backward,
    content_weights_backward,
    deallocate_backward,
    directional_weights_backward,
    erase_and_write_backward,
    link_backward,
    precedence_backward,
    read_weights_backward,
    read_words_backward,
    refuse_underived,
    retention_backward,
    usage_backward,
    write_weights_backward,
)
from torchdnc.ops.access import searched
from torchdnc.types import MARKS, PAPER, UNUSED, HeadWeights, HeadWords, Interface, MemoryOptions, MemoryState, Weights


def access_backward(
    interface: Interface,
    state_prev: MemoryState,
    state: MemoryState,
    d_read_words: HeadWords,
    d_state: MemoryState,
    options: MemoryOptions = PAPER,
) -> tuple[Interface, MemoryState]:
    """The gradient of `ops.access`: its equations in reverse order.

    What lies between the two states and was not kept is computed again.

    Args:
        interface, state_prev, options: the arguments of the step.
        state: the state that it returned.
        d_read_words, d_state: the gradients of what it returned, from the loss and from later steps.
    Returns:
        the gradients of interface and state_prev.
    """
    refuse_underived(options)
    d_reading, d_state, d_read_weights_prev = _reading_backward(
        interface, state_prev, state, d_read_words, d_state, options
    )
    d_writing, d_prev = _writing_backward(interface, state_prev, state, d_state, options)
    d_prev = d_prev._replace(read_weights=d_prev.read_weights + d_read_weights_prev)
    return Interface(**d_reading, **d_writing), d_prev


def _reading_backward(
    xi: Interface,
    prev: MemoryState,
    state: MemoryState,
    d_read_words: HeadWords,
    d_state: MemoryState,
    options: MemoryOptions,
) -> tuple[dict[str, Any], MemoryState, HeadWeights]:
    """Back from the words read to memory and link of step t, whose gradients in d_state are complete on return.

    Returns also the gradients of this part of the interface, and that of w^r_{t−1} by way of the links.
    """
    d_memory_by_words, d_heads_by_words = read_words_backward(state.memory, state.read_weights, d_read_words)
    looked_up = state.memory, xi.read_keys, xi.read_strengths, searched(state), xi.read_masks
    d_heads = d_state.read_weights + d_heads_by_words
    if options.links == "none":
        d_content, d_modes, d_link, d_read_weights_prev = d_heads, UNUSED, UNUSED, torch.zeros_like(prev.read_weights)
    else:
        forward, backward = ops.directional_weights(state.link, prev.read_weights)
        d_backward, d_content, d_forward, d_modes = read_weights_backward(
            backward, ops.content_weights(*looked_up), forward, xi.read_modes, d_heads
        )
        d_link_by_heads, d_read_weights_prev = directional_weights_backward(
            state.link, prev.read_weights, d_forward, d_backward
        )
        d_link = d_state.link + d_link_by_heads
    d_memory_by_content, d_keys, d_strengths, _, d_masks = content_weights_backward(*looked_up, d_content)

    d_xi = {"read_keys": d_keys, "read_strengths": d_strengths, "read_modes": d_modes, "read_masks": d_masks}
    d_memory = d_state.memory + d_memory_by_words + d_memory_by_content
    return d_xi, d_state._replace(memory=d_memory, link=d_link), d_read_weights_prev


def _writing_backward(
    xi: Interface, prev: MemoryState, state: MemoryState, d_state: MemoryState, options: MemoryOptions
) -> tuple[dict[str, Any], MemoryState]:
    """Back from the state of step t to the one before. All but the usage went through the write weighting w."""
    w, retention = state.write_weights, ops.retention(xi.free_gates, prev.read_weights)
    there = ops.exists(prev.slots, w)
    counted = prev.write_weights if options.usage_gradient else prev.write_weights.detach()
    held, gone = ops.deallocate(prev.memory, retention) if options.deallocation else prev.memory, None
    if options.overflow == "reclaim":
        used = ops.usage(prev.usage, counted, retention)
        gone = ops.released(used, prev.age, prev.pinned, options.high_watermark, options.least_in_use) != 0
        held = held.masked_fill(gone.unsqueeze(-1), 0)
    d_held, d_w_by_memory, d_erase, d_vector = erase_and_write_backward(
        held, w, xi.erase, xi.write_vector, d_state.memory
    )
    d_link_prev, d_precedence_prev, d_w_by_links = _linking_backward(prev, w, d_state, options)
    d_w = d_state.write_weights + d_w_by_links + d_w_by_memory

    looked_up = prev.memory, xi.write_key, xi.write_strength, searched(prev), xi.write_mask
    allocation = ops.allocation_weights(state.usage, there)
    d_content, d_allocation, d_alloc_gate, d_write_gate = write_weights_backward(
        ops.content_weights(*looked_up), allocation, xi.alloc_gate, xi.write_gate, d_w
    )
    d_memory_by_content, d_key, d_strength, _, d_mask = content_weights_backward(*looked_up, d_content)

    d_usage = d_state.usage + allocation_weights_backward(state.usage, there, d_allocation)
    if gone is not None:
        d_usage, d_held = d_usage.masked_fill(gone, 0), d_held.masked_fill(gone.unsqueeze(-1), 0)
    d_usage_prev, d_counted, d_retention = usage_backward(prev.usage, counted, retention, d_usage)
    if options.deallocation:
        d_held, d_retention_by_memory = deallocate_backward(prev.memory, retention, d_held)
        d_retention = d_retention + d_retention_by_memory
    d_free_gates, d_read_weights_prev = retention_backward(xi.free_gates, prev.read_weights, d_retention)

    d_xi: dict[str, Any] = {
        "write_key": d_key,
        "write_strength": d_strength,
        "erase": d_erase,
        "write_vector": d_vector,
    }
    d_xi |= {"free_gates": d_free_gates, "alloc_gate": d_alloc_gate, "write_gate": d_write_gate, "write_mask": d_mask}
    return d_xi, MemoryState(
        memory=d_held + d_memory_by_content,
        usage=d_usage_prev,
        precedence=d_precedence_prev,
        link=d_link_prev,
        write_weights=d_counted if options.usage_gradient else torch.zeros_like(d_counted),
        read_weights=d_read_weights_prev,
        **{name: _none_of(getattr(prev, name)) for name in MARKS},
    )


def _linking_backward(
    prev: MemoryState, w: Weights, d_state: MemoryState, options: MemoryOptions
) -> tuple[Any, Any, Tensor]:
    """Back from link and precedence of step t to those of the step before, and w; without links there are none."""
    if options.links == "none":
        return UNUSED, UNUSED, torch.zeros_like(w)
    d_link_prev, d_precedence_by_link, d_w_by_link = link_backward(prev.link, prev.precedence, w, d_state.link)
    d_precedence_prev, d_w_by_precedence = precedence_backward(prev.precedence, w, d_state.precedence)
    return d_link_prev, d_precedence_prev + d_precedence_by_link, d_w_by_link + d_w_by_precedence


def _none_of(mark: Any) -> Any:
    """The gradient of a mark: zeros, if there is one."""
    return torch.zeros_like(mark) if isinstance(mark, Tensor) else UNUSED


class Access(torch.autograd.Function):
    """`access` of the leaves of its arguments, one by one, as autograd wants them."""

    @staticmethod
    def forward(ctx: Any, options: MemoryOptions, structure: Any, *leaves: Tensor) -> tuple[Tensor, ...]:
        interface, state_prev = pytree.tree_unflatten(leaves, structure)
        refuse_underived(options)
        read_words, state = ops.access(interface, state_prev, options)
        ctx.options, ctx.structure = options, structure
        after = pytree.tree_leaves(state)
        ctx.save_for_backward(*leaves, *after)
        marks = (getattr(state, name) for name in MARKS)
        ctx.mark_non_differentiable(*(mark for mark in marks if isinstance(mark, Tensor)))
        return read_words, *after

    @staticmethod
    def backward(ctx: Any, d_read_words: Tensor, *d_after: Tensor) -> tuple[Tensor | None, ...]:
        leaves, after = ctx.saved_tensors[: -len(d_after)], ctx.saved_tensors[-len(d_after) :]
        interface, state_prev = pytree.tree_unflatten(leaves, ctx.structure)
        # A state after a step has the fields of the one before.
        state, d_state = (pytree.tree_unflatten(each, pytree.tree_structure(state_prev)) for each in (after, d_after))
        d_interface, d_prev = access_backward(interface, state_prev, state, d_read_words, d_state, ctx.options)
        return None, None, *pytree.tree_leaves((d_interface, d_prev))


def access(
    interface: Interface, memory_state: MemoryState, options: MemoryOptions = PAPER
) -> tuple[HeadWords, MemoryState]:
    """`ops.access`, whose gradient is taken by `access_backward`; arguments, result and source as there."""
    if options.overflow == "grow":
        memory_state = ops.grow(memory_state, options)
    leaves, structure = pytree.tree_flatten((interface, memory_state))
    read_words, *after = Access.apply(options, structure, *leaves)
    return read_words, pytree.tree_unflatten(after, pytree.tree_structure(memory_state))
