"""The fused engine as one function of autograd."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from torchdnc.engines.fused.backward import backward
from torchdnc.engines.fused.compiled import using
from torchdnc.engines.fused.sequence import Parameters, Shape, Start, forward


class FusedSequence(torch.autograd.Function):
    """(features, leaves of the final state) of (inputs, leaves of the start, leaves of the parameters)."""

    @staticmethod
    def forward(ctx: Any, call: tuple[Shape, Any, Any, Any], inputs: Tensor, *leaves: Tensor) -> tuple[Tensor, ...]:
        shape, start_spec, parameter_spec, _ = call
        count = start_spec.num_leaves
        start: Start = pytree.tree_unflatten(list(leaves[:count]), start_spec)
        parameters: Parameters = pytree.tree_unflatten(list(leaves[count:]), parameter_spec)
        keep = any(ctx.needs_input_grad)
        with using(shape.threads):
            features, tape, gates, interfaces = forward(shape, parameters, start, inputs, keep)
        ctx.call = call
        # The outputs must not be buffers that the tape goes on using.
        end = tape.end()
        if keep:
            ctx.tape = tape, gates, interfaces
            ctx.count = count
            ctx.save_for_backward(inputs, *leaves)
        return features, *pytree.tree_leaves(end)

    @staticmethod
    def backward(ctx: Any, d_features: Tensor, *d_leaves: Tensor) -> tuple[Tensor | None, ...]:
        shape, start_spec, parameter_spec, again = ctx.call
        inputs, *leaves = ctx.saved_tensors
        if torch.is_grad_enabled():
            return _through_reference(again, ctx.needs_input_grad, inputs, leaves, (d_features, *d_leaves))
        parameters: Parameters = pytree.tree_unflatten(leaves[ctx.count :], parameter_spec)
        d_end: Start = pytree.tree_unflatten(list(d_leaves), start_spec)
        tape, gates, interfaces = ctx.tape
        with using(shape.threads):
            gradients = backward(shape, parameters, inputs, tape, gates, interfaces, d_features, d_end)
        return (
            None,
            gradients.inputs,
            *pytree.tree_leaves(gradients.start),
            *pytree.tree_leaves(gradients.parameters),
        )


def _through_reference(
    again: Any, wanted: tuple[bool, ...], inputs: Tensor, leaves: list[Tensor], d_outputs: tuple[Tensor, ...]
) -> tuple[Tensor | None, ...]:
    """The gradients as a graph of their own, by running the call once more on the reference engine."""
    if again is None:
        raise RuntimeError('engine "fused" has no second derivatives (create_graph=True): use engine="reference"')
    features, state = again()
    tensors = [inputs, *leaves]
    found = torch.autograd.grad(
        [features, *pytree.tree_leaves(state)],
        [tensor for tensor, want in zip(tensors, wanted[1:], strict=True) if want],
        d_outputs,
        create_graph=True,
        allow_unused=True,
    )
    gradients = iter(found)
    return None, *(next(gradients) if want else None for want in wanted[1:])
