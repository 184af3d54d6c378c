"""The fused engine: compiled kernels, for a whole sequence where they know the controller. Design: README.md."""

from __future__ import annotations

import functools
from dataclasses import fields
from typing import Any, Final

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils._python_dispatch import _get_current_dispatch_mode

from torchdnc.engines import reference
from torchdnc.engines.fused import compiled
from torchdnc.types import PAPER, DNCState, MemoryOptions

OPTIONS: Final[dict[str, tuple[Any, ...] | None]] = {
    "usage_gradient": (True, False),
    "skip_unwritten": (True, False),
    "links": ("full", "none"),
    "deallocation": (True, False),
    "masking": (True, False),
    "mask_floor": None,
    "overflow": ("drop", "reclaim", "grow"),
    "high_watermark": None,
    "low_watermark": None,
    "grow_above": None,
    "max_memory_size": None,
}
"""The values of `MemoryOptions` that the kernels have, None for all; of other fields the paper's."""


def refusal(network: Any, inputs: Tensor) -> str | None:
    """Why this engine cannot run a call, as the end of a sentence; None if it can."""
    return hindrance(inputs) or lacking(network.options)


def hindrance(inputs: Tensor) -> str | None:
    """Why no compiled kernel can run on these inputs here, as the end of a sentence; None if one can."""
    if inputs.device.type != "cpu":
        return f"it runs on the CPU only, and the input is on {inputs.device}"
    if inputs.dtype not in (torch.float32, torch.float64):
        return f"it knows float32 and float64 only, and the input is {inputs.dtype}"
    return _tracing(inputs) or compiled.refusal()


@functools.cache
def lacking(options: MemoryOptions) -> str | None:
    """Which of the options this engine does not have, as the end of a sentence; None if it has them all."""
    values = {field.name: getattr(options, field.name) for field in fields(options)}
    known = {name: OPTIONS.get(name, (getattr(PAPER, name),)) or (value,) for name, value in values.items()}
    lacked = [f"{name}={value!r}" for name, value in values.items() if value not in known[name]]
    return f"it does not have the option{'s' * (len(lacked) > 1)} {', '.join(lacked)}" if lacked else None


def _tracing(inputs: Tensor) -> str | None:
    """What is watching the operations of this call, which compiled kernels hide from it."""
    if torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None:
        return "torch.compile, torch.export or torch.jit is tracing it"
    if type(inputs) not in (Tensor, torch.nn.Parameter):
        return f"it knows plain tensors only, and the input is a {type(inputs).__name__}"
    if _get_current_dispatch_mode() is not None:
        return "a dispatch mode is active"
    if torch._C._are_functorch_transforms_active():
        return "a torch.func transform is active"
    if forward_ad._current_level >= 0:
        return "forward-mode differentiation is active"
    if reference.autocasts(inputs.device):
        return "autocast is active"
    return None


def run(
    network: Any,
    inputs: Tensor,
    state: DNCState,
    initial: DNCState,
    lengths: Tensor | None = None,
    reset: Tensor | None = None,
    beside: Tensor | None = None,
    second_derivatives: bool = True,
) -> tuple[Tensor, DNCState]:
    """The step over a whole sequence; see `unroll` for the arguments.

    Args:
        second_derivatives: go through the reference; otherwise they are refused.
    """
    # They load numba, which takes a while.
    from torchdnc.engines.fused import stepwise, whole

    way = whole.run if whole.is_built_in(network, inputs) else stepwise.run
    return way(network, inputs, state, initial, lengths, reset, beside, second_derivatives)


def is_built_in(network: Any, inputs: Tensor) -> bool:
    """Whether kernels know the controller and the interface of a network, and nobody watches these."""
    from torchdnc.engines.fused import whole

    return whole.is_built_in(network, inputs)
