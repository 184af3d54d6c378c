"""A step function over a sequence, row by row where rows end or start afresh."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils import _pytree as pytree

S = TypeVar("S")


def _choose(condition: Tensor, chosen: S, otherwise: S) -> S:
    """Row by row: leaves of `chosen` where the condition [B] holds, of `otherwise` elsewhere.

    Of a leaf that has grown in one of them the other gets as much, of zeros.
    """

    def where(one: Tensor, other: Tensor) -> Tensor:
        if one.shape != other.shape:
            shape = [*map(max, one.shape, other.shape)]
            one, other = _padded(one, shape), _padded(other, shape)
        return torch.where(condition.view(-1, *[1] * (one.dim() - 1)), one, other)

    mixed: S = pytree.tree_map(where, chosen, otherwise)
    return mixed


def _padded(tensor: Tensor, shape: Sequence[int]) -> Tensor:
    """The tensor with zeros behind it along every dimension, up to this shape."""
    missing = [wanted - size for wanted, size in zip(shape, tensor.shape, strict=True)]
    return F.pad(tensor, [side for extra in reversed(missing) for side in (0, extra)])


def _of_both(step: Callable[..., Any], input_size: int) -> Callable[[Tensor, Any], Any]:
    """A step of an input and what is beside it, as one of both in a row."""
    return lambda both, state: step(both[..., :input_size], state, both[..., input_size:])


def unroll(
    step: Callable[..., tuple[Tensor, Any]],
    inputs: Tensor,
    state: S,
    initial: S,
    lengths: Tensor | None = None,
    reset: Tensor | None = None,
    beside: Tensor | None = None,
) -> tuple[Tensor, S]:
    """Applies `step` to every time step in turn.

    Args:
        step: (input [B, I], state) -> (features [B, F], state); see `beside`.
        inputs: [T, B, I].
        state: the state before the first step.
        initial: the state a row is put back to where `reset` says so.
        lengths: [B] integers from 0 to T: a row's state stays as it is from this step on. What the features
            hold there is finite and means nothing.
        reset: [T, B] bool: rows that start afresh before that step; past a row's length it is ignored.
        beside: [T, B, E], what the step takes besides its input, as a third argument; None: nothing.
    Returns:
        features [T, B, F] and the state after the last step.
    """
    if beside is not None:
        step, inputs = _of_both(step, inputs.shape[-1]), torch.cat([inputs, beside], -1)
    alive = None
    if lengths is not None:
        alive = torch.arange(len(inputs), device=inputs.device).unsqueeze(-1) < lengths
        # Padding may hold anything, NaN too, which would reach the gradients even through a `where`.
        inputs = inputs.masked_fill(~alive.unsqueeze(-1), 0)
    features = []
    for t, step_input in enumerate(inputs.unbind(0)):
        before = state if reset is None else _choose(reset[t], initial, state)
        feature, after = step(step_input, before)
        state = after if alive is None else _choose(alive[t], after, state)
        features.append(feature)
    return torch.stack(features), state
