"""A sequence there and back: the products over all steps at once are PyTorch's, the loop over time is compiled."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchdnc.engines.fused.compiled import run
from torchdnc.engines.fused.kernels.arrays import Array, Carried, Found, Scratch, Sizes, Tape, Team, Weights
from torchdnc.engines.fused.kernels.layout import tape_size, work_size
from torchdnc.ops.content import COSINE_EPSILON
from torchdnc.types import DNCState, LSTMState, MemoryState


class Parameters(NamedTuple):
    """Weights and biases of every layer, [gates·H, I + R·W + (H) + (H below)], and of the interface."""

    weights: tuple[Tensor, ...]
    biases: tuple[Tensor, ...]
    interface: Tensor
    interface_bias: Tensor


class Gradients(NamedTuple):
    """Gradients of the inputs, of the state before the first step, of the parameters."""

    inputs: Tensor
    start: DNCState
    parameters: Parameters


def forward(
    team: Team, sizes: Sizes, parameters: Parameters, start: DNCState, inputs: Tensor, alive: Array, fresh: Array
) -> tuple[Tensor, DNCState, Tape]:
    """Features [T, B, layers·H + R·W], the state after the last step, and the tape.

    Args:
        team, sizes, parameters: of the call.
        start: the state before the first step.
        inputs: [T, B, I].
        alive, fresh: [T, B], see `Tape`.
    """
    tape = _tape(sizes, start, inputs, alive, fresh)
    flat = inputs.reshape(sizes.T * sizes.B, sizes.I)
    for gates, weight, bias in zip(tape.gates, parameters.weights, parameters.biases, strict=True):
        torch.addmm(bias, flat, weight[:, : sizes.I].t(), out=torch.from_numpy(gates).flatten(0, 1))
    features = inputs.new_empty(sizes.T, sizes.B, sizes.layers * sizes.H + sizes.R * sizes.W)
    scratch = _scratch(team, sizes, inputs, replay=False)
    run("forward", team, sizes, _weights(parameters), tape, scratch, _array(features))
    return features, _end(sizes, tape), tape


def backward(
    team: Team, sizes: Sizes, parameters: Parameters, inputs: Tensor, tape: Tape, d_features: Tensor, d_end: DNCState
) -> Gradients:
    """Gradients of a sequence, from those of its features and of its final state."""
    carried = _carried(sizes, d_end)
    found = Found(_empty(tape.gates.shape, inputs), _empty(tape.interfaces.shape, inputs))
    scratch = _scratch(team, sizes, inputs, replay=True)
    run("backward", team, sizes, _weights(parameters), tape, scratch, _array(d_features), carried, found)
    return _collect(sizes, parameters, inputs, tape, carried, found)


def _array(tensor: Tensor) -> Array:
    """The tensor's numbers, shared if they lie in order."""
    array: Array = tensor.detach().contiguous().numpy()
    return array


def _empty(shape: Any, like: Tensor) -> Array:
    array: Array = like.new_empty(shape).numpy()
    return array


def _weights(parameters: Parameters) -> Weights:
    first, *others = parameters.weights
    layers = torch.cat([weight.flatten() for weight in parameters.weights]) if others else first.flatten()
    return Weights(_array(layers), _array(parameters.interface.flatten()), _array(parameters.interface_bias))


def _stacked(tensors: tuple[Tensor, ...], like: Tensor) -> Tensor:
    """[layers, B, H]; layers may be none."""
    return torch.stack(tensors) if tensors else like.new_empty(0, 0, 0)


def _tape(sizes: Sizes, start: DNCState, inputs: Tensor, alive: Array, fresh: Array) -> Tape:
    """A tape that holds the start and nothing else."""
    T, B, H, N, layers = sizes.T, sizes.B, sizes.H, sizes.N, sizes.layers
    places, steps, kept = (T + 1, T, math.ceil(T / sizes.every)) if sizes.keep else (2, 1, 0)
    cells = layers * sizes.recurrent
    memory = start.memory
    tape = Tape(
        gates=_empty((layers, T, B, 4 * H if sizes.recurrent else H), inputs),
        hidden=_empty((layers, places, B, H), inputs),
        cells=_empty((cells, places, B, H), inputs),
        squashed=_empty((cells, steps, B, H), inputs),
        interfaces=_empty((T, B, sizes.R * (sizes.W + 5) + 3 * sizes.W + 3), inputs),
        rows=_empty((places, B, tape_size(N, sizes.R)), inputs),
        orders=torch.empty(places, B, N, dtype=torch.int32).numpy(),
        reads=_empty((places, B, sizes.R * sizes.W), inputs),
        memory=_array(memory.memory.flatten(1).clone()),
        link=_array(memory.link.flatten(1).clone()),
        memories=_empty((kept, B, N * sizes.W), inputs),
        links=_empty((kept, B, N * N), inputs),
        alive=alive,
        fresh=fresh,
    )
    usage, write_weights, precedence, lengths, _, read_weights, _ = _row_parts(tape.rows[0], sizes)
    for part, value in (
        (usage, memory.usage),
        (write_weights, memory.write_weights),
        (precedence, memory.precedence),
        (lengths, (memory.memory.square().sum(-1) + COSINE_EPSILON).sqrt()),
        (read_weights, memory.read_weights.flatten(1)),
    ):
        part.copy_(value)
    torch.from_numpy(tape.orders[0]).copy_(torch.arange(N))
    torch.from_numpy(tape.reads[0]).copy_(start.read_words.flatten(1))
    if sizes.recurrent:
        tape.hidden[:, 0], tape.cells[:, 0] = (_array(torch.stack(part)) for part in start.controller)
    return tape


def _row_parts(rows: Array, sizes: Sizes) -> tuple[Tensor, ...]:
    """`tape_parts` of one row, or of all rows of a batch at once."""
    N, heads = sizes.N, sizes.R * sizes.N
    parts: tuple[Tensor, ...] = torch.from_numpy(rows).split([N, N, N, N, N, heads, heads], -1)
    return parts


def _scratch(team: Team, sizes: Sizes, like: Tensor, replay: bool) -> Scratch:
    B, H, N, W, R = sizes.B, sizes.H, sizes.N, sizes.W, sizes.R
    columns = R * W + H * sizes.recurrent + H * (sizes.layers > 1)
    nothing = _array(like.new_zeros(tape_size(N, R)))
    # An empty slot has the length sqrt(ε).
    _row_parts(nothing, sizes)[3].fill_(math.sqrt(COSINE_EPSILON))
    return Scratch(
        work=_empty((team.threads, work_size(N, R)), like),
        chi=_empty((team.threads if team.threads > B else 1, B, columns), like),
        hidden=_empty((B, sizes.layers * H), like),
        nothing=nothing,
        zeros=_array(like.new_zeros(max(N * W, N * N, H))),
        memories=_empty(((sizes.every + 1) * replay, B, N * W), like),
    )


def _end(sizes: Sizes, tape: Tape) -> DNCState:
    """The state after the last step, sharing nothing that backward reads."""
    N, W, R, last = sizes.N, sizes.W, sizes.R, sizes.T if sizes.keep else sizes.T % 2
    usage, write_weights, precedence, _, _, read_weights, _ = _row_parts(tape.rows[last], sizes)
    memory = MemoryState(
        memory=torch.from_numpy(tape.memory).unflatten(1, (N, W)),
        usage=usage.clone(),
        precedence=precedence.clone(),
        link=torch.from_numpy(tape.link).unflatten(1, (N, N)),
        write_weights=write_weights.clone(),
        read_weights=read_weights.unflatten(1, (R, N)).clone(),
    )
    hidden, cells = (
        tuple(torch.from_numpy(layer[last]).clone() for layer in layers) for layers in (tape.hidden, tape.cells)
    )
    controller = LSTMState(hidden, cells) if sizes.recurrent else ()
    return DNCState(controller, memory, torch.from_numpy(tape.reads[last]).unflatten(1, (R, W)).clone())


def _carried(sizes: Sizes, end: DNCState) -> Carried:
    memory = end.memory
    hidden, cells = end.controller if sizes.recurrent else ((), ())
    parts = [memory.usage, memory.write_weights, memory.precedence, memory.read_weights.flatten(1)]
    return Carried(
        hidden=_array(_stacked(hidden, memory.usage)),
        cells=_array(_stacked(cells, memory.usage)),
        memory=_array(memory.memory.flatten(1).clone()),
        link=_array(memory.link.flatten(1).clone()),
        state=_array(torch.cat(parts, 1)),
        reads=_array(end.read_words.flatten(1).clone()),
    )


def _start(sizes: Sizes, carried: Carried) -> DNCState:
    """What was carried, as gradients of the state before the first step."""
    N, W, R = sizes.N, sizes.W, sizes.R
    usage, write_weights, precedence, heads = torch.from_numpy(carried.state).split([N, N, N, R * N], 1)
    memory = MemoryState(
        memory=torch.from_numpy(carried.memory).unflatten(1, (N, W)),
        usage=usage,
        precedence=precedence,
        link=torch.from_numpy(carried.link).unflatten(1, (N, N)),
        write_weights=write_weights,
        read_weights=heads.unflatten(1, (R, N)),
    )
    hidden, cells = (torch.from_numpy(layers).unbind(0) for layers in (carried.hidden, carried.cells))
    controller = LSTMState(hidden, cells) if sizes.recurrent else ()
    return DNCState(controller, memory, torch.from_numpy(carried.reads).unflatten(1, (R, W)))


def _collect(
    sizes: Sizes, parameters: Parameters, inputs: Tensor, tape: Tape, carried: Carried, found: Found
) -> Gradients:
    """The gradients of inputs and parameters, each one matrix product over all steps."""
    fresh = torch.from_numpy(tape.fresh).unsqueeze(-1)
    hidden = torch.from_numpy(tape.hidden)
    reads = torch.from_numpy(tape.reads)[:-1].masked_fill(fresh, 0)
    d_gates, d_interfaces = torch.from_numpy(found.gates), torch.from_numpy(found.interfaces).flatten(0, 1)
    d_inputs = inputs.new_zeros(sizes.T * sizes.B, sizes.I)
    weights, biases = [], []
    for layer, weight in enumerate(parameters.weights):
        d_gate = d_gates[layer].flatten(0, 1)
        d_inputs.addmm_(d_gate, weight[:, : sizes.I])
        own = [hidden[layer][:-1].masked_fill(fresh, 0)] if sizes.recurrent else []
        below = [hidden[layer - 1][1:]] if layer else []
        weights.append(d_gate.t() @ torch.cat([inputs, reads, *own, *below], -1).flatten(0, 1))
        biases.append(d_gate.sum(0))
    above = torch.cat(tuple(hidden[:, 1:]), -1).flatten(0, 1)
    gradients = Parameters(tuple(weights), tuple(biases), d_interfaces.t() @ above, d_interfaces.sum(0))
    return Gradients(d_inputs.unflatten(0, (sizes.T, sizes.B)), _start(sizes, carried), gradients)
