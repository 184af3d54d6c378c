"""The fused engine: a whole sequence as one function of autograd, on compiled kernels. Design: README.md."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.utils import _pytree as pytree

from torchdnc.engines import reference
from torchdnc.engines.fused import compiled
from torchdnc.types import DNCState, LSTMState

CONTROLLERS: set[type[nn.Module]] = set()
"""Classes of controllers that the kernels compute; a subclass may compute something else."""


def refusal(network: Any, inputs: Tensor) -> str | None:
    """Why this engine cannot run a call, as the end of a sentence; None if it can."""
    if inputs.device.type != "cpu":
        return f"it runs on the CPU only, and the input is on {inputs.device}"
    if inputs.dtype not in (torch.float32, torch.float64):
        return f"it knows float32 and float64 only, and the input is {inputs.dtype}"
    if type(network.controller) not in CONTROLLERS:
        return f"it knows the built-in controllers only, not {type(network.controller).__name__}"
    if not all(map(_is_plain, (*network.controller.layers, network.interface))):
        return "a layer of the controller or the interface is replaced, or has hooks that it would not call"
    return _tracing(inputs) or compiled.refusal()


def _is_plain(layer: nn.Module) -> bool:
    hooks = (layer._forward_hooks, layer._forward_pre_hooks, layer._backward_hooks, layer._backward_pre_hooks)
    return type(layer) is nn.Linear and not any(hooks)


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
    twice: bool = True,
) -> tuple[Tensor, DNCState]:
    """The step over a whole sequence; see `unroll` for the arguments.

    Args:
        twice: second derivatives go through the reference; otherwise they are refused.
    """
    # Loads numba, which takes a while.
    from torchdnc.engines.fused.function import FusedSequence
    from torchdnc.engines.fused.sequence import Parameters, Shape, Start

    T, B, I = inputs.shape
    alive = np.ones((T, B), np.bool_)
    if lengths is not None:
        alive = np.arange(T)[:, None] < lengths.numpy()
        inputs = inputs.masked_fill(~torch.from_numpy(alive).unsqueeze(-1), 0)
    controller, memory = network.controller, state.memory
    threads = compiled.threads(rows=B, work=memory.link.numel() + memory.memory.numel())
    recurrent = isinstance(state.controller, LSTMState)
    bound = controller.activation_gradient_clip
    shape = Shape(
        T=T,
        B=B,
        I=I,
        H=controller.hidden_size,
        N=memory.usage.shape[-1],
        W=network.word_size,
        R=network.read_heads,
        layers=controller.num_layers,
        recurrent=recurrent,
        through_writes=network.options.usage_gradient,
        bound=math.inf if bound is None else bound,
        threads=threads,
        alive=alive,
        fresh=alive & reset.numpy() if reset is not None else np.zeros((T, B), np.bool_),
    )
    hidden, cell = state.controller if recurrent else ((), ())
    parameters = Parameters(
        tuple(layer.weight for layer in controller.layers),
        tuple(layer.bias for layer in controller.layers),
        network.interface.weight,
        network.interface.bias,
    )
    leaves, start_spec = pytree.tree_flatten(Start(hidden, cell, memory, state.read_words))
    weights, parameter_spec = pytree.tree_flatten(parameters)
    again = partial(reference.run, network, inputs, state, initial, lengths, reset) if twice else None
    features, *ends = FusedSequence.apply((shape, start_spec, parameter_spec, again), inputs, *leaves, *weights)
    end: Start = pytree.tree_unflatten(ends, start_spec)
    own = LSTMState(end.hidden, end.cell) if recurrent else ()
    return features, DNCState(own, end.memory, end.read_words)
