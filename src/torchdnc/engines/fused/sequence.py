"""A sequence forward: PyTorch's matrix products, compiled kernels for everything else. Backward: `backward.py`."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from torchdnc.engines.fused.compiled import kernel
from torchdnc.engines.fused.kernels.layout import tape_parts, tape_size, work_size
from torchdnc.ops.content import COSINE_EPSILON
from torchdnc.types import DNCState, LSTMState, MemoryState

Array = np.ndarray[Any, Any]


class Shape(NamedTuple):
    """Sizes of a call, and what does not change within it.

    layers: of the controller; recurrent: it is an LSTM; through_writes: gradients flow from the usage into the write
    weights before; bound: of the activations' gradients; alive [T, B]: before a row's end; fresh [T, B]: rows that
    start afresh, never past their end.
    """

    T: int
    B: int
    I: int
    H: int
    N: int
    W: int
    R: int
    layers: int
    recurrent: bool
    through_writes: bool
    bound: float
    threads: int
    alive: Array
    fresh: Array


class Parameters(NamedTuple):
    """Weights and biases of every layer, [gates·H, I + R·W + (H) + (H below)], and of the interface."""

    weights: tuple[Tensor, ...]
    biases: tuple[Tensor, ...]
    interface: Tensor
    interface_bias: Tensor


def numpy(tensor: Tensor) -> Array:
    """The tensor's numbers, shared."""
    array: Array = tensor.detach().numpy()
    return array


def parts_of(rows: Tensor, shape: Shape) -> tuple[Tensor, ...]:
    """`tape_parts` of many rows at once: views with the parts along the last dimension."""
    return tuple(part.movedim(0, -1) for part in tape_parts.py_func(rows.movedim(-1, 0), shape.N, shape.R))


class Tape:
    """What forward leaves for backward. Memory and links are kept every √T steps only, and replayed between."""

    def __init__(self, shape: Shape, start: DNCState, inputs: Tensor, parameters: Parameters, keep: bool) -> None:
        self.shape, self.keep, self.every = shape, keep, max(1, math.isqrt(shape.T))
        T, B, H, N = shape.T, shape.B, shape.H, shape.N
        places, steps = (T + 1, T) if keep else (2, 1)
        make = inputs.new_empty
        self.rows = make(places, B, tape_size(N, shape.R))
        self.orders = np.empty((places, B, N), np.int32)
        self.reads = make(places, B, shape.R * shape.W)
        self.hidden = [make(places, B, H) for _ in range(shape.layers)]
        self.cells = [make(places, B, H) for _ in range(shape.layers * shape.recurrent)]
        self.squashed = [make(steps, B, H) for _ in self.cells]
        self.memory = start.memory.memory.flatten(1).clone()
        self.link = start.memory.link.flatten(1).clone()
        self.memories: list[Tensor] = []
        self.links: list[Tensor] = []
        # What a row that starts afresh comes from. An empty slot has the length sqrt(ε).
        self.no_cell, self.no_memory = inputs.new_zeros(H), inputs.new_zeros(N * shape.W)
        self.no_row = inputs.new_zeros(tape_size(N, shape.R))
        parts_of(self.no_row, shape)[3].fill_(math.sqrt(COSINE_EPSILON))
        # The inputs' share of every layer, one product for all steps; the loop adds the rest.
        flat = inputs.reshape(T * B, shape.I)
        self.gates = [
            torch.addmm(bias, flat, weight[:, : shape.I].t()).unflatten(0, (T, B))
            for weight, bias in zip(parameters.weights, parameters.biases, strict=True)
        ]
        self.interfaces = make(T, B, len(parameters.interface))
        self._begin(start)

    def _begin(self, start: DNCState) -> None:
        memory = start.memory
        usage, write_weights, precedence, lengths, _, read_weights, _ = parts_of(self.rows[0], self.shape)
        usage.copy_(memory.usage)
        write_weights.copy_(memory.write_weights)
        precedence.copy_(memory.precedence)
        lengths.copy_((memory.memory.square().sum(-1) + COSINE_EPSILON).sqrt())
        read_weights.copy_(memory.read_weights.flatten(1))
        self.orders[0] = np.arange(self.shape.N)
        self.reads[0] = start.read_words.flatten(1)
        if self.shape.recurrent:
            for buffer, value in zip(
                (*self.hidden, *self.cells), (*start.controller[0], *start.controller[1]), strict=True
            ):
                buffer[0] = value

    def place(self, t: int) -> int:
        """Where the values after t steps lie."""
        return t if self.keep else t % 2

    def checkpoint(self, t: int) -> None:
        """Keeps memory and links before step t, if it is time."""
        if self.keep and t % self.every == 0:
            self.memories.append(self.memory.clone())
            self.links.append(self.link.clone())

    def end(self) -> DNCState:
        """The state after the last step, sharing nothing that backward reads."""
        shape = self.shape
        last = self.place(shape.T)
        usage, write_weights, precedence, _, _, read_weights, _ = parts_of(self.rows[last], shape)
        memory = MemoryState(
            memory=self.memory.unflatten(1, (shape.N, shape.W)),
            usage=usage.clone(),
            precedence=precedence.clone(),
            link=self.link.unflatten(1, (shape.N, shape.N)),
            write_weights=write_weights.clone(),
            read_weights=read_weights.unflatten(1, (shape.R, shape.N)).clone(),
        )
        hidden, cell = (tuple(buffer[last].clone() for buffer in each) for each in (self.hidden, self.cells))
        controller = LSTMState(hidden, cell) if shape.recurrent else ()
        return DNCState(controller, memory, self.reads[last].unflatten(1, (shape.R, shape.W)).clone())


def forward(shape: Shape, parameters: Parameters, start: DNCState, inputs: Tensor, keep: bool) -> tuple[Tensor, Tape]:
    """Features [T, B, layers·H + R·W] and the tape; without `keep` the tape holds the last state only."""
    tape = Tape(shape, start, inputs, parameters, keep)
    features = inputs.new_empty(shape.T, shape.B, shape.layers * shape.H + shape.R * shape.W)
    controller, memory = _Controller(shape, parameters, tape), _Memory(shape, tape)
    to_interface, interfaces = parameters.interface.t(), tape.interfaces.unbind(0)
    for t in range(shape.T):
        tape.checkpoint(t)
        before, now = tape.place(t), tape.place(t + 1)
        hidden = controller.step(t, before, now)
        torch.addmm(parameters.interface_bias, hidden, to_interface, out=interfaces[t])
        memory.step(t, before, now)
        torch.cat([hidden, tape.reads[now]], 1, out=features[t])
    return features, tape


class _Controller:
    """The layers of the controller, step by step."""

    def __init__(self, shape: Shape, parameters: Parameters, tape: Tape) -> None:
        self.shape, self.tape = shape, tape
        words, own = shape.R * shape.W, shape.H * shape.recurrent
        # The columns of each weight that meet the reads, the layer's own h, and the h of the layer below.
        self.columns = [
            tuple(part.t() for part in weight[:, shape.I :].split([words, own, shape.H * (layer > 0)], 1))
            for layer, weight in enumerate(parameters.weights)
        ]
        self.steps = [gates.unbind(0) for gates in tape.gates]
        self.gates, self.hidden = list(map(numpy, tape.gates)), list(map(numpy, tape.hidden))
        self.cells, self.squashed = list(map(numpy, tape.cells)), list(map(numpy, tape.squashed))
        self.no_cell = numpy(tape.no_cell)
        self.bits = np.empty((shape.B, 4 * shape.H), np.int32)
        self.any_fresh: Array = np.any(shape.fresh, axis=1)
        self.kernel = kernel("lstm" if shape.recurrent else "feedforward", shape.threads > 1)

    def step(self, t: int, before: int, now: int) -> Tensor:
        """h of every layer, side by side [B, layers·H]."""
        tape = self.tape
        mask = torch.from_numpy(self.shape.fresh[t]).unsqueeze(-1) if self.any_fresh[t] else None
        reads = _masked(tape.reads[before], mask)
        for layer, (by_reads, by_own, by_below) in enumerate(self.columns):
            gates = self.steps[layer][t].addmm_(reads, by_reads)
            if self.shape.recurrent:
                gates.addmm_(_masked(tape.hidden[layer][before], mask), by_own)
            if layer:
                gates.addmm_(tape.hidden[layer - 1][now], by_below)
            self._squash(layer, t, before, now)
        return torch.cat([hidden[now] for hidden in tape.hidden], 1)

    def _squash(self, layer: int, t: int, before: int, now: int) -> None:
        shape, gates, hidden = self.shape, self.gates[layer][t], self.hidden[layer]
        alive = shape.alive[t]
        if not shape.recurrent:
            self.kernel(gates, hidden, now, alive, self.bits)
            return
        squashed = self.squashed[layer][t if self.tape.keep else 0]
        self.kernel(
            gates, self.cells[layer], squashed, hidden, before, now, self.no_cell, alive, shape.fresh[t], self.bits,
            shape.H,
        )  # fmt: skip


class _Memory:
    """The memory, step by step."""

    def __init__(self, shape: Shape, tape: Tape) -> None:
        self.shape, self.orders = shape, tape.orders
        self.rows, self.memory, self.link, self.reads = map(numpy, (tape.rows, tape.memory, tape.link, tape.reads))
        self.interfaces, self.no_row = numpy(tape.interfaces), numpy(tape.no_row)
        self.work = np.empty((shape.B, work_size(shape.N, shape.R)), self.rows.dtype)
        self.bits = np.empty((shape.B, shape.N), np.int32)
        self.kernel = kernel("step", shape.threads > 1)

    def step(self, t: int, before: int, now: int) -> None:
        """One step of every row."""
        shape = self.shape
        self.kernel(
            self.rows, self.orders, before, now, self.interfaces[t], self.memory, self.link, self.reads, self.no_row,
            shape.alive[t], shape.fresh[t], self.work, self.bits, shape.N, shape.W, shape.R,
        )  # fmt: skip


def _masked(tensor: Tensor, mask: Tensor | None) -> Tensor:
    return tensor if mask is None else tensor.masked_fill(mask, 0)
