"""The baselines without a memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from torchdnc.checks import check_bound, check_dtype, check_number, check_size, check_type
from torchdnc.engines import unroll
from torchdnc.engines.reference import autocasts
from torchdnc.nn.controllers import LSTMController, check_lstm_state, enlarge_inputs
from torchdnc.nn.recurrent import Call, Recurrent, linear_output
from torchdnc.types import LSTMState


class Deep(Recurrent):
    """A controller that is alone: what the baselines share."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        output_size: int | None,
        num_layers: int,
        batch_first: bool,
        activation_gradient_clip: float | None,
        make_layer: Callable[..., nn.Module],
        device: torch.device | str | None,
        dtype: torch.dtype | None,
    ) -> None:
        super().__init__()
        check_size("input_size", input_size)
        check_size("hidden_size", hidden_size)
        check_size("num_layers", num_layers)
        check_dtype("dtype", dtype)
        check_type("batch_first", batch_first, bool)
        check_bound("activation_gradient_clip", activation_gradient_clip)
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.batch_first = batch_first
        self.controller = LSTMController(
            input_size,
            hidden_size,
            num_layers,
            activation_gradient_clip,
            make_layer=make_layer,
            device=device,
            dtype=dtype,
        )
        self.output = linear_output(self.controller.feature_size, output_size, device=device, dtype=dtype)

    def _zeros(self, batch_size: int) -> LSTMState:
        return self.controller.initial_state(batch_size)

    def _check_state(self, state: Any, batch: tuple[int, ...]) -> None:
        check_lstm_state("state", state, self.controller, batch)

    def _run(self, call: Call) -> tuple[Tensor, LSTMState]:
        initial = self._zeros(call.inputs.shape[1])
        return unroll(self.controller, call.inputs, call.state, initial, call.lengths, call.reset)


class LSTM(Deep):
    """The paper's deep LSTM alone: a DNC's controller, called as a DNC is.

    The input enters every layer and every layer feeds the outputs, which sets it apart from `nn.LSTM`.

    Args:
        input_size: I, features of each input.
        hidden_size: H, units of each layer.
        output_size: outputs of a linear map (with bias) of the features; None returns the features, h of
            every layer.
        num_layers: layers.
        batch_first: inputs and outputs are [B, T, ·] instead of [T, B, ·].
        activation_gradient_clip: bound on the gradient of every h_t (the paper: 10); None for none.
        input_gain: factor of the first weights for the input x, as in `DNC`.
        device, dtype: of the parameters.
    Raises:
        ValueError, TypeError: an argument is out of range.
    Source: Graves et al. 2016, Methods, "Controller network".
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        output_size: int | None = None,
        *,
        num_layers: int = 1,
        batch_first: bool = False,
        activation_gradient_clip: float | None = None,
        input_gain: float = 1.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        check_number("input_gain", input_gain, above=0)
        super().__init__(
            input_size,
            hidden_size,
            output_size,
            num_layers,
            batch_first,
            activation_gradient_clip,
            nn.Linear,
            device,
            dtype,
        )
        self.input_gain = input_gain
        enlarge_inputs(self.controller, input_size, input_gain)

    def reset_parameters(self) -> None:
        """Draws every parameter anew, from the distribution it was made with."""
        super().reset_parameters()
        enlarge_inputs(self.controller, self.input_size, self.input_gain)

    def _run(self, call: Call) -> tuple[Tensor, LSTMState]:
        plain = call.lengths is None and call.reset is None and self.controller.activation_gradient_clip is None
        if not plain or call.inputs.numel() == 0 or not _knows(call.inputs.device):
            return super()._run(call)
        return whole(self.controller, call.inputs, call.state)


def _knows(device: torch.device) -> bool:
    """Whether PyTorch's own LSTM runs here as `unroll` does: torch.func and other devices want its weights in another
    way, and under autocast its states are in the lower precision."""
    transformed = torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0
    return device.type == "cpu" and not transformed and not autocasts(device)


def whole(controller: LSTMController, inputs: Tensor, state: LSTMState) -> tuple[Tensor, LSTMState]:
    """A deep LSTM over whole sequences, layer by layer on PyTorch's own LSTM; what `unroll` gives, to rounding.

    Args:
        controller: its layers are linear, its gradients not clipped.
        inputs: [T, B, I].
        state: the state before the first step.
    Returns:
        features [T, B, L·H] and the state after the last step.
    """
    hidden: list[Tensor] = []
    ends: list[tuple[Tensor, Tensor]] = []
    size = inputs.shape[-1]
    layers: Any = controller.layers
    for layer, h, s in zip(layers, state.hidden, state.cell, strict=True):
        # A layer's columns are of the input, of its own h and of the h below.
        own, recurrent, below = layer.weight.split([size, len(h[0]), layer.in_features - size - len(h[0])], -1)
        weights = [torch.cat([own, below], -1), recurrent, layer.bias, torch.zeros_like(layer.bias)]
        seen = torch.cat([inputs, *hidden[-1:]], -1)
        start = (h.unsqueeze(0), s.unsqueeze(0))
        found, *end = torch.lstm(seen, start, weights, True, 1, 0.0, controller.training, False, False)
        hidden.append(found)
        ends.append((end[0].squeeze(0), end[1].squeeze(0)))
    return torch.cat(hidden, -1), LSTMState(*(tuple(part) for part in zip(*ends, strict=True)))
