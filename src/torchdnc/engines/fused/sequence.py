"""A sequence there and back: the products over all steps at once are PyTorch's, the loop over time is compiled."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor

from torchdnc.engines.fused.compiled import run
from torchdnc.engines.fused.kernels.arrays import Array, Carried, Found, Options, Scratch, Sizes, Tape, Team, Weights
from torchdnc.engines.fused.kernels.layout import slots_place, tape_size, work_size
from torchdnc.engines.fused.kernels.sparse.arrays import SparseSizes, SparseTape
from torchdnc.engines.fused.rooms import array, cut, empty, rooms, starts
from torchdnc.engines.sparse.states import SparseState
from torchdnc.ops.content import COSINE_EPSILON
from torchdnc.ops.slots import of_width
from torchdnc.types import MARKS, UNUSED, DNCState, LSTMState, MemoryOptions, MemoryState

_UNUSED: Final = MemoryState(*[UNUSED] * len(MemoryState._fields))


class Parameters(NamedTuple):
    """Weights and biases of every layer, [gates·H, I + R·W + (H) + (H below)], and of the interface.

    norm: gain and bias of the interface's normalisation. beside: one tensor [T, B, X], what else comes to the raw
    interface at every step. Each is () where there is none.
    """

    weights: tuple[Tensor, ...]
    biases: tuple[Tensor, ...]
    interface: Tensor
    interface_bias: Tensor
    norm: tuple[Tensor, ...] = ()
    beside: tuple[Tensor, ...] = ()


class Gradients(NamedTuple):
    """Gradients of the inputs and of the parameters, None where nobody wants them, and of the first state."""

    inputs: Tensor | None
    start: DNCState
    parameters: Parameters | None


class Kept(NamedTuple):
    """The tape of a sequence as two tensors, for autograd to save: all its numbers, and the free lists."""

    numbers: Tensor
    orders: Tensor


class Wanted(NamedTuple):
    """Whether gradients of the inputs, and of any parameter, are."""

    inputs: bool
    parameters: bool


def forward(
    team: Team,
    sizes: Sizes,
    parameters: Parameters,
    epsilon: float,
    start: DNCState,
    inputs: Tensor,
    alive: Array,
    fresh: Array,
) -> tuple[Sizes, Tensor, DNCState, Kept]:
    """The sizes of the call, where a memory may have grown, features [T, B, layers·H + R·W], the state after the last
    step, and the tape.

    Args:
        team, sizes, parameters: of the call. epsilon: of the interface's normalisation.
        start: the state before the first step.
        inputs: [T, B, I].
        alive, fresh: [T, B], see `Tape`.
    """
    end = room_for(start.memory)
    kept = _room_to_keep(sizes, inputs)
    tape = _tape(sizes, kept, end, alive, fresh)
    begin_controller(sizes, parameters, start, inputs, tape)
    features = inputs.new_empty(sizes.T, sizes.B, sizes.layers * sizes.H + sizes.R * sizes.W)
    scratch = _scratch(team, sizes, inputs, replay=False)
    run(
        "forward", team, sizes, flat_weights(parameters, epsilon), flat_rows(start.memory), flat_rows(end), tape,
        scratch, array(features),
    )  # fmt: skip
    wanted = int(scratch.wanted.max(initial=0))
    if wanted > sizes.N:
        # Once for every doubling of the largest memory of the batch.
        larger = start._replace(memory=of_width(start.memory, wanted))
        sizes = sizes._replace(N=wanted)
        return forward(team, sizes, parameters, epsilon, larger, inputs, alive, fresh)
    return sizes, features, _end(sizes, end, tape), kept


def backward(
    team: Team,
    sizes: Sizes,
    parameters: Parameters,
    inputs: Tensor,
    kept: Kept,
    alive: Array,
    fresh: Array,
    d_features: Tensor,
    d_end: DNCState,
    wanted: Wanted,
) -> Gradients:
    """Gradients of a sequence, from those of its features and of its final state."""
    d_start = room_for_gradient(d_end.memory)
    tape = _tape(sizes, kept, None, alive, fresh)
    carried = _carried(sizes, d_end, d_start)
    normals = tape.interfaces.shape if sizes.normed else (0, 0, 0)
    found = Found(*rooms(inputs, tape.gates.shape, tape.interfaces.shape, normals))
    scratch = _scratch(team, sizes, inputs, replay=True)
    run(
        "backward", team, sizes, flat_weights(parameters), tape, scratch, array(d_features), flat_rows(d_end.memory),
        carried, found,
    )  # fmt: skip
    d_inputs = inputs_gradient(sizes, parameters, found) if wanted.inputs else None
    d_parameters = parameters_gradient(sizes, inputs, tape, found) if wanted.parameters else None
    return Gradients(d_inputs, _state(sizes, carried, d_start), d_parameters)


def kernel_options(options: MemoryOptions) -> Options:
    """The options as kernels know them."""
    return Options(
        through_writes=options.usage_gradient,
        linked=options.links != "none",
        skips=options.skip_unwritten,
        wipes=options.deallocation,
        masked=options.masking,
        floor=float(options.mask_floor),
        reclaims=options.overflow == "reclaim",
        high=float(options.high_watermark),
        low=float(options.least_in_use),
        grows=options.overflow == "grow",
        above=float(options.grow_above),
        most=options.max_memory_size or 0,
    )


@functools.cache
def fields_of(options: Options) -> tuple[str, ...]:
    """The fields of a memory's state that hold something."""
    unused = {"precedence": not options.linked, "link": not options.linked, "written": not options.skips}
    unused |= {"age": not options.reclaims, "pinned": not options.reclaims, "slots": not options.grows}
    return tuple(name for name in MemoryState._fields if not unused.get(name, False))


def tensors_of(memory: MemoryState) -> list[Tensor]:
    """The fields that hold a tensor. By hand: pytree takes a tenth of a millisecond."""
    return [leaf for leaf in memory if isinstance(leaf, Tensor)]


def marks_of(memory: MemoryState) -> list[Tensor]:
    """The fields that have no gradient."""
    return [leaf for leaf in (getattr(memory, name) for name in MARKS) if isinstance(leaf, Tensor)]


def check_slots(memory: MemoryState) -> None:
    """Raises ValueError unless every row has from 1 to all slots; kernels believe what they are told."""
    slots: Any = memory.slots
    if isinstance(slots, Tensor) and not ((slots >= 1) & (slots <= memory.usage.shape[-1])).all():
        raise ValueError(f"state.memory.slots must be from 1 to {memory.usage.shape[-1]}, got {slots.tolist()}")


def memory_work(memory: MemoryState) -> int:
    """Numbers that a step goes through in the memories and links of a batch."""
    return sum(leaf.numel() for leaf in (memory.memory, memory.link) if isinstance(leaf, Tensor))


def memory_of(options: Options, leaves: Sequence[Any]) -> MemoryState:
    """The state of these fields, the others unused."""
    return _UNUSED._replace(**dict(zip(fields_of(options), leaves, strict=True)))


def flat_rows(memory: MemoryState) -> Any:
    """The state, or its gradient, as arrays of flat rows; what is unused has rows of no size."""
    B, like = len(memory.memory), memory.memory
    rows: Any = (array(_rows(leaf) if isinstance(leaf, Tensor) else like.new_empty(B, 0)) for leaf in memory)
    return MemoryState(*rows)


def _rows(leaf: Tensor) -> Tensor:
    """[B, ·]."""
    return leaf.flatten(1) if leaf.dim() > 1 else leaf.unsqueeze(1)


def room_for(memory: MemoryState) -> MemoryState:
    """A state of the same sizes, which holds nothing yet."""
    return MemoryState(*(leaf.new_empty(leaf.shape) if isinstance(leaf, Tensor) else leaf for leaf in memory))


def room_for_gradient(memory: MemoryState) -> MemoryState:
    """The same for its gradient; that of marks is none, and already there."""
    room = room_for(memory)
    for mark in marks_of(room):
        mark.zero_()
    return room


def flat_weights(parameters: Parameters, epsilon: float = 0.0) -> Weights:
    first, *others = parameters.weights
    layers = torch.cat([weight.flatten() for weight in parameters.weights]) if others else first.flatten()
    gain, norm_bias = parameters.norm or (first.new_empty(0), first.new_empty(0))
    (beside,) = parameters.beside or (first.new_empty(0, 0, 0),)
    interface = array(parameters.interface.flatten()), array(parameters.interface_bias)
    return Weights(array(layers), *interface, array(gain), array(norm_bias), epsilon, array(beside))


def _stacked(layers: tuple[Tensor, ...], like: Tensor) -> Array:
    """[layers, B, H]; layers may be none."""
    return array(torch.stack(layers)) if layers else array(like.new_empty(0, 0, 0))


def controller_shapes(sizes: Sizes | SparseSizes) -> dict[str, tuple[int, ...]]:
    """Of what the tape has of the controller, the interface and the words read, by name."""
    T, B, H, layers = sizes.T, sizes.B, sizes.H, sizes.layers
    places, steps = (T + 1, T) if sizes.keep else (2, 1)
    cells = layers * sizes.recurrent
    return {
        "gates": (layers, T, B, 4 * H if sizes.recurrent else H),
        "hidden": (layers, places, B, H),
        "cells": (cells, places, B, H),
        "squashed": (cells, steps, B, H),
        "interfaces": (steps, B, sizes.X),
        "normals": (steps * sizes.normed, B, sizes.X + 1),
        "reads": (places, B, sizes.R * sizes.W),
    }


def _tape_shapes(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    """Of the tape's numbers, by name."""
    B, N, W, R = sizes.B, sizes.N, sizes.W, sizes.R
    places, kept = (sizes.T + 1, math.ceil(sizes.T / sizes.every)) if sizes.keep else (2, 0)
    return controller_shapes(sizes) | {
        "rows": (places, B, tape_size(N, R, sizes.options)),
        "memories": (kept, B, N * W),
        "links": (kept, B, N * N * sizes.options.linked),
    }


def _room_to_keep(sizes: Sizes, like: Tensor) -> Kept:
    """A tape that holds nothing yet."""
    steps = sizes.T if sizes.keep else 1
    numbers = empty(like, starts([*_tape_shapes(sizes).values()])[-1])
    return Kept(numbers, torch.empty(steps, sizes.B, sizes.N, dtype=torch.int32))


def _tape(sizes: Sizes, kept: Kept, memory: MemoryState | None, alive: Array, fresh: Array) -> Tape:
    """The tape; memory: what forward works on, and backward, which has checkpoints, does not."""
    shapes = _tape_shapes(sizes)
    numbers = dict(zip(shapes, cut(kept.numbers, [*shapes.values()]), strict=True))
    if memory is None:
        memory_now, link_now = numbers["memories"][0], numbers["links"][0]
    else:
        now = flat_rows(memory)
        memory_now, link_now = now.memory, now.link
    return Tape(**numbers, orders=array(kept.orders), memory=memory_now, link=link_now, alive=alive, fresh=fresh)


def begin_controller(
    sizes: Sizes | SparseSizes,
    parameters: Parameters,
    start: DNCState | SparseState,
    inputs: Tensor,
    tape: Tape | SparseTape,
) -> None:
    """Puts the inputs' share of the gates, the controller's state and the words read before the first step on the tape;
    kernels do the rest."""
    tape.reads[0] = array(start.read_words).reshape(sizes.B, sizes.R * sizes.W)
    if sizes.recurrent:
        for layer in range(sizes.layers):
            tape.hidden[layer, 0], tape.cells[layer, 0] = (array(part[layer]) for part in start.controller)
    flat = inputs.reshape(sizes.T * sizes.B, sizes.I)
    for gates, weight, bias in zip(tape.gates, parameters.weights, parameters.biases, strict=True):
        torch.addmm(bias, flat, weight[:, : sizes.I].t(), out=torch.from_numpy(gates).flatten(0, 1))


def _scratch(team: Team, sizes: Sizes, like: Tensor, replay: bool) -> Scratch:
    B, H, N, W, R = sizes.B, sizes.H, sizes.N, sizes.W, sizes.R
    columns = R * W + H * sizes.recurrent + H * (sizes.layers > 1)
    work, chi, hidden, wanted, nothing, zeros, memories, links = rooms(
        like,
        (team.threads, work_size(N, W, R, sizes.options)),
        (team.threads if team.threads > B and not replay else 1, B, columns),
        (B, sizes.layers * H),
        (B * sizes.options.grows,),
        (tape_size(N, R, sizes.options),),
        (max(N * W, N * N * sizes.options.linked, H),),
        ((sizes.every + 1) * replay, B, N * W),
        ((sizes.every - 1) // sizes.again * replay, B, N * N * sizes.options.linked),
    )
    wanted[:], nothing[:], zeros[:] = 0, 0, 0
    if sizes.options.grows:
        nothing[slots_place.py_func(N, R)] = sizes.slots
    # An empty slot has the length sqrt(ε); see `layout.tape_parts`.
    nothing[3 * N : 4 * N] = math.inf if sizes.options.skips else math.sqrt(COSINE_EPSILON)
    return Scratch(work, chi, hidden, wanted, nothing, zeros, memories, links)


def _end(sizes: Sizes, memory: MemoryState, tape: Tape) -> DNCState:
    """The state after the last step, sharing nothing that backward reads."""
    last = sizes.T if sizes.keep else sizes.T % 2
    hidden, cells = (
        tuple(torch.from_numpy(layer[last].copy()) for layer in layers) for layers in (tape.hidden, tape.cells)
    )
    reads = torch.from_numpy(tape.reads[last].reshape(sizes.B, sizes.R, sizes.W).copy())
    return DNCState(LSTMState(hidden, cells) if sizes.recurrent else (), memory, reads)


def _carried(sizes: Sizes, end: DNCState, memory: MemoryState) -> Carried:
    """What backward begins with, and the room for the gradient of the first memory."""
    B, N, W, R = sizes.B, sizes.N, sizes.W, sizes.R
    hidden, cells = end.controller if sizes.recurrent else ((), ())
    (weightings,) = rooms(end.read_words, (B, (3 + R) * N))
    return Carried(
        hidden=_stacked(hidden, end.read_words),
        cells=_stacked(cells, end.read_words),
        memory=flat_rows(memory),
        weightings=weightings,
        reads=array(end.read_words).reshape(B, R * W).copy(),
    )


def _state(sizes: Sizes, carried: Carried, memory: MemoryState) -> DNCState:
    """What was carried, as gradients of the state before the first step."""
    hidden, cells = (torch.from_numpy(layers).unbind(0) for layers in (carried.hidden, carried.cells))
    reads = torch.from_numpy(carried.reads).unflatten(1, (sizes.R, sizes.W))
    return DNCState(LSTMState(hidden, cells) if sizes.recurrent else (), memory, reads)


def inputs_gradient(sizes: Sizes | SparseSizes, parameters: Parameters, found: Found) -> Tensor:
    """The inputs' gradient: for each layer a product over all steps."""
    d_inputs = torch.zeros(sizes.T * sizes.B, sizes.I, dtype=parameters.interface.dtype)
    for d_gates, weight in zip(torch.from_numpy(found.gates), parameters.weights, strict=True):
        d_inputs.addmm_(d_gates.flatten(0, 1), weight[:, : sizes.I])
    return d_inputs.view(sizes.T, sizes.B, sizes.I)


def parameters_gradient(
    sizes: Sizes | SparseSizes, inputs: Tensor, tape: Tape | SparseTape, found: Found
) -> Parameters:
    """The parameters' gradients: of each weight a product over all steps."""
    fresh = torch.from_numpy(tape.fresh).unsqueeze(-1)
    hidden = torch.from_numpy(tape.hidden)
    reads = torch.from_numpy(tape.reads)[:-1].masked_fill(fresh, 0)
    weights, biases = [], []
    for layer, gates in enumerate(torch.from_numpy(found.gates)):
        own = [hidden[layer][:-1].masked_fill(fresh, 0)] if sizes.recurrent else []
        below = [hidden[layer - 1][1:]] if layer else []
        d_gates = gates.flatten(0, 1)
        weights.append(d_gates.t() @ torch.cat([inputs, reads, *own, *below], -1).flatten(0, 1))
        biases.append(d_gates.sum(0))
    above = torch.cat(tuple(hidden[:, 1:]), -1).flatten(0, 1)
    d_interfaces = torch.from_numpy(found.interfaces)
    d_flat = d_interfaces.flatten(0, 1)
    norm = _of_norm(tape, found) if sizes.normed else ()
    beside = (d_interfaces,) if sizes.beside else ()
    return Parameters(tuple(weights), tuple(biases), d_flat.t() @ above, d_flat.sum(0), norm, beside)


def _of_norm(tape: Tape | SparseTape, found: Found) -> tuple[Tensor, ...]:
    """The gradients of gain and bias; where a row had ended its gradients are 0 and its tape holds anything."""
    alive = torch.from_numpy(tape.alive).unsqueeze(-1)
    d_normals, normals = torch.from_numpy(found.normals), torch.from_numpy(tape.normals)[..., :-1]
    return (d_normals * normals.masked_fill(~alive, 0)).sum((0, 1)), d_normals.sum((0, 1))
