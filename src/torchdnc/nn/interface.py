"""The layer from what a controller emits to the interface vector of its memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

# An LSTM's first activations are about a tenth. PyTorch's own weights would make keys, written words and gates as
# small, and what is read too faint to learn from: with these an interface starts with numbers of about one.
INTERFACE_GAIN = 8.0


def make_interface(features: int, size: int, normed: bool, **where: Any) -> nn.Module:
    """A linear map with a bias, and a normalisation behind it where it is to be `normed`."""
    linear = nn.Linear(features, size, **where)
    return nn.Sequential(linear, nn.LayerNorm(size, **where)) if normed else linear


@torch.no_grad()
def enlarge(interface: nn.Module) -> None:
    """Multiplies the first weights of an interface."""
    next(interface.parameters()).mul_(INTERFACE_GAIN)
