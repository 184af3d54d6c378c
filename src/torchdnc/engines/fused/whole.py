"""A whole sequence as one function of autograd: the controllers that the kernels know."""

from __future__ import annotations

import math
from functools import partial
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import layer_norm, linear
from torch.nn.modules.module import _has_any_global_hook

from torchdnc.engines import reference
from torchdnc.engines.fused.function import Call, FusedSequence, flat, leaves_of, state_of
from torchdnc.engines.fused.kernels.arrays import Array, Sizes
from torchdnc.engines.fused.sequence import Parameters, check_slots, kernel_options, memory_work
from torchdnc.types import DNCState, LSTMState


def is_built_in(network: Any, inputs: Tensor) -> bool:
    """Whether a compiled sequence computes what the controller and the interface would, and nobody watches them."""
    controller = network.controller
    # Of the class itself: a subclass may compute something else.
    if not vars(type(controller)).get("fusible", False) or _has_any_global_hook():
        return False
    interface = _interface(network.interface)
    if interface is None or _is_watched(controller):
        return False
    maps = (*controller.layers, interface.linear)
    if any(type(layer) is not nn.Linear for layer in maps):
        return False
    layers = maps if interface.norm is None else (*maps, interface.norm)
    if any(map(_is_watched, layers)):
        return False
    if any(layer.bias is None or layer.weight.dtype != inputs.dtype for layer in layers):
        return False
    return [tuple(layer.weight.shape) for layer in maps] == _shapes(network, inputs.shape[-1])


class Interface(NamedTuple):
    """The layers of an interface that kernels know."""

    linear: nn.Linear
    norm: nn.LayerNorm | None


def _interface(module: Any) -> Interface | None:
    """A linear map, maybe with a normalisation behind it; None if it is anything else."""
    if type(module) is nn.Linear:
        return Interface(module, None)
    if type(module) is not nn.Sequential or _is_watched(module):
        return None
    if [type(part) for part in module] != [nn.Linear, nn.LayerNorm]:
        return None
    linear: Any = module[0]
    norm: Any = module[1]
    # It may normalise over other dimensions, or be without a gain.
    return (
        Interface(linear, norm) if norm.normalized_shape == (linear.out_features,) and norm.elementwise_affine else None
    )


def _is_watched(module: nn.Module) -> bool:
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    return any(hooks) or "forward" in vars(module)


def _shapes(network: Any, input_size: int) -> list[tuple[int, int]]:
    """Of the weights of every layer and of the interface, as they are built."""
    controller, words = network.controller, network.read_heads * network.word_size
    H = controller.hidden_size
    width = input_size + words + H * controller.recurrent
    layers = [(controller.outputs_per_unit * H, width + H * (layer > 0)) for layer in range(controller.num_layers)]
    return [*layers, (network.interface_size, network.feature_size)]


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
    """The whole sequence; arguments as `fused.run` has them."""
    T, B, _ = inputs.shape
    check_slots(state.memory)
    inputs, alive, fresh = without_padding(inputs, lengths, reset)
    parameters, epsilon = parameters_of(network, beside)
    again = partial(_on_the_reference, network, epsilon, initial, lengths, reset) if second_derivatives else None
    weights = [*parameters.weights, parameters.interface]
    work = T * (memory_work(state.memory) + B * sum(map(Tensor.numel, weights)))
    sizes = _sizes(network, inputs, state, parameters, _slots_of(initial))
    features, *ends = FusedSequence.apply(
        Call(work, sizes, epsilon, alive, fresh, again), inputs, *leaves_of(state), *flat(parameters)
    )
    end, _ = state_of(sizes, ends)
    return features, end


def _slots_of(initial: DNCState) -> int:
    """How many slots a row has that starts afresh, where rows grow."""
    slots = initial.memory.slots
    return int(slots[0]) if len(slots) else 0


def without_padding(inputs: Tensor, lengths: Tensor | None, reset: Tensor | None) -> tuple[Tensor, Array, Array]:
    """The inputs with zeros past every row's length, and `alive` and `fresh` of the tape, [T, B]."""
    T, B, _ = inputs.shape
    alive = np.ones((T, B), np.bool_) if lengths is None else np.arange(T)[:, None] < lengths.numpy()
    fresh = np.zeros_like(alive) if reset is None else alive & reset.numpy()
    if lengths is not None:
        inputs = inputs.masked_fill(~torch.from_numpy(alive).unsqueeze(-1), 0)
    return inputs, alive, fresh


def parameters_of(network: Any, beside: Tensor | None) -> tuple[Parameters, float]:
    """What the kernels need of the modules, and the normalisation's ε."""
    layer, norm = _interface(network.interface) or (network.interface, None)
    layers = network.controller.layers
    own, share = layer.weight, None
    if beside is not None:
        # The share of what is beside the controller's features is one product for all steps.
        own, theirs = own.split([own.shape[1] - beside.shape[2], beside.shape[2]], 1)
        share = linear(beside, theirs)
    parameters = Parameters(
        weights=tuple(layer.weight for layer in layers),
        biases=tuple(layer.bias for layer in layers),
        interface=own,
        interface_bias=layer.bias,
        norm=() if norm is None else (norm.weight, norm.bias),
        beside=() if share is None else (share,),
    )
    return parameters, 0.0 if norm is None else norm.eps


def _on_the_reference(
    network: Any,
    epsilon: float,
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
        interface=partial(_interface_again, parameters, epsilon),
        word_size=network.word_size,
        read_heads=network.read_heads,
        options=network.options,
    )
    return reference.run(same, inputs, state, initial, lengths, reset, *parameters.beside)


def _interface_again(parameters: Parameters, epsilon: float, features: Tensor) -> Tensor:
    """The interface of the controller's features and, where there is one, the share that stands beside them."""
    hidden, *others = features.split_with_sizes(_widths(parameters), -1)
    raw = sum(others, linear(hidden, parameters.interface, parameters.interface_bias))
    if not parameters.norm:
        return raw
    gain, bias = parameters.norm
    return layer_norm(raw, raw.shape[-1:], gain, bias, epsilon)


def _widths(parameters: Parameters) -> list[int]:
    return [parameters.interface.shape[1], *(share.shape[2] for share in parameters.beside)]


def _sizes(network: Any, inputs: Tensor, state: DNCState, parameters: Parameters, slots: int) -> Sizes:
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
        X=len(parameters.interface_bias),
        options=kernel_options(network.options),
        slots=slots,
        normed=bool(parameters.norm),
        beside=bool(parameters.beside),
        keep=torch.is_grad_enabled(),
        every=max(1, math.isqrt(T)),
        again=max(1, math.isqrt(math.isqrt(T))),
    )
