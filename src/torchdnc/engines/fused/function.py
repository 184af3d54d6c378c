"""The fused engine as one function of autograd."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from torchdnc.engines.fused.kernels.arrays import Array, Sizes
from torchdnc.engines.fused.sequence import Parameters, backward, forward
from torchdnc.types import DNCState


class Call(NamedTuple):
    """What a call is besides its tensors.

    alive, fresh: [T, B], see `kernels.arrays.Tape`. again: the same call on the reference, for second derivatives;
    None to refuse them.
    """

    sizes: Sizes
    alive: Array
    fresh: Array
    state_spec: Any
    parameter_spec: Any
    again: Callable[[], tuple[Tensor, DNCState]] | None


class FusedSequence(torch.autograd.Function):
    """(features, leaves of the final state) of (inputs, leaves of the first state, leaves of the parameters)."""

    @staticmethod
    def forward(ctx: Any, call: Call, inputs: Tensor, *leaves: Tensor) -> tuple[Tensor, ...]:
        keep = any(ctx.needs_input_grad)
        start, parameters = _grouped(call, leaves)
        sizes = call.sizes._replace(keep=keep)
        features, end, tape = forward(sizes, parameters, start, inputs, call.alive, call.fresh)
        if keep:
            ctx.call, ctx.sizes, ctx.tape = call, sizes, tape
            ctx.save_for_backward(inputs, *leaves)
        return features, *pytree.tree_leaves(end)

    @staticmethod
    def backward(ctx: Any, d_features: Tensor, *d_leaves: Tensor) -> tuple[Tensor | None, ...]:
        call: Call = ctx.call
        inputs, *leaves = ctx.saved_tensors
        if torch.is_grad_enabled() or any(map(_is_batched, (d_features, *d_leaves))):
            return _through_reference(call, ctx.needs_input_grad, [inputs, *leaves], [d_features, *d_leaves])
        _, parameters = _grouped(call, leaves)
        d_end: DNCState = pytree.tree_unflatten(list(d_leaves), call.state_spec)
        with torch.autocast("cpu", enabled=False):
            found = backward(ctx.sizes, parameters, inputs, ctx.tape, d_features, d_end)
        return None, found.inputs, *pytree.tree_leaves(found.start), *pytree.tree_leaves(found.parameters)


def _is_batched(tensor: Tensor) -> bool:
    """Whether vmap holds it; `is_grads_batched` uses PyTorch's older vmap, which only the dispatch keys show."""
    return "Batched" in str(torch._C._dispatch_keys(tensor))


def _grouped(call: Call, leaves: Any) -> tuple[DNCState, Parameters]:
    count = call.state_spec.num_leaves
    return (
        pytree.tree_unflatten(list(leaves[:count]), call.state_spec),
        pytree.tree_unflatten(list(leaves[count:]), call.parameter_spec),
    )


def _through_reference(
    call: Call, wanted: tuple[bool, ...], tensors: list[Tensor], d_outputs: list[Tensor]
) -> tuple[Tensor | None, ...]:
    """The gradients in PyTorch's own operations, by running the call once more on the reference engine."""
    if call.again is None:
        raise RuntimeError(
            'engine "fused" has no second derivatives (create_graph=True) and no batches of gradients '
            '(is_grads_batched=True): use engine="reference"'
        )
    create_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        features, state = call.again()
    gradients = iter(
        torch.autograd.grad(
            [features, *pytree.tree_leaves(state)],
            [tensor for tensor, want in zip(tensors, wanted[1:], strict=True) if want],
            d_outputs,
            create_graph=create_graph,
            allow_unused=True,
        )
    )
    return None, *(next(gradients) if want else None for want in wanted[1:])
