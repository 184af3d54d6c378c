"""A call as a function of autograd."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchdnc.engines.fused.function import flat, needs_reference
from torchdnc.engines.fused.kernels.arrays import Array
from torchdnc.engines.fused.kernels.sparse.arrays import SparseSizes
from torchdnc.engines.fused.sequence import Parameters, Wanted
from torchdnc.engines.fused.sparse.sequence import Leaves, backward, forward
from torchdnc.engines.fused.sparse.tape import Tapes
from torchdnc.engines.fused.whole import parameters_of, without_padding
from torchdnc.engines.sparse.states import SparseState
from torchdnc.types import LSTMState


class Call(NamedTuple):
    """What a call is besides its tensors; start: the state before, while it is needed; alive, fresh: see `Tape`."""

    sizes: SparseSizes
    epsilon: float
    start: SparseState | None
    alive: Array
    fresh: Array


def run(
    network: Any,
    inputs: Tensor,
    state: SparseState,
    lengths: Tensor | None = None,
    reset: Tensor | None = None,
) -> tuple[Tensor, SparseState]:
    """The whole sequence; see `engines.sparse.reference.run` for the arguments."""
    inputs, alive, fresh = without_padding(inputs, lengths, reset)
    parameters, epsilon = parameters_of(network, None)
    sizes = _sizes(network, inputs, state, parameters)
    ends: list[SparseState] = []
    call = Call(sizes, epsilon, state.detach(), alive, fresh)
    features, *leaves = SparseSequence.apply(call, ends, inputs, *_flat(_leaves_of(state)), *flat(parameters))
    end, _ = _cut(sizes, leaves)
    return features, _with(ends[0], end)


class SparseSequence(torch.autograd.Function):
    """(features, leaves of the final state) of (inputs, leaves of the first state, leaves of the parameters).

    To `ends` is added the final state, whose slots and version are no tensors of autograd.
    """

    @staticmethod
    def forward(ctx: Any, call: Call, ends: list[SparseState], inputs: Tensor, *leaves: Tensor) -> Any:
        assert call.start is not None
        start, parameters = _grouped(call.sizes, leaves)
        # In here gradients are off, and `needs_input_grad` says nothing of whether they were on outside.
        keep = call.sizes.keep and any(ctx.needs_input_grad)
        sizes = call.sizes._replace(keep=keep)
        done = forward(sizes, parameters, call.epsilon, _with(call.start, start), inputs, call.alive, call.fresh)
        ends.append(done.end)
        if keep:
            ctx.set_materialize_grads(False)
            # The memory as it was is not needed, and would keep a journal.
            ctx.call, ctx.touched = call._replace(start=None), done.touched
            ctx.save_for_backward(inputs, *leaves, *done.tapes)
        return done.features, *_flat(_leaves_of(done.end))

    @staticmethod
    def backward(ctx: Any, d_features: Tensor | None, *d_leaves: Tensor | None) -> Any:
        call: Call = ctx.call
        inputs, *leaves, numbers, places = ctx.saved_tensors
        if needs_reference(*(leaf for leaf in (d_features, *d_leaves) if leaf is not None)):
            raise RuntimeError(
                "a sparse memory has no second derivatives (create_graph=True) and no batches of gradients "
                '(is_grads_batched=True) on engine "fused": use engine="reference"'
            )
        _, parameters = _grouped(call.sizes, leaves)
        d_end, _ = _cut(call.sizes, d_leaves)
        wanted = Wanted(ctx.needs_input_grad[2], any(ctx.needs_input_grad[3 + len(d_leaves) :]))
        with torch.autocast("cpu", enabled=False):
            found = backward(
                call.sizes, parameters, inputs, Tapes(numbers, places), ctx.touched, call.alive, call.fresh,
                d_features, d_end, wanted,
            )  # fmt: skip
        d_parameters = [None] * (len(leaves) - len(d_leaves)) if found.parameters is None else flat(found.parameters)
        return None, None, found.inputs, *_flat(found.start), *d_parameters


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


def _leaves_of(state: SparseState) -> Leaves:
    hidden, cells = state.controller or ((), ())
    return Leaves(hidden, cells, state.memory.content, state.memory.read_weights, state.read_words)


def _flat(leaves: Leaves) -> list[Any]:
    """The tensors one by one, in order."""
    return [*leaves.hidden, *leaves.cells, leaves.content, leaves.read_weights, leaves.read_words]


def _cut(sizes: SparseSizes, leaves: Sequence[Any]) -> tuple[Leaves, Sequence[Any]]:
    """The leaves of a state, and the tensors behind them."""
    layers = sizes.layers * sizes.recurrent
    last = 2 * layers + 3
    return Leaves(leaves[:layers], leaves[layers : 2 * layers], *leaves[2 * layers : last]), leaves[last:]


def _grouped(sizes: SparseSizes, leaves: Sequence[Tensor]) -> tuple[Leaves, Parameters]:
    start, parameters = _cut(sizes, leaves)
    layers = sizes.layers
    weights, biases = tuple(parameters[:layers]), tuple(parameters[layers : 2 * layers])
    interface, bias, *norm = parameters[2 * layers :]
    return start, Parameters(weights, biases, interface, bias, tuple(norm))


def _with(state: SparseState, leaves: Leaves) -> SparseState:
    """The state with these leaves."""
    controller = LSTMState(tuple(leaves.hidden), tuple(leaves.cells)) if leaves.hidden else ()
    memory = replace(state.memory, content=leaves.content, read_weights=leaves.read_weights)
    return SparseState(controller, memory, leaves.read_words)
