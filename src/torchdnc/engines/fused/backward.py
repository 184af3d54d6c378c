"""The gradient of a whole sequence, from its tape."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from torchdnc.engines.fused.compiled import kernel
from torchdnc.engines.fused.kernels.layout import work_size
from torchdnc.engines.fused.sequence import Array, Parameters, Shape, Start, Tape, _numpy
from torchdnc.types import MemoryState


class Gradients(NamedTuple):
    """What backward returns: gradients of the inputs, of the state before the first step, of the parameters."""

    inputs: Tensor
    start: Start
    parameters: Parameters


class _Carried:
    """Gradients of the state of step t, which become those of step t−1 in place."""

    def __init__(self, shape: Shape, end: Start) -> None:
        _, B, _, _, N, W, R = shape[:7]
        memory = end.memory
        self.hidden = [tensor.clone() for tensor in end.hidden]
        self.cell = [tensor.clone() for tensor in end.cell]
        self.memory = memory.memory.reshape(B, N * W).clone()
        self.link = memory.link.reshape(B, N * N).clone()
        heads = memory.read_weights.reshape(B, R * N)
        self.state = torch.cat([memory.usage, memory.write_weights, memory.precedence, heads], 1)
        self.reads = end.read_words.reshape(B, R * W).clone()

    def start(self, shape: Shape) -> Start:
        """As gradients of the state before the first step."""
        _, B, _, _, N, W, R = shape[:7]
        memory = MemoryState(
            memory=self.memory.view(B, N, W),
            usage=self.state[:, :N],
            write_weights=self.state[:, N : 2 * N],
            precedence=self.state[:, 2 * N : 3 * N],
            link=self.link.view(B, N, N),
            read_weights=self.state[:, 3 * N :].reshape(B, R, N),
        )
        return Start(tuple(self.hidden), tuple(self.cell), memory, self.reads.view(B, R, W))


class _Replayed:
    """Memory and links before every step of a stretch between two checkpoints."""

    def __init__(self, shape: Shape, tape: Tape, interfaces: Tensor) -> None:
        self.shape, self.tape, self.interfaces = shape, _numpy(interfaces), interfaces
        self.every, self.source = tape.every, tape
        make = tape.rows.new_empty
        self.memories = make(tape.every + 1, *tape.memory.shape)
        self.links = make(tape.every, *tape.link.shape)
        self.arrays = _numpy(self.memories), _numpy(self.links)

    def at(self, t: int) -> tuple[Array, Array, Array]:
        """memory_{t−1}, memory_t, link_{t−1}; steps come in falling order."""
        k = t % self.every
        if k == self.every - 1 or t == self.shape.T - 1:
            self._fill(t - k, t + 1)
        memories, links = self.arrays
        return memories[k], memories[k + 1], links[k]

    def _fill(self, first: int, last: int) -> None:
        shape, source = self.shape, self.source
        self.memories[0] = source.memories[first // self.every]
        self.links[0] = source.links[first // self.every]
        kernel("replay", shape.threads > 1)(
            _numpy(source.rows), self.tape, first, last, *self.arrays, _numpy(source.zeros), shape.alive, shape.fresh,
            shape.N, shape.W, shape.R,
        )  # fmt: skip


def backward(
    shape: Shape,
    parameters: Parameters,
    inputs: Tensor,
    tape: Tape,
    gates: list[Tensor],
    interfaces: Tensor,
    d_features: Tensor,
    d_end: Start,
) -> Gradients:
    """Gradients of a sequence, from those of its features and of its final state."""
    T, B, _, H, N, W, R = shape[:7]
    hidden_size = shape.layers * H
    carried, replayed = _Carried(shape, d_end), _Replayed(shape, tape, interfaces)
    d_interfaces = torch.empty_like(interfaces)
    d_gates = [torch.empty_like(gate) for gate in gates]
    recurrent = [weight[:, shape.I :] for weight in parameters.weights]
    work = np.empty((B, work_size(N, R)), replayed.tape.dtype)
    step = kernel("step_backward", shape.threads > 1)
    rows, zeros = _numpy(tape.rows), _numpy(tape.zeros)
    any_dead: Array = np.any(~shape.alive, axis=1)
    any_fresh: Array = np.any(shape.fresh, axis=1)
    d_memory, d_link, d_state, d_reads = map(_numpy, (carried.memory, carried.link, carried.state, carried.reads))
    for t in reversed(range(T)):
        alive, fresh = shape.alive[t], shape.fresh[t]
        dead = torch.from_numpy(~alive).unsqueeze(-1) if any_dead[t] else None
        afresh = torch.from_numpy(fresh).unsqueeze(-1) if any_fresh[t] else None
        own = d_features[t] if dead is None else d_features[t].masked_fill(dead, 0)
        carried.reads += own[:, hidden_size:]
        memory_prev, memory, link_prev = replayed.at(t)
        step(
            rows, tape.orders, t, t + 1, replayed.tape[t], _numpy(d_interfaces[t]), memory_prev, memory, link_prev,
            d_memory, d_link, d_state, d_reads, zeros, _numpy(tape.no_memory), alive, fresh, work, N, W, R,
            shape.through_writes,
        )  # fmt: skip
        d_hidden = torch.addmm(own[:, :hidden_size], d_interfaces[t], parameters.interface)
        _controller_backward(shape, tape, t, gates, d_gates, recurrent, d_hidden, carried, dead, afresh)
    return _collect(shape, parameters, inputs, tape, d_gates, d_interfaces, carried)


def _controller_backward(
    shape: Shape,
    tape: Tape,
    t: int,
    gates: list[Tensor],
    d_gates: list[Tensor],
    recurrent: list[Tensor],
    d_hidden: Tensor,
    carried: _Carried,
    dead: Tensor | None,
    afresh: Tensor | None,
) -> None:
    """All layers at step t; `carried` holds the gradients of h_t and r_t on entry, of h_{t−1} and r_{t−1} on return."""
    H, words = shape.H, shape.R * shape.W
    d_reads: Tensor | float = 0.0
    d_below: Tensor | float = 0.0
    for layer in reversed(range(shape.layers)):
        d_own = d_hidden[:, layer * H : (layer + 1) * H] + d_below
        if shape.recurrent:
            d_own = d_own + carried.hidden[layer]
        _layer_backward(shape, tape, t, layer, gates, d_gates, d_own, carried)
        d_before = d_gates[layer][t] @ recurrent[layer]
        d_reads = d_reads + d_before[:, :words]
        if shape.recurrent:
            carried.hidden[layer] = _before(d_before[:, words : words + H], carried.hidden[layer], dead, afresh)
        d_below = d_before[:, d_before.shape[1] - H :] if layer else 0.0
    assert isinstance(d_reads, Tensor)
    carried.reads.copy_(_before(d_reads, carried.reads, dead, afresh))


def _layer_backward(
    shape: Shape, tape: Tape, t: int, layer: int, gates: list[Tensor], d_gates: list[Tensor], d_own: Tensor,
    carried: _Carried,
) -> None:  # fmt: skip
    alive, fresh, d_gate = shape.alive[t], shape.fresh[t], _numpy(d_gates[layer][t])
    bound = d_gate.dtype.type(shape.bound)
    if not shape.recurrent:
        kernel("feedforward_backward", shape.threads > 1)(
            d_gate, _numpy(tape.hidden[layer]), t + 1, _numpy(d_own), alive, bound
        )
        return
    kernel("lstm_backward", shape.threads > 1)(
        _numpy(gates[layer][t]), d_gate, _numpy(tape.cells[layer]), _numpy(tape.squashed[layer][t]), t, _numpy(d_own),
        _numpy(carried.cell[layer]), _numpy(tape.no_cell), alive, fresh, bound, shape.H,
    )  # fmt: skip


def _before(gradient: Tensor, held: Tensor, dead: Tensor | None, afresh: Tensor | None) -> Tensor:
    """The gradient of a step's start: none where a row starts afresh, unchanged where it has ended."""
    if afresh is not None:
        gradient = gradient.masked_fill(afresh, 0)
    return gradient if dead is None else torch.where(dead, held, gradient)


def _collect(
    shape: Shape, parameters: Parameters, inputs: Tensor, tape: Tape, d_gates: list[Tensor], d_interfaces: Tensor,
    carried: _Carried,
) -> Gradients:  # fmt: skip
    """The parameters' gradients, each one matrix product over all steps."""
    T, B, I = shape[:3]
    fresh = torch.from_numpy(shape.fresh).unsqueeze(-1) if shape.fresh.any() else None
    reads = tape.reads[:T] if fresh is None else tape.reads[:T].masked_fill(fresh, 0)
    d_inputs = torch.zeros(T * B, I, dtype=inputs.dtype)
    weights, biases = [], []
    for layer, weight in enumerate(parameters.weights):
        flat = d_gates[layer].flatten(0, 1)
        d_inputs.addmm_(flat, weight[:, :I])
        parts = [inputs, reads]
        if shape.recurrent:
            before = tape.hidden[layer][:T]
            parts.append(before if fresh is None else before.masked_fill(fresh, 0))
        if layer:
            parts.append(tape.hidden[layer - 1][1:])
        weights.append(flat.t() @ torch.cat(parts, -1).flatten(0, 1))
        biases.append(flat.sum(0))
    hidden = torch.cat([layer[1:] for layer in tape.hidden], -1).flatten(0, 1)
    flat = d_interfaces.flatten(0, 1)
    return Gradients(
        d_inputs.view_as(inputs),
        carried.start(shape),
        Parameters(tuple(weights), tuple(biases), flat.t() @ hidden, flat.sum(0)),
    )
