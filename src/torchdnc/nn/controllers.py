"""Controllers: the networks that drive the memory.

A controller is an `nn.Module` that keeps to the `Controller` protocol below; DNC(controller=...) takes one's
own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from torchdnc.checks import check_like, check_number, check_shape, check_type
from torchdnc.types import LSTMState


@runtime_checkable
class Controller(Protocol):
    """What a DNC asks of its controller.

    feature_size: F, the number of features it emits.
    initial_state(batch_size): its all-zero state, any pytree of tensors with the batch first; () if it has
        none.
    forward(input [B, I + R·W], state) -> (features [B, F], state): one step on the input and the last words
        read.
    """

    feature_size: int

    def initial_state(self, batch_size: int) -> Any: ...

    def __call__(self, input: Tensor, state: Any) -> tuple[Tensor, Any]: ...


class _ClipGradient(torch.autograd.Function):
    """The identity, whose gradient is cut to [-bound, bound]."""

    generate_vmap_rule = True

    @staticmethod
    def forward(activations: Tensor, bound: float) -> Tensor:
        return activations.view_as(activations)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float], output: Tensor) -> None:
        ctx.bound = inputs[1]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient.clamp(-ctx.bound, ctx.bound), None


def clip_gradient(activations: Tensor, bound: float | None) -> Tensor:
    """Passes activations on and clips the gradient that comes back, element by element, to [-bound, bound].

    Args:
        activations: any shape.
        bound: positive; None clips nothing.
    Source: Graves et al. 2016, Methods, "Optimization", where the bound is 10.
    """
    if bound is None:
        return activations
    clipped: Tensor = _ClipGradient.apply(activations, bound)
    return clipped


class _Layers(nn.Module):
    """Layers that all see the controller's input, and the one below; `fusible`: compiled kernels know them.

    A layer is a module of so many inputs and outputs, `make_layer(inputs, outputs, device=, dtype=)`.
    """

    fusible: ClassVar[bool]
    recurrent: ClassVar[bool]
    outputs_per_unit: ClassVar[int]

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        activation_gradient_clip: float | None = None,
        *,
        make_layer: Callable[..., nn.Module] = nn.Linear,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.hidden_size, self.num_layers = hidden_size, num_layers
        self.feature_size = num_layers * hidden_size
        self.activation_gradient_clip = activation_gradient_clip
        width = input_size + hidden_size * self.recurrent
        self.layers = nn.ModuleList(
            make_layer(
                width + hidden_size * (layer > 0),
                self.outputs_per_unit * hidden_size,
                device=device,
                dtype=dtype,
            )
            for layer in range(num_layers)
        )

    def extra_repr(self) -> str:
        return f"hidden_size={self.hidden_size}, num_layers={self.num_layers}"


def _joined(layers: list[Tensor]) -> Tensor:
    """[B, L·H]; of one layer that layer, not a copy."""
    return layers[0] if len(layers) == 1 else torch.cat(layers, -1)


class LSTMController(_Layers):
    """The paper's deep LSTM: the input enters every layer, and every layer's output is a feature.

    For layer l, with [·] the concatenation of input, h^l_{t−1} and h^{l−1}_t:
    i, f, o = σ(W[·] + b), s_t = f s_{t−1} + i tanh(W[·] + b), h_t = o tanh(s_t).
    Each layer is one linear map to 4H, in the order i, f, candidate, o, as in `nn.LSTM`.

    Args:
        input_size: features of the input (for a DNC: I + R·W).
        hidden_size: H of each layer.
        num_layers: how many.
        activation_gradient_clip: bound on the gradient of every h_t; None for none.
        make_layer: what makes a layer, of so many inputs and 4H outputs.
    Source: Graves et al. 2016, Methods, "Controller network".
    """

    fusible = True
    recurrent = True
    outputs_per_unit = 4

    def initial_state(self, batch_size: int) -> LSTMState:
        """Zeros for `batch_size` rows."""
        weight = next(self.parameters())
        # Each leaf has storage of its own: one can be changed in place, or asked for its gradient.
        zeros = [weight.new_zeros(batch_size, self.hidden_size) for _ in range(2 * self.num_layers)]
        return LSTMState(hidden=tuple(zeros[: self.num_layers]), cell=tuple(zeros[self.num_layers :]))

    def forward(self, input: Tensor, state: LSTMState) -> tuple[Tensor, LSTMState]:
        """One step: features [B, L·H] and the new state, from the input [B, I]."""
        hidden: list[Tensor] = []
        cell: list[Tensor] = []
        for layer, h, s in zip(self.layers, state.hidden, state.cell, strict=True):
            # Under autocast the product is in the lower precision; the state keeps its own.
            gates = layer(torch.cat([input, h, *hidden[-1:]], -1)).to(s.dtype)
            write, keep, candidate, emit = gates.chunk(4, -1)
            s = torch.sigmoid(keep) * s + torch.sigmoid(write) * torch.tanh(candidate)
            h = torch.sigmoid(emit) * torch.tanh(s)
            hidden.append(clip_gradient(h, self.activation_gradient_clip))
            cell.append(s)
        return _joined(hidden), LSTMState(tuple(hidden), tuple(cell))


class FeedforwardController(_Layers):
    """A controller without a memory of its own: h^l = tanh(W [input; h^{l−1}] + b), all h^l being features.

    Args: as `LSTMController`.
    Source: Graves et al. 2016, Extended Data Figs 1 and 4 use one; the paper does not say how it is made.
    """

    fusible = True
    recurrent = False
    outputs_per_unit = 1

    def initial_state(self, batch_size: int) -> tuple[()]:
        """Nothing: it has no state."""
        return ()

    def forward(self, input: Tensor, state: tuple[()]) -> tuple[Tensor, tuple[()]]:
        """One step: features [B, L·H], from the input [B, I]."""
        hidden: list[Tensor] = []
        for layer in self.layers:
            h = torch.tanh(layer(torch.cat([input, *hidden[-1:]], -1))).to(input.dtype)
            hidden.append(clip_gradient(h, self.activation_gradient_clip))
        return _joined(hidden), ()


CONTROLLERS = {"lstm": LSTMController, "feedforward": FeedforwardController}
"""Controllers by name."""


def check_controller_state(name: str, state: Any, controller: Any, batch: tuple[int, ...]) -> None:
    """Raises unless `state` is one of this controller's, for `batch` rows ((): a single sequence)."""
    if isinstance(controller, LSTMController):
        check_lstm_state(name, state, controller, batch)
        return
    initial = controller.initial_state(1)
    if pytree.tree_structure(state) != pytree.tree_structure(initial):
        raise TypeError(
            f"{name} must be built like the controller's initial_state ({type(initial).__name__}), "
            f"got {type(state).__name__}"
        )
    for leaf in pytree.tree_leaves(state):
        check_type(f"each leaf of {name}", leaf, Tensor)
        if leaf.shape[: len(batch)] != batch:
            raise ValueError(f"{name} must have {batch[0]} rows, got shape {list(leaf.shape)}")


def check_input_gain(gain: float, controller: Any) -> None:
    """Raises unless it can be a factor of this controller's first weights."""
    check_number("input_gain", gain, above=0)
    if gain != 1 and not isinstance(controller, str):
        raise ValueError(f"input_gain must be 1 with one's own controller, which draws its weights itself, got {gain}")


@torch.no_grad()
def enlarge_inputs(controller: Any, input_size: int, gain: float) -> None:
    """Multiplies the first weights of the input's first features in every layer.

    One number of a one-hot input is alone: PyTorch's weights, made for inputs of which all numbers count, would let it
    move a gate by some hundredths.
    """
    if gain != 1:
        for layer in controller.layers:
            weight: Any = layer.weight_ih_l0 if isinstance(layer, nn.LSTM) else layer.weight
            weight[:, :input_size].mul_(gain)


def check_lstm_state(name: str, state: Any, controller: LSTMController, batch: tuple[int, ...]) -> None:
    """Raises unless `state` is a state of this controller, for `batch` rows ((): a single sequence)."""
    check_type(name, state, LSTMState)
    for part in ("hidden", "cell"):
        layers = getattr(state, part)
        check_type(f"{name}.{part}", layers, tuple)
        if len(layers) != controller.num_layers:
            raise ValueError(f"{name}.{part} must have {controller.num_layers} layers, got {len(layers)}")
        for index, layer in enumerate(layers):
            check_shape(f"{name}.{part}[{index}]", layer, (*batch, controller.hidden_size))
            check_like(f"{name}.{part}[{index}]", layer, next(controller.parameters()))


def make_controller(
    controller: str | nn.Module,
    input_size: int,
    hidden_size: int,
    num_layers: int,
    activation_gradient_clip: float | None,
    **where: Any,
) -> nn.Module:
    """The controller of that name, or the module, which is checked.

    Raises:
        ValueError, TypeError: no controller has that name, or the module does not keep to the protocol.
    """
    if not isinstance(controller, str):
        _check_own_controller(controller, hidden_size * num_layers, activation_gradient_clip)
        return controller
    if controller not in CONTROLLERS:
        names = ", ".join(map(repr, CONTROLLERS))
        raise ValueError(f"controller must be one of {names} or a module, got {controller!r}")
    named: nn.Module = CONTROLLERS[controller](input_size, hidden_size, num_layers, activation_gradient_clip, **where)
    return named


def _check_own_controller(controller: Any, feature_size: int, activation_gradient_clip: float | None) -> None:
    if not (isinstance(controller, nn.Module) and isinstance(controller, Controller)):
        raise TypeError(
            "controller must be a name or an nn.Module with feature_size, initial_state(batch_size) and "
            f"forward(input, state), got {type(controller).__name__}"
        )
    if controller.feature_size != feature_size:
        raise ValueError(
            f"controller.feature_size must be hidden_size · num_layers = {feature_size}, got {controller.feature_size}"
        )
    if activation_gradient_clip is not None:
        raise ValueError(
            f"activation_gradient_clip must be None with one's own controller, which clips by itself, "
            f"got {activation_gradient_clip}"
        )
