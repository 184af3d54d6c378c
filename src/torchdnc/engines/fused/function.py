"""The fused engine as one function of autograd."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from torchdnc.engines.fused.compiled import team
from torchdnc.engines.fused.kernels.arrays import Array, Sizes
from torchdnc.engines.fused.sequence import (
    Kept,
    Parameters,
    Wanted,
    backward,
    fields_of,
    forward,
    marks_of,
    memory_of,
    tensors_of,
)
from torchdnc.ops.slots import of_width
from torchdnc.types import DNCState, LSTMState


class Call(NamedTuple):
    """What a call is besides its tensors.

    work: numbers that it goes through. epsilon: of the interface's normalisation. alive, fresh: [T, B], see
    `kernels.arrays.Tape`. again: the same call on the reference, as a function of inputs, state and parameters; None to
    refuse what needs it.
    """

    work: int
    sizes: Sizes
    epsilon: float
    alive: Array
    fresh: Array
    again: Callable[[Tensor, DNCState, Parameters], tuple[Tensor, DNCState]] | None


class FusedSequence(torch.autograd.Function):
    """(features, leaves of the final state) of (inputs, leaves of the first state, leaves of the parameters)."""

    @staticmethod
    def forward(ctx: Any, call: Call, inputs: Tensor, *leaves: Tensor) -> tuple[Tensor, ...]:
        start, parameters = _grouped(call, leaves)
        # In here gradients are off, and `needs_input_grad` says nothing of whether they were on outside.
        keep = call.sizes.keep and any(ctx.needs_input_grad)
        sizes = call.sizes._replace(keep=keep)
        sizes, features, end, kept = forward(
            team(call.work), sizes, parameters, call.epsilon, start, inputs, call.alive, call.fresh
        )
        if keep:
            ctx.call = call._replace(sizes=sizes)
            ctx.save_for_backward(inputs, *leaves, *kept)
            ctx.mark_non_differentiable(*marks_of(end.memory))
        return features, *leaves_of(end)

    @staticmethod
    def backward(ctx: Any, d_features: Tensor, *d_leaves: Tensor) -> tuple[Tensor | None, ...]:
        call: Call = ctx.call
        inputs, *leaves, numbers, orders = ctx.saved_tensors
        if needs_reference(d_features, *d_leaves):
            again = partial(_again, call, call.again) if call.again else None
            return through_reference(again, (inputs, *leaves), ctx.needs_input_grad, (d_features, *d_leaves))
        _, parameters = _grouped(call, leaves)
        start = 2 + len(d_leaves)
        wanted = Wanted(inputs=ctx.needs_input_grad[1], parameters=any(ctx.needs_input_grad[start:]))
        d_end, _ = state_of(call.sizes, d_leaves)
        with torch.autocast("cpu", enabled=False):
            kept = Kept(numbers, orders)
            found = backward(
                team(call.work), call.sizes, parameters, inputs, kept, call.alive, call.fresh, d_features, d_end, wanted
            )
        d_parameters = [None] * len(leaves[start - 2 :]) if found.parameters is None else flat(found.parameters)
        d_start = map(_share_of, leaves_of(found.start), leaves)
        return None, found.inputs, *d_start, *d_parameters


def _share_of(gradient: Tensor, leaf: Tensor) -> Tensor:
    """The gradient of what a leaf had before its memory grew."""
    return gradient if gradient.shape == leaf.shape else gradient[tuple(map(slice, leaf.shape))]


def leaves_of(state: DNCState) -> list[Tensor]:
    """The tensors of a state of a built-in controller, in order."""
    return [*itertools.chain(*state.controller), *tensors_of(state.memory), state.read_words]


def state_of(sizes: Sizes, leaves: Sequence[Tensor]) -> tuple[DNCState, Sequence[Tensor]]:
    """The state of these leaves, and the tensors behind them. By hand: pytree takes a tenth of a millisecond."""
    layers = sizes.layers * sizes.recurrent
    hidden, cells, words = leaves[:layers], leaves[layers : 2 * layers], 2 * layers + len(fields_of(sizes.options))
    controller = LSTMState(tuple(hidden), tuple(cells)) if layers else ()
    memory = memory_of(sizes.options, leaves[2 * layers : words])
    return DNCState(controller, memory, leaves[words]), leaves[words + 1 :]


def _grouped(call: Call, leaves: Sequence[Tensor]) -> tuple[DNCState, Parameters]:
    state, parameters = state_of(call.sizes, leaves)
    layers = call.sizes.layers
    weights, biases = tuple(parameters[:layers]), tuple(parameters[layers : 2 * layers])
    interface, bias, *others = parameters[2 * layers :]
    norm = 2 * call.sizes.normed
    return state, Parameters(weights, biases, interface, bias, tuple(others[:norm]), tuple(others[norm:]))


def flat(parameters: Parameters) -> list[Tensor]:
    """The tensors of the parameters, in order."""
    interface = parameters.interface, parameters.interface_bias, *parameters.norm, *parameters.beside
    return [*parameters.weights, *parameters.biases, *interface]


def _again(call: Call, again: Callable[..., Any], inputs: Tensor, *leaves: Tensor) -> Any:
    """The call on the reference, as a function of tensors one by one."""
    features, state = again(inputs, *_grouped(call, leaves))
    # There a row past its end may have grown the tensors too.
    return features, state._replace(memory=of_width(state.memory, call.sizes.N))


def needs_reference(*d_outputs: Tensor) -> bool:
    """Whether a backward pass is asked for more than kernels do: second derivatives or a batch of gradients."""
    return torch.is_grad_enabled() or any(map(_is_batched, d_outputs))


def _is_batched(tensor: Tensor) -> bool:
    """Whether vmap holds it; `is_grads_batched` uses PyTorch's older vmap, which only the dispatch keys show."""
    return "Batched" in str(torch._C._dispatch_keys(tensor))


def through_reference(
    again: Callable[..., Any] | None,
    tensors: Sequence[Tensor],
    needed: Sequence[bool],
    d_outputs: Sequence[Tensor],
) -> tuple[Tensor | None, ...]:
    """The gradients of a function of autograd in PyTorch's own operations, by running its call once more.

    Args:
        again: the call on the reference engine, as a function of the tensors; None refuses.
        tensors: the function's arguments behind the first, which is none.
        needed: of which arguments a gradient is.
        d_outputs: gradients of the leaves of what the call returns.
    Raises:
        RuntimeError: there is no `again`.
    """
    if again is None:
        raise RuntimeError(
            'engine "fused" has no second derivatives (create_graph=True) and no batches of gradients '
            '(is_grads_batched=True): use engine="reference"'
        )
    create_graph = torch.is_grad_enabled()
    with torch.enable_grad(), torch.autocast("cpu", enabled=False):
        # One may have been made from another: of a view, the gradient is that of this place alone.
        views = [tensor.view_as(tensor) for tensor in tensors]
        outputs = pytree.tree_leaves(again(*views))
    reached = [pair for pair in zip(outputs, d_outputs, strict=True) if pair[0].requires_grad]
    gradients = iter(
        torch.autograd.grad(
            [output for output, _ in reached],
            [view for view, need in zip(views, needed[1:], strict=True) if need],
            [d_output for _, d_output in reached],
            create_graph=create_graph,
            allow_unused=True,
        )
    )
    return None, *(next(gradients) if need else None for need in needed[1:])
