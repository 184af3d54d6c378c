"""The gradient of a whole sequence, from its tape."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from torchdnc.engines.fused.compiled import kernel
from torchdnc.engines.fused.kernels.layout import work_size
from torchdnc.engines.fused.sequence import Array, Parameters, Shape, Tape, numpy
from torchdnc.types import DNCState, LSTMState, MemoryState


class Gradients(NamedTuple):
    """Gradients of the inputs, of the state before the first step, of the parameters."""

    inputs: Tensor
    start: DNCState
    parameters: Parameters


def backward(
    shape: Shape, parameters: Parameters, inputs: Tensor, tape: Tape, d_features: Tensor, d_end: DNCState
) -> Gradients:
    """Gradients of a sequence, from those of its features and of its final state.

    The loop goes through the steps in falling order; the parameters' gradients are one product each after it.
    """
    carried = _Carried(shape, d_end)
    memory, controller = _Memory(shape, tape, carried), _Controller(shape, parameters, tape, carried)
    features = shape.layers * shape.H
    any_dead: Array = np.any(~shape.alive, axis=1)
    any_fresh: Array = np.any(shape.fresh, axis=1)
    for t in reversed(range(shape.T)):
        dead = torch.from_numpy(~shape.alive[t]).unsqueeze(-1) if any_dead[t] else None
        fresh = torch.from_numpy(shape.fresh[t]).unsqueeze(-1) if any_fresh[t] else None
        d_now = d_features[t] if dead is None else d_features[t].masked_fill(dead, 0)
        carried.reads += d_now[:, features:]
        memory.step(t)
        d_hidden = torch.addmm(d_now[:, :features], memory.d_interfaces[t], parameters.interface)
        controller.step(t, d_hidden, dead, fresh)
    return _collect(shape, parameters, inputs, tape, controller.d_gates, memory.d_interfaces, carried)


class _Carried:
    """Gradients of the state after step t, which become those of the state before it."""

    def __init__(self, shape: Shape, end: DNCState) -> None:
        memory, self.shape = end.memory, shape
        hidden, cell = end.controller if shape.recurrent else ((), ())
        self.hidden = [tensor.clone() for tensor in hidden]
        self.cell = [tensor.clone() for tensor in cell]
        self.memory, self.link = memory.memory.flatten(1).clone(), memory.link.flatten(1).clone()
        self.state = torch.cat(
            [memory.usage, memory.write_weights, memory.precedence, memory.read_weights.flatten(1)], 1
        )
        self.reads = end.read_words.flatten(1).clone()

    def start(self) -> DNCState:
        """As gradients of the state before the first step."""
        N, W, R = self.shape.N, self.shape.W, self.shape.R
        usage, write_weights, precedence, heads = self.state.split([N, N, N, R * N], 1)
        memory = MemoryState(
            memory=self.memory.unflatten(1, (N, W)),
            usage=usage,
            precedence=precedence,
            link=self.link.unflatten(1, (N, N)),
            write_weights=write_weights,
            read_weights=heads.unflatten(1, (R, N)),
        )
        controller = LSTMState(tuple(self.hidden), tuple(self.cell)) if self.shape.recurrent else ()
        return DNCState(controller, memory, self.reads.unflatten(1, (R, W)))


class _Memory:
    """The gradient of the memory, step by step, with what every step started from replayed."""

    def __init__(self, shape: Shape, tape: Tape, carried: _Carried) -> None:
        self.shape, self.tape = shape, tape
        self.d_interfaces = torch.empty_like(tape.interfaces)
        self.rows, self.interfaces, self.d = numpy(tape.rows), numpy(tape.interfaces), numpy(self.d_interfaces)
        self.no_row, self.no_memory = numpy(tape.no_row), numpy(tape.no_memory)
        self.carried = tuple(map(numpy, (carried.memory, carried.link, carried.state, carried.reads)))
        self.work = np.empty((shape.B, work_size(shape.N, shape.R)), self.rows.dtype)
        self.memories = tape.rows.new_empty(tape.every + 1, *tape.memory.shape)
        self.links = tape.rows.new_empty(tape.every, *tape.link.shape)
        self.replayed = numpy(self.memories), numpy(self.links)
        self.kernel = kernel("step_backward", shape.threads > 1)

    def step(self, t: int) -> None:
        """Turns the carried gradients, and leaves the interface's."""
        shape, every = self.shape, self.tape.every
        k = t % every
        if k == every - 1 or t == shape.T - 1:
            self._replay(t - k, t + 1)
        memories, links = self.replayed
        self.kernel(
            self.rows, self.tape.orders, t, t + 1, self.interfaces[t], self.d[t], memories[k], memories[k + 1],
            links[k], *self.carried, self.no_row, self.no_memory, shape.alive[t], shape.fresh[t], self.work, shape.N,
            shape.W, shape.R, shape.through_writes,
        )  # fmt: skip

    def _replay(self, first: int, last: int) -> None:
        """Memory and links before every step from `first` to before `last`, from the checkpoint at `first`."""
        shape, kept = self.shape, first // self.tape.every
        self.memories[0], self.links[0] = self.tape.memories[kept], self.tape.links[kept]
        kernel("replay", shape.threads > 1)(
            self.rows, self.interfaces, first, last, *self.replayed, self.no_row, shape.alive, shape.fresh, shape.N,
            shape.W, shape.R,
        )  # fmt: skip


class _Controller:
    """The gradient of the controller, step by step."""

    def __init__(self, shape: Shape, parameters: Parameters, tape: Tape, carried: _Carried) -> None:
        self.shape, self.carried = shape, carried
        self.d_gates = [torch.empty_like(gates) for gates in tape.gates]
        self.steps = [gates.unbind(0) for gates in self.d_gates]
        self.recurrent = [weight[:, shape.I :] for weight in parameters.weights]
        self.gates, self.d = list(map(numpy, tape.gates)), list(map(numpy, self.d_gates))
        self.hidden, self.cells = list(map(numpy, tape.hidden)), list(map(numpy, tape.cells))
        self.squashed, self.no_cell = list(map(numpy, tape.squashed)), numpy(tape.no_cell)
        self.bound = self.d[0].dtype.type(shape.bound)
        self.kernel = kernel("lstm_backward" if shape.recurrent else "feedforward_backward", shape.threads > 1)

    def step(self, t: int, d_hidden: Tensor, dead: Tensor | None, fresh: Tensor | None) -> None:
        """Turns the carried gradients of h_t and r_t into those of h_{t−1} and r_{t−1}, top layer first."""
        shape, carried, words = self.shape, self.carried, self.shape.R * self.shape.W
        layers = d_hidden.split(shape.H, 1)
        d_reads, d_below = torch.zeros_like(carried.reads), None
        for layer in reversed(range(shape.layers)):
            d_own = layers[layer] if d_below is None else layers[layer] + d_below
            if shape.recurrent:
                d_own = d_own + carried.hidden[layer]
            self._unsquash(layer, t, numpy(d_own.contiguous()))
            by_reads, by_own, d_below = (self.steps[layer][t] @ self.recurrent[layer]).split(
                [words, shape.H * shape.recurrent, shape.H * (layer > 0)], 1
            )
            d_reads += by_reads
            if shape.recurrent:
                carried.hidden[layer] = _before(by_own, carried.hidden[layer], dead, fresh)
        carried.reads.copy_(_before(d_reads, carried.reads, dead, fresh))

    def _unsquash(self, layer: int, t: int, d_own: Array) -> None:
        shape, d_gates, alive = self.shape, self.d[layer][t], self.shape.alive[t]
        if not shape.recurrent:
            self.kernel(d_gates, self.hidden[layer], t + 1, d_own, alive, self.bound)
            return
        self.kernel(
            self.gates[layer][t], d_gates, self.cells[layer], self.squashed[layer][t], t, d_own,
            numpy(self.carried.cell[layer]), self.no_cell, alive, shape.fresh[t], self.bound, shape.H,
        )  # fmt: skip


def _before(gradient: Tensor, held: Tensor, dead: Tensor | None, fresh: Tensor | None) -> Tensor:
    """The gradient of a step's start: none where a row starts afresh, unchanged where it has ended."""
    if fresh is not None:
        gradient = gradient.masked_fill(fresh, 0)
    return gradient if dead is None else torch.where(dead, held, gradient)


def _collect(
    shape: Shape,
    parameters: Parameters,
    inputs: Tensor,
    tape: Tape,
    d_gates: list[Tensor],
    d_interfaces: Tensor,
    carried: _Carried,
) -> Gradients:
    """The gradients of inputs and parameters, each one matrix product over all steps."""
    fresh = torch.from_numpy(shape.fresh).unsqueeze(-1)
    reads = tape.reads[:-1].masked_fill(fresh, 0)
    d_inputs = inputs.new_zeros(shape.T * shape.B, shape.I)
    weights, biases = [], []
    for layer, weight in enumerate(parameters.weights):
        d_gate = d_gates[layer].flatten(0, 1)
        d_inputs.addmm_(d_gate, weight[:, : shape.I])
        own = [tape.hidden[layer][:-1].masked_fill(fresh, 0)] if shape.recurrent else []
        below = [tape.hidden[layer - 1][1:]] if layer else []
        weights.append(d_gate.t() @ torch.cat([inputs, reads, *own, *below], -1).flatten(0, 1))
        biases.append(d_gate.sum(0))
    hidden = torch.cat([layer[1:] for layer in tape.hidden], -1).flatten(0, 1)
    d_interface = d_interfaces.flatten(0, 1)
    found = Parameters(tuple(weights), tuple(biases), d_interface.t() @ hidden, d_interface.sum(0))
    return Gradients(d_inputs.unflatten(0, (shape.T, shape.B)), carried.start(), found)
