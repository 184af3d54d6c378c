"""The link's bytes: how many a training step must move, and how fast this machine moves them."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor

from torchdnc.bench.sizes import Size
from torchdnc.bench.timing import Call, Rounds

IN_PLACE = {"forward": 2, "gradient": 2}
"""How often a training step moves the links of a batch over themselves: their update, and that of their gradient, each
read and written."""
AROUND = {"backward": 1}
"""How often among √T links: a checkpoint is read. What is made again of what followed it need not be moved."""


def moved(size: Size, passes: dict[str, int]) -> int:
    """Bytes that so many passes over the links of a batch move, float32."""
    return 4 * sum(passes.values()) * _numbers(size)


def calls(size: Size) -> dict[str, Call]:
    """Moves links for as many steps as a sequence has, to be timed: all in place, or each to the next of √T."""
    ring = [torch.zeros(_numbers(size)) for _ in range(math.isqrt(size.T) + 1)]
    return {"in place": partial(_scale, ring[0], size.T), "around": partial(_copy, ring, size.T)}


def bandwidths(size: Size, timed: Rounds) -> dict[str, float]:
    """Bytes per second, read and written, of each of `calls`."""
    return {name: 2 * 4 * _numbers(size) * size.T / timed.median(name) for name in ("in place", "around")}


def _numbers(size: Size) -> int:
    return size.B * size.N * size.N


def _scale(links: Tensor, times: int) -> None:
    for _ in range(times):
        links.mul_(1.0)


def _copy(ring: list[Tensor], times: int) -> None:
    for step in range(times):
        ring[(step + 1) % len(ring)].copy_(ring[step % len(ring)])
