"""The fused engine step by step: any controller, and the memory's kernels as one function of autograd."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from torchdnc.checks import check_shape
from torchdnc.engines.fused import compiled
from torchdnc.engines.fused.function import needs_reference, through_reference
from torchdnc.engines.fused.kernels.arrays import Array, Team
from torchdnc.engines.fused.kernels.layout import tape_size, work_size
from torchdnc.engines.fused.kernels.steps import StepSizes, StepTape
from torchdnc.engines.fused.rooms import array
from torchdnc.engines.fused.sequence import (
    check_slots,
    flat_rows,
    kernel_options,
    marks_of,
    memory_of,
    memory_work,
    room_for,
    room_for_gradient,
    tensors_of,
)
from torchdnc.engines.reference import Network
from torchdnc.engines.unroll import unroll
from torchdnc.ops import access, grow, interface_size, split_interface
from torchdnc.types import DNCState, MemoryOptions, MemoryState

NO_STEPS = np.empty((0, 0), np.bool_)


def run(
    network: Network,
    inputs: Tensor,
    state: DNCState,
    initial: DNCState,
    lengths: Tensor | None = None,
    reset: Tensor | None = None,
    beside: Tensor | None = None,
    second_derivatives: bool = True,
) -> tuple[Tensor, DNCState]:
    """The step over a whole sequence; see `unroll` for the arguments, `fused.run` for the last one."""
    call = Call(network.word_size, network.read_heads, network.options, second_derivatives)
    return unroll(partial(step, network, call), inputs, state, initial, lengths, reset, beside)


class Call(NamedTuple):
    """What an access to the memory is besides its tensors."""

    word_size: int
    read_heads: int
    options: MemoryOptions
    second_derivatives: bool


def step(
    network: Network, call: Call, step_input: Tensor, state: DNCState, beside: Tensor | None = None
) -> tuple[Tensor, DNCState]:
    """One step, as `reference.step` makes it: the controller and the interface are the network's own modules."""
    chi = torch.cat([step_input, state.read_words.flatten(-2)], -1)
    hidden, controller = network.controller(chi, state.controller)
    interface = network.interface(hidden if beside is None else torch.cat([hidden, beside], -1))
    # The kernels believe the sizes that they are told.
    check_shape("interface", interface, (len(chi), interface_size(call.word_size, call.read_heads, call.options)))
    check_slots(state.memory)
    memory = grow(state.memory, call.options) if call.options.overflow == "grow" else state.memory
    read_words, *leaves = FusedAccess.apply(call, interface.to(state.read_words.dtype), *tensors_of(memory))
    features = torch.cat([hidden, read_words.flatten(-2)], -1)
    return features, DNCState(controller, _memory(call, leaves), read_words)


class FusedAccess(torch.autograd.Function):
    """(read words, the memory after a step) of (raw interface [B, X], the memory before it), leaf by leaf."""

    @staticmethod
    def forward(ctx: Any, call: Call, interface: Tensor, *leaves: Tensor) -> tuple[Tensor, ...]:
        before = _memory(call, leaves)
        sizes, team = _sizes(call, before), _team(before)
        after = room_for(before)
        reads = interface.new_empty(len(interface), sizes.R, sizes.W)
        tape = _tape(sizes, interface)
        compiled.run(
            "step", team, sizes, array(interface), flat_rows(before), flat_rows(after), array(reads.flatten(1)),
            StepTape(*map(array, tape)), _work(team, sizes, interface),
        )  # fmt: skip
        if any(ctx.needs_input_grad):
            ctx.call, ctx.sizes = call, sizes
            ctx.save_for_backward(interface, *leaves, after.memory, *tape)
            ctx.mark_non_differentiable(*marks_of(after))
        return reads, *tensors_of(after)

    @staticmethod
    def backward(ctx: Any, d_reads: Tensor, *d_leaves: Tensor) -> tuple[Tensor | None, ...]:
        interface, *others = ctx.saved_tensors
        fields = len(d_leaves)
        leaves, memory, tape = others[:fields], others[fields], others[fields + 1 :]
        if needs_reference(d_reads, *d_leaves):
            again = partial(_on_the_reference, ctx.call) if ctx.call.second_derivatives else None
            return through_reference(again, (interface, *leaves), ctx.needs_input_grad, (d_reads, *d_leaves))
        sizes: StepSizes = ctx.sizes
        before = _memory(ctx.call, leaves)
        team = _team(before)
        d_interface = interface.new_empty(interface.shape)
        d_before = room_for_gradient(before)
        compiled.run(
            "step_backward", team, sizes, StepTape(*map(array, tape)), flat_rows(before),
            array(memory.flatten(1)), NO_STEPS, flat_rows(_memory(ctx.call, d_leaves)), array(d_reads.flatten(1)),
            flat_rows(d_before), array(d_interface), _room(team, (3 + sizes.R) * sizes.N, interface),
            _work(team, sizes, interface),
        )  # fmt: skip
        return None, d_interface, *tensors_of(d_before)


def _memory(call: Call, leaves: Sequence[Tensor]) -> MemoryState:
    return memory_of(kernel_options(call.options), leaves)


def _on_the_reference(call: Call, interface: Tensor, *leaves: Tensor) -> tuple[Tensor, MemoryState]:
    """The access in PyTorch's own operations."""
    xi = split_interface(interface, call.word_size, call.read_heads, call.options)
    return access(xi, _memory(call, leaves), call.options)


def _sizes(call: Call, memory: MemoryState) -> StepSizes:
    _, N, W = memory.memory.shape
    return StepSizes(N, W, call.read_heads, kernel_options(call.options))


def _tape(sizes: StepSizes, interface: Tensor) -> tuple[Tensor, ...]:
    """A `StepTape` of tensors, which holds nothing yet."""
    B, size, empty = len(interface), tape_size(sizes.N, sizes.R, sizes.options), interface.new_empty
    return empty(interface.shape), empty(2, B, size), empty(B, sizes.N, dtype=torch.int32)


def _team(memory: MemoryState) -> Team:
    return compiled.team(work=memory_work(memory))


def _work(team: Team, sizes: StepSizes, like: Tensor) -> Array:
    return _room(team, work_size(sizes.N, sizes.W, sizes.R, sizes.options), like)


def _room(team: Team, numbers: int, like: Tensor) -> Array:
    """For every thread so many numbers to work with."""
    return array(like.new_empty(team.threads, numbers))
