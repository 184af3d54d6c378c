"""A sequence there and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from torchdnc.engines.fused.compiled import run, team
from torchdnc.engines.fused.kernels.arrays import Array, Found, Team
from torchdnc.engines.fused.kernels.sparse.arrays import SparseCarried, SparseScratch, SparseSizes, SparseTape
from torchdnc.engines.fused.kernels.sparse.layout import most_touched
from torchdnc.engines.fused.rooms import array, rooms
from torchdnc.engines.fused.sequence import (
    Parameters,
    Wanted,
    begin_controller,
    flat_weights,
    inputs_gradient,
    parameters_gradient,
)
from torchdnc.engines.fused.sparse.tape import Tapes, memory_rows, noted_rows, room_to_keep, scratch_of, tape_of
from torchdnc.engines.fused.sparse.words import Touched, hand_out, take_in
from torchdnc.engines.sparse.index import Index
from torchdnc.engines.sparse.pages import Pages
from torchdnc.engines.sparse.states import SparseState, token
from torchdnc.types import UNUSED, LSTMState


class Leaves(NamedTuple):
    """What of a state has a gradient: hidden and cells of every layer, what stands for the words, read weights, reads.

    Of gradients, None where there is none.
    """

    hidden: Sequence[Any]
    cells: Sequence[Any]
    content: Any
    read_weights: Any
    read_words: Any


class Done(NamedTuple):
    """What forward has made; touched: the words that it came to."""

    features: Tensor
    end: SparseState
    tapes: Tapes
    touched: Touched


class Gradients(NamedTuple):
    """Gradients of the first state, and of inputs and parameters, None where nobody wants them."""

    start: Leaves
    inputs: Tensor | None
    parameters: Parameters | None


def forward(
    sizes: SparseSizes,
    parameters: Parameters,
    epsilon: float,
    start: SparseState,
    inputs: Tensor,
    alive: Array,
    fresh: Array,
) -> Done:
    """Runs the call on the rows of the memory, of which it makes a new version.

    Args:
        sizes, parameters: of the call. epsilon: of the interface's normalisation.
        start: the state before the first step.
        inputs: [T, B, I].
        alive, fresh: [T, B], see `Tape`.
    """
    tapes = room_to_keep(sizes, inputs)
    tape = tape_of(sizes, tapes, alive, fresh)
    begin_controller(sizes, parameters, start, inputs, tape)
    tape.read_weights[0] = array(start.memory.read_weights.flatten(1))
    features = inputs.new_empty(sizes.T, sizes.B, sizes.layers * sizes.H + sizes.R * sizes.W)
    slots = array(start.memory.read_slots.flatten(1)).copy()
    threads, version = _team(sizes, parameters), start.memory.version
    with version.locked():
        pages = version.open(sizes.T)
        existing = pages.existing.copy()
        scratch = scratch_of(threads, sizes, inputs, start.memory, pages.rows)
        journal = pages.journal(sizes.R * sizes.K + sizes.T * most_touched(sizes.R, sizes.K, sizes.links))
        arguments = (
            threads, sizes, flat_weights(parameters, epsilon), slots, memory_rows(pages), noted_rows(journal), tape,
            scratch, array(features),
        )  # fmt: skip
        try:
            if pages.index is None:
                run("sparse_forward", *arguments, 0, 2 * sizes.T)
            else:
                _step_by_step(sizes, pages, pages.index, tape, scratch, arguments)
        finally:
            # Interrupted, it has changed rows all the same; that the journal knows.
            after = version.followed(pages, journal)
    end = _end(sizes, start, tape, slots, scratch)
    end = end._replace(memory=replace(end.memory, version=after))
    return Done(features, end, tapes, Touched(journal.slots, journal.held, existing, np.asarray(fresh.any(0))))


def _step_by_step(
    sizes: SparseSizes, pages: Pages, index: Index, tape: SparseTape, scratch: SparseScratch, arguments: tuple[Any, ...]
) -> None:
    """The steps one by one, with slots proposed by an index between the controller and the memory of each."""
    index.refresh(pages.tables["content"], pages.existing)
    for b in range(sizes.B):
        changed = index.changed(b)
        scratch.stale[b] = len(changed)
        scratch.changed[b, : len(changed)] = changed
    for t in range(sizes.T):
        run("sparse_forward", *arguments, 2 * t, 2 * t + 1)
        keys = tape.interfaces[t if sizes.keep else 0, :, : sizes.R * sizes.W].reshape(sizes.B, sizes.R, sizes.W)
        for b in np.flatnonzero(tape.alive[t]).tolist():
            proposals = None if tape.fresh[: t + 1, b].any() else index.propose(b, keys[b])
            scratch.proposed[b] = 0 if proposals is None else proposals.shape[1]
            if proposals is not None:
                scratch.proposals[b, :, : proposals.shape[1]] = proposals
        run("sparse_forward", *arguments, 2 * t + 1, 2 * t + 2)


def backward(
    sizes: SparseSizes,
    parameters: Parameters,
    inputs: Tensor,
    tapes: Tapes,
    touched: Touched,
    alive: Array,
    fresh: Array,
    d_features: Tensor | None,
    d_end: Leaves,
    wanted: Wanted,
) -> Gradients:
    """Gradients of a sequence, from those of its features and of its final state."""
    B, H, R, K, W = sizes.B, sizes.H, sizes.R, sizes.K, sizes.W
    zeros = lambda *shape: inputs.new_zeros(shape)  # noqa: E731
    if d_features is None:
        d_features = zeros(sizes.T, B, sizes.layers * H + R * W)
    rows, passed = take_in(d_end.content, touched, W, inputs)
    hidden, cells = (
        array(torch.stack([zeros(B, H) if layer is None else layer for layer in layers]) if layers else zeros(0, B, H))
        for layers in (d_end.hidden, d_end.cells)
    )
    given = [d_end.read_words, d_end.read_weights]
    reads, weights = (
        zeros(B, width) if leaf is None else leaf.reshape(B, width).clone()
        for leaf, width in zip(given, (R * W, R * K), strict=True)
    )
    carried = SparseCarried(hidden, cells, array(reads), rows, array(weights))
    tape = tape_of(sizes, tapes, alive, fresh)
    normals = tape.interfaces.shape if sizes.normed else (0, 0, 0)
    found = Found(*rooms(inputs, tape.gates.shape, tape.interfaces.shape, normals))
    threads = _team(sizes, parameters)
    scratch = scratch_of(threads, sizes, inputs, None, 0)
    run("sparse_backward", threads, sizes, flat_weights(parameters), tape, scratch, array(d_features), carried, found)
    d_start = Leaves(
        hidden=torch.from_numpy(carried.hidden).unbind(0),
        cells=torch.from_numpy(carried.cells).unbind(0),
        content=hand_out(carried.rows, passed, touched, (B, sizes.N, W)),
        read_weights=weights.view(B, R, K),
        read_words=reads.view(B, R, W),
    )
    d_inputs = inputs_gradient(sizes, parameters, found) if wanted.inputs else None
    return Gradients(d_start, d_inputs, parameters_gradient(sizes, inputs, tape, found) if wanted.parameters else None)


def _team(sizes: SparseSizes, parameters: Parameters) -> Team:
    weights = sum(weight.numel() for weight in (*parameters.weights, parameters.interface))
    return team(work=sizes.T * sizes.B * weights)


def _end(sizes: SparseSizes, start: SparseState, tape: SparseTape, slots: Array, scratch: SparseScratch) -> SparseState:
    """The state after the last step, sharing nothing that backward reads; its memory still has the old version."""
    B, R, K, W = sizes.B, sizes.R, sizes.K, sizes.W
    last = sizes.T if sizes.keep else sizes.T % 2
    hidden, cells = (
        tuple(torch.from_numpy(layer[last].copy()) for layer in layers) for layers in (tape.hidden, tape.cells)
    )
    memory = replace(
        start.memory,
        content=token(start.memory.version.layout),
        read_slots=torch.from_numpy(slots).view(B, R, K),
        read_weights=torch.from_numpy(tape.read_weights[last].copy()).view(B, R, K),
        precedence_slots=torch.from_numpy(scratch.recent_slots) if sizes.links else UNUSED,
        precedence=torch.from_numpy(scratch.recent) if sizes.links else UNUSED,
    )
    reads = torch.from_numpy(tape.reads[last].copy()).view(B, R, W)
    return SparseState(LSTMState(hidden, cells) if sizes.recurrent else (), memory, reads)
