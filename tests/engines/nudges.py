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
"""Function that squashes -> its gradient, from its value and the value's gradient."""
SUMS = {"matmul", "__matmul__", "linear", "sum", "sqrt", "cumprod"}
"""Names of functions whose values engines round in ways of their own."""


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
    """Meanwhile sums and squashed values have other last bits.

    An engine that adds and squashes in its own way, as exactly, differs from the reference by that much. With an even
    seed equal numbers have equal last bits: slots that are alike err alike, which adds up. With an odd one their place
    in the tensor counts too: rounding breaks their ties.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed

    def bits(self, tensor: Tensor) -> Tensor:
        """0 or 1 for every number."""
        whole = torch.int32 if tensor.dtype == torch.float32 else torch.int64
        mixed = tensor.detach().contiguous().view(whole).to(torch.int64) + 7919 * self.seed
        if self.seed % 2:
            mixed += torch.arange(mixed.numel()).view(mixed.shape)
        for _ in range(2):
            mixed = (mixed ^ (mixed >> 29)) * 0x3F58476D1CE4E5B9
        return ((mixed >> 40) & 1).to(tensor.dtype)

    def nudge(self, tensor: Tensor) -> Tensor:
        """The tensor with other last bits, higher or lower."""
        return tensor * (1 + torch.finfo(tensor.dtype).eps * (2 * self.bits(tensor) - 1))

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if function in DERIVATIVES:
            x, *others = args
            return _Squashed.apply(x, lambda x: function(x, *others, **kwargs or {}), function, self)
        value = function(*args, **kwargs or {})
        if getattr(function, "__name__", None) in SUMS and value.is_floating_point():
            return value + (self.nudge(value) - value).detach()
        return value
