"""A whole sequence forward and backward: PyTorch's matrix products, compiled kernels for everything else."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from torchdnc.engines.fused.compiled import kernel
from torchdnc.engines.fused.kernels.layout import tape_size, work_size
from torchdnc.types import MemoryState

Array = np.ndarray[Any, Any]

COSINE_EPSILON = 1e-6


class Shape(NamedTuple):
    """Sizes of a call, and what does not change within it."""

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


class Start(NamedTuple):
    """The state before the first step."""

    hidden: tuple[Tensor, ...]
    cell: tuple[Tensor, ...]
    memory: MemoryState
    read_words: Tensor


class Tape:
    """What forward leaves for backward. Memory and links are kept every √T steps only, and replayed between."""

    def __init__(self, shape: Shape, start: Start, keep: bool) -> None:
        self.shape, self.keep = shape, keep
        T, B, _, H, N, W, R = shape[:7]
        self.places = T + 1 if keep else 2
        self.every = max(1, math.isqrt(T))
        make = start.read_words.new_empty
        self.rows = make(self.places, B, tape_size(N, R))
        self.orders = np.empty((self.places, B, N), np.int32)
        self.reads = make(self.places, B, R * W)
        self.hidden = [make(self.places, B, H) for _ in range(shape.layers)]
        self.cells = [make(self.places, B, H) for _ in start.cell]
        self.squashed = [make(T if keep else 1, B, H) for _ in start.cell]
        self.memory = start.memory.memory.reshape(B, N * W).clone()
        self.link = start.memory.link.reshape(B, N * N).clone()
        self.memories: list[Tensor] = []
        self.links: list[Tensor] = []
        self.no_cell = self.rows.new_zeros(H)
        self.no_memory = self.rows.new_zeros(N * W)
        self.zeros = self.rows.new_zeros(tape_size(N, R))
        self.zeros[3 * N : 4 * N] = math.sqrt(COSINE_EPSILON)
        self._begin(start)

    def _begin(self, start: Start) -> None:
        _, B, _, _, N, W, R = self.shape[:7]
        memory = start.memory
        row = self.rows[0]
        row[:, :N], row[:, N : 2 * N], row[:, 2 * N : 3 * N] = (
            memory.usage,
            memory.write_weights,
            memory.precedence,
        )
        row[:, 3 * N : 4 * N] = (memory.memory.square().sum(-1) + COSINE_EPSILON).sqrt()
        row[:, 5 * N : 5 * N + R * N] = memory.read_weights.reshape(B, R * N)
        self.orders[0] = np.arange(N)
        self.reads[0] = start.read_words.reshape(B, R * W)
        # A feedforward controller keeps activations on the tape, and starts from none.
        for buffer, value in zip((*self.hidden, *self.cells), (*start.hidden, *start.cell), strict=False):
            buffer[0] = value

    def place(self, t: int) -> int:
        """Where step t's values lie, counting the start as 0."""
        return t if self.keep else t % 2

    def checkpoint(self, t: int) -> None:
        """Keeps memory and links before step t, if it is time."""
        if self.keep and t % self.every == 0:
            self.memories.append(self.memory.clone())
            self.links.append(self.link.clone())

    def end(self) -> Start:
        """The state after the last step, in tensors of its own."""
        T, B, _, _, N, W, R = self.shape[:7]
        d = self.place(T)
        row = self.rows[d]
        memory = MemoryState(
            memory=self.memory.view(B, N, W),
            usage=row[:, :N].clone(),
            precedence=row[:, 2 * N : 3 * N].clone(),
            link=self.link.view(B, N, N),
            write_weights=row[:, N : 2 * N].clone(),
            read_weights=row[:, 5 * N : 5 * N + R * N].reshape(B, R, N).clone(),
        )
        hidden = tuple(buffer[d].clone() for buffer in self.hidden) if self.cells else ()
        cell = tuple(buffer[d].clone() for buffer in self.cells)
        return Start(hidden, cell, memory, self.reads[d].view(B, R, W).clone())


def forward(
    shape: Shape, parameters: Parameters, start: Start, inputs: Tensor, keep: bool
) -> tuple[Tensor, Tape, list[Tensor], Tensor]:
    """Features [T, B, layers·H + R·W], the tape, and every layer's squashed gates and the interfaces.

    The inputs' share of every layer is one matrix product before the loop.
    """
    T, B, I, H, N, W, R = shape[:7]
    tape = Tape(shape, start, keep)
    gates = [
        torch.addmm(bias, inputs.reshape(T * B, I), weight[:, :I].t()).unflatten(0, (T, B))
        for weight, bias in zip(parameters.weights, parameters.biases, strict=True)
    ]
    columns = [_columns(shape, weight[:, I:].t(), layer) for layer, weight in enumerate(parameters.weights)]
    interfaces = inputs.new_empty(T, B, parameters.interface.shape[0])
    features = inputs.new_empty(T, B, shape.layers * H + R * W)
    work = np.empty((B, work_size(N, R)), _numpy(inputs).dtype)
    bits = np.empty((B, max(N, 4 * H)), np.int32)
    arrays = [_numpy(tensor) for tensor in (tape.rows, tape.memory, tape.link, tape.reads, tape.zeros)]
    rows, memory, link, reads, zeros = arrays
    to_interface = parameters.interface.t()
    any_fresh: Array = np.any(shape.fresh, axis=1)
    step = kernel("step", shape.threads > 1)
    for t in range(T):
        s, d = tape.place(t), tape.place(t + 1)
        alive, fresh = shape.alive[t], shape.fresh[t]
        tape.checkpoint(t)
        mask = torch.from_numpy(fresh).unsqueeze(-1) if any_fresh[t] else None
        for layer in range(shape.layers):
            _layer(shape, tape, layer, gates[layer][t], columns[layer], (s, d, t), mask, alive, fresh, bits)
        hidden = [tape.hidden[layer][d] for layer in range(shape.layers)]
        torch.addmm(
            parameters.interface_bias, torch.cat(hidden, 1) if len(hidden) > 1 else hidden[0], to_interface,
            out=interfaces[t],
        )  # fmt: skip
        step(
            rows,
            tape.orders,
            s,
            d,
            _numpy(interfaces[t]),
            memory,
            link,
            reads,
            zeros,
            alive,
            fresh,
            work,
            bits,
            N,
            W,
            R,
        )
        if not keep:
            torch.cat([*hidden, tape.reads[d]], 1, out=features[t])
    if keep:
        torch.cat([*(hidden[1:] for hidden in tape.hidden), tape.reads[1:]], -1, out=features)
    return features, tape, gates, interfaces


def _numpy(tensor: Tensor) -> Array:
    array: Array = tensor.detach().numpy()
    return array


def _columns(shape: Shape, weight: Tensor, layer: int) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """The rows of a layer's weight (without the inputs') that meet the reads, its own h and the h below."""
    words, own = shape.R * shape.W, shape.H if shape.recurrent else 0
    return (
        weight[:words],
        weight[words : words + own] if own else None,
        weight[words + own :] if layer else None,
    )


def _layer(
    shape: Shape,
    tape: Tape,
    layer: int,
    gates: Tensor,
    columns: tuple[Tensor, Tensor | None, Tensor | None],
    places: tuple[int, int, int],
    mask: Tensor | None,
    alive: Array,
    fresh: Array,
    bits: Array,
) -> None:
    """One layer of the controller at one step; a row that starts afresh has no h and no reads before."""
    s, d, t = places
    by_reads, by_own, by_below = columns
    gates.addmm_(_masked(tape.reads[s], mask), by_reads)
    if by_own is not None:
        gates.addmm_(_masked(tape.hidden[layer][s], mask), by_own)
    if by_below is not None:
        gates.addmm_(tape.hidden[layer - 1][d], by_below)
    hidden = _numpy(tape.hidden[layer])
    if not shape.recurrent:
        kernel("feedforward", shape.threads > 1)(_numpy(gates), hidden, d, alive, bits)
        return
    squashed = _numpy(tape.squashed[layer][t if tape.keep else 0])
    kernel("lstm", shape.threads > 1)(
        _numpy(gates), _numpy(tape.cells[layer]), squashed, hidden, s, d, _numpy(tape.no_cell), alive, fresh, bits,
        shape.H,
    )  # fmt: skip


def _masked(tensor: Tensor, mask: Tensor | None) -> Tensor:
    return tensor if mask is None else tensor.masked_fill(mask, 0)
