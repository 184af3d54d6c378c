"""The fused engine of the sparse memory: a whole sequence as one function of autograd, on rows changed in place.

Forward writes what each step read on the tape, so that backward needs no memory as it was: it goes through the steps
with the gradients of the words that the call came to, and leaves the rows alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from torchdnc.engines.fused.compiled import run as run_kernel
from torchdnc.engines.fused.compiled import team
from torchdnc.engines.fused.function import flat, needs_reference
from torchdnc.engines.fused.kernels.arrays import Array, Found, Team
from torchdnc.engines.fused.kernels.sparse.arrays import (
    Journal as Noted,
)
from torchdnc.engines.fused.kernels.sparse.arrays import (
    Rows,
    SparseCarried,
    SparseScratch,
    SparseSizes,
    SparseTape,
)
from torchdnc.engines.fused.kernels.sparse.layout import most_touched, numbers_size, slots_size
from torchdnc.engines.fused.sequence import (
    Parameters,
    array,
    begin_controller,
    cut,
    flat_weights,
    inputs_gradient,
    parameters_gradient,
    rooms,
    stacked,
    starts,
)
from torchdnc.engines.fused.whole import parameters_of
from torchdnc.engines.sparse.dense import sparse_gradient
from torchdnc.engines.sparse.pages import Journal, Pages
from torchdnc.engines.sparse.states import SparseMemoryState, SparseState, token
from torchdnc.types import UNUSED, LSTMState


class Call(NamedTuple):
    """What a call is besides its tensors; memory: before the first step; alive, fresh: see `SparseTape`."""

    sizes: SparseSizes
    epsilon: float
    memory: SparseMemoryState
    alive: Array
    fresh: Array


class Tapes(NamedTuple):
    """The tape as tensors, for autograd to save: its numbers, and the places of slots."""

    numbers: Tensor
    places: Tensor


def run(
    network: Any,
    inputs: Tensor,
    state: SparseState,
    lengths: Tensor | None = None,
    reset: Tensor | None = None,
) -> tuple[Tensor, SparseState]:
    """The whole sequence; see `engines.sparse.reference.run` for the arguments."""
    T, B, _ = inputs.shape
    alive = np.ones((T, B), np.bool_) if lengths is None else np.arange(T)[:, None] < lengths.numpy()
    fresh = np.zeros_like(alive) if reset is None else alive & reset.numpy()
    if lengths is not None:
        inputs = inputs.masked_fill(~torch.from_numpy(alive).unsqueeze(-1), 0)
    parameters, epsilon = parameters_of(network, None)
    sizes = _sizes(network, inputs, state, parameters)
    ends: list[SparseMemoryState] = []
    features, *leaves = SparseSequence.apply(
        Call(sizes, epsilon, state.memory, alive, fresh), ends, inputs, *_leaves_of(state), *flat(parameters)
    )
    controller, (content, read_weights, read_words), _ = _state_of(sizes, leaves)
    memory = replace(ends[0], content=content, read_weights=read_weights)
    return features, SparseState(controller, memory, read_words)


class SparseSequence(torch.autograd.Function):
    """(features, leaves of the final state) of (inputs, leaves of the first state, leaves of the parameters).

    To `ends` is added the final memory, whose slots and version are no tensors of autograd.
    """

    @staticmethod
    def forward(ctx: Any, call: Call, ends: list[SparseMemoryState], inputs: Tensor, *leaves: Tensor) -> Any:
        controller, memory, parameters = _grouped(call.sizes, leaves)
        keep = call.sizes.keep and any(ctx.needs_input_grad)
        sizes = call.sizes._replace(keep=keep)
        state = SparseState(controller, replace(call.memory, read_weights=memory[1]), memory[2])
        done = forward(sizes, parameters, call.epsilon, state, inputs, call.alive, call.fresh)
        ends.append(done.end.memory)
        if keep:
            ctx.set_materialize_grads(False)
            ctx.call, ctx.journal = call, (done.journal.slots, done.journal.held, done.existing)
            ctx.save_for_backward(inputs, *leaves, *done.tapes)
        return done.features, *_leaves_of(done.end)

    @staticmethod
    def backward(ctx: Any, d_features: Tensor | None, *d_leaves: Tensor | None) -> Any:
        call: Call = ctx.call
        inputs, *leaves, numbers, places = ctx.saved_tensors
        given = [leaf for leaf in (d_features, *d_leaves) if leaf is not None]
        if needs_reference(*given):
            raise RuntimeError(
                "a sparse memory has no second derivatives (create_graph=True) and no batches of gradients "
                '(is_grads_batched=True) on engine "fused": use engine="reference"'
            )
        _, _, parameters = _grouped(call.sizes, leaves)
        with torch.autocast("cpu", enabled=False):
            d_start, d_inputs, d_parameters = backward(
                call, parameters, inputs, Tapes(numbers, places), ctx.journal, d_features, d_leaves,
                wants=(ctx.needs_input_grad[2], any(ctx.needs_input_grad[3 + len(d_leaves) :])),
            )  # fmt: skip
        others = [None] * (len(leaves) - len(d_leaves)) if d_parameters is None else flat(d_parameters)
        return None, None, d_inputs, *d_start, *others


class Done(NamedTuple):
    """What forward has made: `existing` [B], the slots that existed before."""

    features: Tensor
    end: SparseState
    tapes: Tapes
    journal: Journal
    existing: Array


def forward(
    sizes: SparseSizes,
    parameters: Parameters,
    epsilon: float,
    start: SparseState,
    inputs: Tensor,
    alive: Array,
    fresh: Array,
) -> Done:
    """Runs the call on the rows of the memory, and makes of them a new version."""
    flat_inputs = inputs.reshape(sizes.T * sizes.B, sizes.I)
    tapes = _room_to_keep(sizes, inputs)
    tape = _tape(sizes, tapes, alive, fresh)
    begin_controller(sizes, start, tape)
    tape.read_weights[0] = array(start.memory.read_weights.flatten(1))
    for gates, weight, bias in zip(tape.gates, parameters.weights, parameters.biases, strict=True):
        torch.addmm(bias, flat_inputs, weight[:, : sizes.I].t(), out=torch.from_numpy(gates).flatten(0, 1))
    features = inputs.new_empty(sizes.T, sizes.B, sizes.layers * sizes.H + sizes.R * sizes.W)
    slots = array(start.memory.read_slots.flatten(1)).copy()
    version = start.memory.version
    with version.locked():
        pages = version.open(sizes.T)
        existing = pages.existing.copy()
        threads = team(work=sizes.T * sum(weight.numel() for weight in (*parameters.weights, parameters.interface)))
        scratch = _scratch(threads, sizes, inputs, start.memory, pages.rows)
        journal = pages.journal(sizes.R * sizes.K + sizes.T * most_touched(sizes.R, sizes.K, sizes.links))
        run_kernel(
            "sparse_forward", threads, sizes, flat_weights(parameters, epsilon), slots, _rows(pages), _noted(journal),
            tape, scratch, array(features),
        )  # fmt: skip
        version = version.followed(pages, journal)
    end = _end(sizes, start, tape, slots, scratch)
    return Done(features, end._replace(memory=replace(end.memory, version=version)), tapes, journal, existing)


def backward(
    call: Call,
    parameters: Parameters,
    inputs: Tensor,
    tapes: Tapes,
    journal: tuple[Array, Array, Array],
    d_features: Tensor | None,
    d_leaves: Sequence[Tensor | None],
    wants: tuple[bool, bool],
) -> tuple[list[Tensor | None], Tensor | None, Parameters | None]:
    """Gradients of the leaves of the first state, and where they are wanted of the inputs and of the parameters."""
    sizes = call.sizes._replace(keep=True)
    B, H, R, K, W = sizes.B, sizes.H, sizes.R, sizes.K, sizes.W
    zeros = lambda *shape: inputs.new_zeros(shape)  # noqa: E731
    if d_features is None:
        d_features = zeros(sizes.T, B, sizes.layers * H + R * W)
    controller, (d_content, d_weights, d_reads), _ = _state_of(sizes, d_leaves)
    hidden, cells = (
        stacked(tuple(zeros(B, H) if leaf is None else leaf for leaf in part), inputs).copy()
        for part in controller or ((), ())
    )
    slots, held, _ = journal
    rows, passed = _take_in(d_content, slots, held, W, inputs)
    carried = SparseCarried(
        hidden=hidden,
        cells=cells,
        reads=array((zeros(B, R * W) if d_reads is None else d_reads).reshape(B, R * W)).copy(),
        rows=rows,
        weights=array((zeros(B, R * K) if d_weights is None else d_weights).reshape(B, R * K)).copy(),
    )
    tape = _tape(sizes, tapes, call.alive, call.fresh)
    normals = tape.interfaces.shape if sizes.normed else (0, 0, 0)
    found = Found(*rooms(inputs, tape.gates.shape, tape.interfaces.shape, normals))
    threads = team(work=sizes.T * sum(weight.numel() for weight in (*parameters.weights, parameters.interface)))
    scratch = _scratch(threads, sizes, inputs, call.memory, 0)
    run_kernel(
        "sparse_backward", threads, sizes, flat_weights(parameters), tape, scratch, array(d_features), carried, found
    )
    d_start: list[Tensor | None] = [
        *(torch.from_numpy(layer) for layer in (*carried.hidden, *carried.cells)),
        _hand_out(carried.rows, passed, journal, call),
        torch.from_numpy(carried.weights).view(B, R, K),
        torch.from_numpy(carried.reads).view(B, R, W),
    ]
    d_inputs = inputs_gradient(sizes, parameters, found) if wants[0] else None
    return d_start, d_inputs, parameters_gradient(sizes, inputs, tape, found) if wants[1] else None


def _take_in(
    d_content: Tensor | None, slots: Array, held: Array, W: int, like: Tensor
) -> tuple[Array, tuple[Tensor, Tensor] | None]:
    """The gradient of the words that the call came to, [B, P·W], and the others': rows and slots, and that of each."""
    most = int(held.max(initial=0))
    rows = like.new_zeros(len(held), most, W)
    passed = None
    if d_content is not None:
        d_content = (d_content if d_content.is_sparse else d_content.to_sparse(2)).coalesce()
        (batch, slot), values = d_content.indices(), d_content.values()
        passing = torch.ones(len(slot), dtype=torch.bool)
        for b, count in enumerate(held):
            here = (batch == b).nonzero().squeeze(-1)
            noted, order = torch.from_numpy(slots[b, :count]).long().sort()
            place = torch.searchsorted(noted, slot[here]).clamp(max=max(0, int(count) - 1))
            same = noted[place] == slot[here] if count else torch.zeros_like(here, dtype=torch.bool)
            rows[b, order[place[same]]] = values[here[same]]
            passing[here[same]] = False
        passed = d_content.indices()[:, passing], values[passing]
    return array(rows.flatten(1)), passed


def _hand_out(
    rows: Array, passed: tuple[Tensor, Tensor] | None, journal: tuple[Array, Array, Array], call: Call
) -> Tensor:
    """The gradient of the words before the first step: of those that there were."""
    slots, held, existing = journal
    W = call.sizes.W
    places, values = [], []
    for b, count in enumerate(held):
        noted = torch.from_numpy(slots[b, :count]).long()
        there = noted < int(existing[b])
        places.append(torch.stack([torch.full_like(noted, b), noted])[:, there])
        values.append(torch.from_numpy(rows[b]).view(-1, W)[:count][there])
    if passed is not None:
        batch, slot = passed[0]
        afresh = torch.from_numpy(call.fresh.any(0))
        there = (slot < torch.from_numpy(existing)[batch]) & ~afresh[batch]
        places.append(passed[0][:, there])
        values.append(passed[1][there])
    return sparse_gradient(torch.cat(places, 1), torch.cat(values), token(call.memory.version.layout).shape)


def _sizes(network: Any, inputs: Tensor, state: SparseState, parameters: Parameters) -> SparseSizes:
    T, B, I = inputs.shape
    controller, layout = network.controller, state.memory.version.layout
    bound = controller.activation_gradient_clip
    return SparseSizes(
        T=T,
        B=B,
        I=I,
        H=controller.hidden_size,
        N=layout.memory_size,
        W=network.word_size,
        R=network.read_heads,
        K=network.sparse_reads,
        links=layout.link_width,
        X=len(parameters.interface_bias),
        layers=controller.num_layers,
        recurrent=isinstance(state.controller, LSTMState),
        bound=math.inf if bound is None else bound,
        normed=bool(parameters.norm),
        beside=False,
        keep=torch.is_grad_enabled(),
    )


def _leaves_of(state: SparseState) -> list[Tensor]:
    """The tensors of a state that have a gradient, in order."""
    controller = [leaf for part in state.controller for leaf in part]
    return [*controller, state.memory.content, state.memory.read_weights, state.read_words]


def _state_of(sizes: SparseSizes, leaves: Sequence[Any]) -> tuple[Any, tuple[Any, Any, Any], Sequence[Any]]:
    """The controller's state, what the memory's has of tensors with a gradient, and the leaves behind them."""
    layers = sizes.layers * sizes.recurrent
    controller = LSTMState(tuple(leaves[:layers]), tuple(leaves[layers : 2 * layers])) if layers else ()
    content, weights, words = leaves[2 * layers : 2 * layers + 3]
    return controller, (content, weights, words), leaves[2 * layers + 3 :]


def _grouped(sizes: SparseSizes, leaves: Sequence[Tensor]) -> tuple[Any, tuple[Any, Any, Any], Parameters]:
    controller, memory, parameters = _state_of(sizes, leaves)
    layers = sizes.layers
    weights, biases = tuple(parameters[:layers]), tuple(parameters[layers : 2 * layers])
    interface, bias, *norm = parameters[2 * layers :]
    return controller, memory, Parameters(weights, biases, interface, bias, tuple(norm))


def _rows(pages: Pages) -> Rows:
    return Rows(**pages.tables, counts=pages.counts, older=pages.older, newer=pages.newer, places=pages.places)


def _noted(journal: Journal) -> Noted:
    return Noted(slots=journal.slots, held=journal.held, **journal.tables, counts=journal.counts)


def _number_shapes(sizes: SparseSizes) -> dict[str, tuple[int, ...]]:
    """Of the tape's numbers, by name."""
    T, B, H, W, layers = sizes.T, sizes.B, sizes.H, sizes.W, sizes.layers
    RK, links = sizes.R * sizes.K, sizes.links > 0
    places, steps, cells = (T + 1, T, layers * sizes.recurrent) if sizes.keep else (2, 1, layers * sizes.recurrent)
    words = steps * sizes.keep
    return {
        "gates": (layers, T, B, 4 * H if sizes.recurrent else H),
        "hidden": (layers, places, B, H),
        "cells": (cells, places, B, H),
        "squashed": (cells, steps, B, H),
        "interfaces": (steps, B, sizes.X),
        "normals": (steps * sizes.normed, B, sizes.X + 1),
        "reads": (places, B, sizes.R * W),
        "read_weights": (places, B, RK),
        "read_rows": (words, B, RK * W),
        "found_weights": (steps * links, B, RK),
        "found_rows": (words * links, B, RK * W),
        "forward": (words * links, B, RK * sizes.K),
        "backward": (words * links, B, RK * sizes.K),
    }


def _place_shapes(sizes: SparseSizes) -> dict[str, tuple[int, ...]]:
    """Of what the tape has of places of slots."""
    T, B, RK = sizes.T, sizes.B, sizes.R * sizes.K
    places, steps = (T + 1, T) if sizes.keep else (2, 1)
    return {
        "read_places": (places, B, RK),
        "found_places": (steps * (sizes.links > 0), B, RK),
        "taken": (steps, B),
    }


def _room_to_keep(sizes: SparseSizes, like: Tensor) -> Tapes:
    """A tape that holds nothing yet."""
    numbers, places = [*_number_shapes(sizes).values()], [*_place_shapes(sizes).values()]
    return Tapes(like.new_empty(starts(numbers)[-1]), torch.empty(starts(places)[-1], dtype=torch.int32))


def _tape(sizes: SparseSizes, tapes: Tapes, alive: Array, fresh: Array) -> SparseTape:
    numbers, places = _number_shapes(sizes), _place_shapes(sizes)
    cuts = dict(zip(numbers, cut(tapes.numbers, [*numbers.values()]), strict=True))
    cuts |= dict(zip(places, cut(tapes.places, [*places.values()]), strict=True))
    return SparseTape(**cuts, alive=alive, fresh=fresh)


def _scratch(team: Team, sizes: SparseSizes, like: Tensor, memory: SparseMemoryState, slots: int) -> SparseScratch:
    B, H, R, K, links = sizes.B, sizes.H, sizes.R, sizes.K, sizes.links
    columns = R * sizes.W + H * sizes.recurrent + H * (sizes.layers > 1)
    chi, hidden, zeros, numbers = rooms(
        like,
        (team.threads if team.threads > B else 1, B, columns),
        (B, sizes.layers * H),
        (H,),
        (team.threads, numbers_size(R, K, links)),
    )
    zeros[:] = 0
    recent, recent_slots = np.zeros((B, 0), numbers.dtype), np.zeros((B, 0), np.int32)
    if isinstance(memory.precedence, Tensor) and isinstance(memory.precedence_slots, Tensor) and slots:
        recent, recent_slots = array(memory.precedence).copy(), array(memory.precedence_slots).copy()
    return SparseScratch(
        chi=chi,
        hidden=hidden,
        zeros=zeros,
        # Of zeros that nobody touches the system makes none.
        mix=np.zeros((team.threads, slots), numbers.dtype),
        numbers=numbers,
        slots=np.empty((team.threads, slots_size(R, K, links)), np.int32),
        recent=recent,
        recent_slots=recent_slots,
        none=np.full(R * K, -1, np.int32),
    )


def _end(sizes: SparseSizes, start: SparseState, tape: SparseTape, slots: Array, scratch: SparseScratch) -> SparseState:
    """The state after the last step, sharing nothing that backward reads; its memory still has the old version."""
    B, R, K, W = sizes.B, sizes.R, sizes.K, sizes.W
    last = sizes.T if sizes.keep else sizes.T % 2
    hidden, cells = (
        tuple(torch.from_numpy(layer[last].copy()) for layer in layers) for layers in (tape.hidden, tape.cells)
    )
    linked = sizes.links > 0
    memory = replace(
        start.memory,
        content=token(start.memory.version.layout),
        read_slots=torch.from_numpy(slots).view(B, R, K),
        read_weights=torch.from_numpy(tape.read_weights[last].copy()).view(B, R, K),
        precedence_slots=torch.from_numpy(scratch.recent_slots) if linked else UNUSED,
        precedence=torch.from_numpy(scratch.recent) if linked else UNUSED,
    )
    reads = torch.from_numpy(tape.reads[last].copy()).view(B, R, W)
    return SparseState(LSTMState(hidden, cells) if sizes.recurrent else (), memory, reads)
