"""How to measure, and telling how far it is."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch

from torchdnc.checks import check_size

T = TypeVar("T")

Tell = Callable[[str], None]
"""Hears what is measured next."""
Found = dict[str, Any]
"""What a part measured, as it is written to its file."""


def cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Plan:
    """How to measure.

    quick: few rounds and small sizes; threads: of PyTorch and of the kernels; rounds: None for each part's own number.
    """

    quick: bool = False
    threads: int = field(default_factory=torch.get_num_threads)
    rounds: int | None = None

    def __post_init__(self) -> None:
        check_size("threads", self.threads)
        if self.threads > cores():
            # Kernels would take fewer, and the figures would be of another number than they say.
            raise ValueError(f"threads must be at most {cores()}, the cores of this machine, got {self.threads}")
        if self.rounds is not None:
            check_size("rounds", self.rounds)


def told(items: Sequence[T], tell: Tell, name: Callable[[T], str] = str) -> Iterator[T]:
    """The items, each announced with its place among all of them."""
    for place, item in enumerate(items, 1):
        tell(f"{name(item)} ({place} of {len(items)})")
        yield item
