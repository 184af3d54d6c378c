"""An LSTM whose gates are networks of their own."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from torchdnc.checks import check_bound, check_dtype, check_size, check_type
from torchdnc.nn.controllers import LSTMController
from torchdnc.nn.lstm import Deep
from torchdnc.nn.recurrent import linear_output


class GateNetworks(nn.Module):
    """Four networks, one for each gate, in place of one linear map: W_d tanh(... tanh(W_1 x + b_1) ...) + b_d.

    Args:
        input_size: features of x.
        output_size: 4H: the gates i, f, candidate, o, one after another.
        gate_layers: hidden layers of each network; with none it is linear.
        gate_size: units of each hidden layer.
    """

    def __init__(
        self,
        input_size: int,
        output_size: int,
        gate_layers: int,
        gate_size: int,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        sizes = [input_size, *[gate_size] * gate_layers, output_size // 4]
        self.gates = nn.ModuleList(_network(sizes, device=device, dtype=dtype) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        """The raw gates [B, 4H]."""
        return torch.cat([gate(x) for gate in self.gates], -1)


def _network(sizes: list[int], **where: Any) -> nn.Sequential:
    """Linear layers between these sizes, with a tanh between any two."""
    first, *others = (nn.Linear(*ends, **where) for ends in pairwise(sizes))
    return nn.Sequential(first, *(each for layer in others for each in (nn.Tanh(), layer)))


class SuperLSTM(Deep):
    """The paper's deep LSTM with every gate a network of its own, called as a DNC is.

    An LSTM decides by one linear map what to keep, to write and to emit. Networks in its place can compute any relation
    between what it keeps: what then still sets it apart from a DNC is that it keeps it in activations.

    i, f, o = σ(net[·]), s_t = f s_{t−1} + i tanh(net[·]), h_t = o tanh(s_t), with [·] as in `LSTMController`.

    Args:
        input_size: I, features of each input.
        hidden_size: H, units of each layer.
        output_size: outputs of a linear map (with bias) of the features; None returns the features, h of
            every layer.
        num_layers: layers.
        gate_layers: hidden layers of each gate's network; with none it is the LSTM.
        gate_size: tanh units of each of those; None for `hidden_size`.
        batch_first: inputs and outputs are [B, T, ·] instead of [T, B, ·].
        activation_gradient_clip: bound on the gradient of every h_t; None for none.
        device, dtype: of the parameters.
    Raises:
        ValueError, TypeError: an argument is out of range.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        output_size: int | None = None,
        *,
        num_layers: int = 1,
        gate_layers: int = 1,
        gate_size: int | None = None,
        batch_first: bool = False,
        activation_gradient_clip: float | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_size("input_size", input_size)
        check_size("hidden_size", hidden_size)
        check_size("num_layers", num_layers)
        check_size("gate_layers", gate_layers, least=0)
        gate_size = hidden_size if gate_size is None else gate_size
        check_size("gate_size", gate_size)
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
            make_layer=partial(GateNetworks, gate_layers=gate_layers, gate_size=gate_size),
            device=device,
            dtype=dtype,
        )
        self.output = linear_output(self.controller.feature_size, output_size, device=device, dtype=dtype)
