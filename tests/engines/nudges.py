"""The reference as it would be with other last bits: what its results are worth."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

DERIVATIVES: dict[Callable[..., Tensor], Callable[[Tensor, Tensor], Tensor]] = {
    torch.tanh: lambda value, d: d * (1 - value * value),
    torch.sigmoid: lambda value, d: d * value * (1 - value),
    torch.softmax: lambda value, d: value * (d - (value * d).sum(-1, keepdim=True)),
}
"""Function -> its gradient, from its value and the value's gradient."""


class _Squashed(torch.autograd.Function):
    """A function's value with another last bit; its gradient is that of the value it has."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, function: Callable[[Tensor], Tensor], kind: Any, nudges: Nudges) -> Tensor:
        value = function(x)
        # Never above 1, where a gate's derivative would change its sign.
        lower: Tensor = value * (1 - torch.finfo(value.dtype).eps / 2 * nudges.bits(value))
        ctx.kind = kind
        ctx.save_for_backward(lower)
        return lower

    @staticmethod
    def backward(ctx: Any, d: Tensor) -> tuple[Tensor, None, None, None]:
        return DERIVATIVES[ctx.kind](ctx.saved_tensors[0], d), None, None, None


class Nudges(TorchFunctionMode):
    """Meanwhile whatever is squashed into a range may be a last bit lower.

    An engine that squashes in its own way, as exactly, differs from the reference by that much; where a value is nearly
    1, it is all there is of the gradient.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.generator = torch.Generator().manual_seed(seed)

    def bits(self, like: Tensor) -> Tensor:
        """0 or 1 for every number."""
        return torch.randint(0, 2, like.shape, generator=self.generator).to(like.dtype)

    def nudge(self, tensor: Tensor) -> Tensor:
        """The tensor with other last bits, higher or lower."""
        return tensor * (1 + torch.finfo(tensor.dtype).eps * (2 * self.bits(tensor) - 1))

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if function not in DERIVATIVES:
            return function(*args, **kwargs or {})
        x, *others = args
        return _Squashed.apply(x, lambda x: function(x, *others, **kwargs or {}), function, self)
