"""An LSTM whose gates are networks of their own."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from torchdnc.checks import check_size
from torchdnc.nn.lstm import Deep


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

    An LSTM decides by one linear map what to keep, to write and to emit; here networks decide. What it
    keeps stays in its activations, where a DNC has a memory.

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
        check_size("hidden_size", hidden_size)
        check_size("gate_layers", gate_layers, least=0)
        gate_size = hidden_size if gate_size is None else gate_size
        check_size("gate_size", gate_size)
        super().__init__(
            input_size,
            hidden_size,
            output_size,
            num_layers,
            batch_first,
            activation_gradient_clip,
            partial(GateNetworks, gate_layers=gate_layers, gate_size=gate_size),
            device,
            dtype,
        )
