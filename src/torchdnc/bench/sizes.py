"""Sizes that are measured, and what is called at them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from torchdnc.nn import DNC

SEED = 0
"""Of weights and inputs."""


class Size(NamedTuple):
    """Batch, time steps, inputs, controller units, slots, word size, read heads; the controller has one layer."""

    B: int
    T: int
    I: int
    H: int
    N: int
    W: int
    R: int

    def __str__(self) -> str:
        return ", ".join(f"{letter} {number}" for letter, number in self._asdict().items())


SIZES = {
    "S": Size(B=16, T=40, I=8, H=100, N=64, W=20, R=1),
    "M": Size(B=16, T=100, I=64, H=256, N=256, W=64, R=4),
    "M, B 1": Size(B=1, T=100, I=64, H=256, N=256, W=64, R=4),
}


def dnc(size: Size, engine: str) -> DNC:
    """A DNC in float32, with the same weights at every call."""
    torch.manual_seed(SEED)
    return DNC(
        size.I,
        size.H,
        memory_size=size.N,
        word_size=size.W,
        read_heads=size.R,
        engine=engine,
        dtype=torch.float32,
    )


def sequence(size: Size) -> Tensor:
    """Inputs [T, B, I], the same at every call."""
    return torch.randn(size.T, size.B, size.I, generator=torch.Generator().manual_seed(SEED), dtype=torch.float32)


def forward(model: nn.Module, inputs: Tensor) -> None:
    """Outputs only, without a graph."""
    with torch.no_grad():
        model(inputs)


def train(model: nn.Module, inputs: Tensor) -> None:
    """Outputs, and the gradient of every parameter; the inputs ask for none."""
    model.zero_grad()
    model(inputs)[0].square().mean().backward()


CALLS = {"train": train, "forward": forward}
