"""The reference engine of the sparse memory: a loop over `ops.sparse_access`, on dense tensors, with autograd.

Every step goes through all slots that exist, and as many more as the call has steps. Others are held against it.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from torchdnc.engines.sparse.dense import condense, snapshot
from torchdnc.engines.sparse.states import SparseState
from torchdnc.engines.unroll import unroll
from torchdnc.ops import sparse_access, split_sparse_interface


def run(
    network: Any,
    inputs: Tensor,
    state: SparseState,
    lengths: Tensor | None = None,
    reset: Tensor | None = None,
) -> tuple[Tensor, SparseState]:
    """The step over a whole sequence.

    Args:
        network: the parts of a SparseDNC.
        inputs: [T, B, I].
        state: the state before the first step; it reads as before afterwards.
        lengths: [B] integers from 0 to T: a row's state stays as it is from this step on.
        reset: [T, B] bool: rows that start afresh, in an empty memory, before that step; past a row's length ignored.
    Returns:
        features [T, B, F + R·W], the controller's and then the words read, and the state after the last step.
    """
    layout = state.memory.version.layout
    if state.memory.version.is_stored:
        raise ValueError('engine "reference" has no storage: use engine="fused"')
    if layout.approximate:
        raise ValueError('engine "reference" looks up exactly: use look_up="exact" or engine="fused"')
    existing = state.memory.version.existing()
    slots = snapshot(state.memory, min(layout.memory_size, max(existing, default=0) + len(inputs)))
    start = state.controller, slots, state.read_words
    zeros = pytree.tree_map(torch.zeros_like, start)
    initial = network.controller.initial_state(inputs.shape[1]), *zeros[1:]
    features, (controller, slots, read_words) = unroll(partial(step, network), inputs, start, initial, lengths, reset)
    return features, SparseState(controller, condense(slots, layout, network.sparse_reads), read_words)


def step(network: Any, step_input: Tensor, state: Any) -> tuple[Tensor, Any]:
    """One step: χ = [x; r_{t−1}], h = controller(χ), ξ = interface(h), then the memory.

    Under autocast the memory keeps the precision of its state.

    Args:
        network: the parts of a SparseDNC.
        step_input: [B, I].
        state: the controller's, the memory's as `SparseSlots`, and the words read.
    Returns:
        features [B, F + R·W] and the new state.
    """
    controller, slots, read_words = state
    hidden, controller = network.controller(torch.cat([step_input, read_words.flatten(-2)], -1), controller)
    raw = network.interface(hidden).to(read_words.dtype)
    with torch.autocast(raw.device.type, enabled=False):
        xi = split_sparse_interface(raw, network.word_size, network.read_heads, network.links)
        read_words, slots = sparse_access(xi, slots, network.sparse_reads, network.link_width)
    return torch.cat([hidden, read_words.flatten(-2)], -1), (controller, slots, read_words)
