"""A whole sequence as one function of autograd: the controllers that the kernels know."""

from __future__ import annotations

import math
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import linear
from torch.nn.modules.module import _has_any_global_hook

from torchdnc.engines import reference
from torchdnc.engines.fused.function import Call, FusedSequence, leaves_of, state_of
from torchdnc.engines.fused.kernels.arrays import Sizes
from torchdnc.engines.fused.sequence import Parameters
from torchdnc.ops import interface_size
from torchdnc.types import DNCState, LSTMState


def is_built_in(network: Any, inputs: Tensor) -> bool:
    """Whether a compiled sequence computes what the controller and the interface would, and nobody watches them."""
    controller = network.controller
    # Of the class itself: a subclass may compute something else.
    if not vars(type(controller)).get("fusible", False) or _has_any_global_hook():
        return False
    layers = (*controller.layers, network.interface)
    if any(map(_is_watched, (controller, *layers))) or any(type(layer) is not nn.Linear for layer in layers):
        return False
    if any(layer.bias is None or layer.weight.dtype != inputs.dtype for layer in layers):
        return False
    return [tuple(layer.weight.shape) for layer in layers] == _shapes(network, inputs.shape[-1])


def _is_watched(module: nn.Module) -> bool:
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    return any(hooks) or "forward" in vars(module)


def _shapes(network: Any, input_size: int) -> list[tuple[int, int]]:
    """Of the weights of every layer and of the interface, as they are built."""
    controller, words = network.controller, network.read_heads * network.word_size
    H = controller.hidden_size
    width = input_size + words + H * controller.recurrent
    layers = [(controller.outputs_per_unit * H, width + H * (layer > 0)) for layer in range(controller.num_layers)]
    return [*layers, (interface_size(network.word_size, network.read_heads), H * controller.num_layers)]


def run(
    network: Any,
    inputs: Tensor,
    state: DNCState,
    initial: DNCState,
    lengths: Tensor | None = None,
    reset: Tensor | None = None,
    second_derivatives: bool = True,
) -> tuple[Tensor, DNCState]:
    """The whole sequence; arguments as `fused.run` has them."""
    T, B, _ = inputs.shape
    alive = np.ones((T, B), np.bool_) if lengths is None else np.arange(T)[:, None] < lengths.numpy()
    fresh = np.zeros_like(alive) if reset is None else alive & reset.numpy()
    if lengths is not None:
        inputs = inputs.masked_fill(~torch.from_numpy(alive).unsqueeze(-1), 0)
    layers, interface = network.controller.layers, network.interface
    again = partial(_on_the_reference, network, initial, lengths, reset) if second_derivatives else None
    weights = [*(layer.weight for layer in layers), interface.weight]
    work = T * (state.memory.link.numel() + state.memory.memory.numel() + B * sum(map(Tensor.numel, weights)))
    sizes = _sizes(network, inputs, state)
    features, *ends = FusedSequence.apply(
        Call(work, sizes, alive, fresh, again),
        inputs,
        *leaves_of(state),
        *(layer.weight for layer in layers),
        *(layer.bias for layer in layers),
        interface.weight,
        interface.bias,
    )
    end, _ = state_of(sizes, ends)
    return features, end


def _on_the_reference(
    network: Any,
    initial: DNCState,
    lengths: Tensor | None,
    reset: Tensor | None,
    inputs: Tensor,
    state: DNCState,
    parameters: Parameters,
) -> tuple[Tensor, DNCState]:
    """The call in PyTorch's own operations, on these very tensors, not on what the modules hold by now."""
    names = [f"layers.{layer}" for layer in range(len(parameters.weights))]
    weights = {f"{name}.weight": weight for name, weight in zip(names, parameters.weights, strict=True)}
    weights |= {f"{name}.bias": bias for name, bias in zip(names, parameters.biases, strict=True)}
    same: Any = SimpleNamespace(
        controller=lambda chi, state: functional_call(network.controller, weights, (chi, state)),
        interface=lambda hidden: linear(hidden, parameters.interface, parameters.interface_bias),
        word_size=network.word_size,
        read_heads=network.read_heads,
        options=network.options,
    )
    return reference.run(same, inputs, state, initial, lengths, reset)


def _sizes(network: Any, inputs: Tensor, state: DNCState) -> Sizes:
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
        keep=torch.is_grad_enabled(),
        every=max(1, math.isqrt(T)),
    )
