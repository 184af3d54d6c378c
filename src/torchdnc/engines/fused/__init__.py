"""The fused engine: a whole sequence as one function of autograd, on compiled kernels. Design: README.md."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.modules.module import _has_any_global_hook
from torch.utils import _pytree as pytree

from torchdnc.engines import reference
from torchdnc.engines.fused import compiled
from torchdnc.types import DNCState, LSTMState


def refusal(network: Any, inputs: Tensor) -> str | None:
    """Why this engine cannot run a call, as the end of a sentence; None if it can."""
    controller = network.controller
    if inputs.device.type != "cpu":
        return f"it runs on the CPU only, and the input is on {inputs.device}"
    if inputs.dtype not in (torch.float32, torch.float64):
        return f"it knows float32 and float64 only, and the input is {inputs.dtype}"
    # Of the class itself: a subclass may compute something else.
    if not vars(type(controller)).get("fusible", False):
        return f"it knows the built-in controllers only, not {type(controller).__name__}"
    layers = (*controller.layers, network.interface)
    if any(type(layer) is not nn.Linear for layer in layers):
        return "a layer of the controller or the interface is replaced"
    if any(map(_is_watched, (controller, *layers))) or _has_any_global_hook():
        return "the controller or the interface has hooks or a forward of its own, which it would not call"
    return _tracing(inputs) or compiled.refusal()


def _is_watched(module: nn.Module) -> bool:
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    return any(hooks) or "forward" in vars(module)


def _tracing(inputs: Tensor) -> str | None:
    """What is watching the operations of this call, which compiled kernels hide from it."""
    if torch.compiler.is_compiling():
        return "torch.compile or torch.export is tracing it"
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
    second_derivatives: bool = True,
) -> tuple[Tensor, DNCState]:
    """The step over a whole sequence; see `unroll` for the arguments.

    Args:
        second_derivatives: go through the reference; otherwise they are refused.
    """
    # Loads numba, which takes a while.
    from torchdnc.engines.fused.function import Call, FusedSequence
    from torchdnc.engines.fused.sequence import Parameters

    T, B, _ = inputs.shape
    alive = np.ones((T, B), np.bool_) if lengths is None else np.arange(T)[:, None] < lengths.numpy()
    fresh = np.zeros_like(alive) if reset is None else alive & reset.numpy()
    if lengths is not None:
        inputs = inputs.masked_fill(~torch.from_numpy(alive).unsqueeze(-1), 0)
    layers, interface = network.controller.layers, network.interface
    parameters = Parameters(
        tuple(layer.weight for layer in layers),
        tuple(layer.bias for layer in layers),
        interface.weight,
        interface.bias,
    )
    leaves, state_spec = pytree.tree_flatten(state)
    weights, parameter_spec = pytree.tree_flatten(parameters)
    again = partial(reference.run, network, inputs, state, initial, lengths, reset) if second_derivatives else None
    call = Call(_sizes(network, inputs, state), alive, fresh, state_spec, parameter_spec, again)
    features, *ends = FusedSequence.apply(call, inputs, *leaves, *weights)
    end: DNCState = pytree.tree_unflatten(ends, state_spec)
    return features, end


def _sizes(network: Any, inputs: Tensor, state: DNCState) -> Any:
    from torchdnc.engines.fused.kernels.arrays import Sizes

    T, B, I = inputs.shape
    controller, memory = network.controller, state.memory
    bound = controller.activation_gradient_clip
    return Sizes(
        T=T,
        B=B,
        I=I,
        H=controller.hidden_size,
        N=memory.usage.shape[-1],
        W=network.word_size,
        R=network.read_heads,
        layers=controller.num_layers,
        recurrent=isinstance(state.controller, LSTMState),
        bound=math.inf if bound is None else bound,
        through_writes=network.options.usage_gradient,
        keep=True,
        every=max(1, math.isqrt(T)),
        shares=compiled.threads(rows=B, work=T * (memory.link.numel() + memory.memory.numel())),
    )
