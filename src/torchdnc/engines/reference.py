"""The reference engine: a loop over `ops`, differentiated by autograd. Others are held against it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from torchdnc.engines.unroll import unroll
from torchdnc.ops import access, split_interface
from torchdnc.types import DNCState, MemoryOptions


class Network(Protocol):
    """What an engine needs to know of a DNC."""

    controller: Any
    word_size: int
    read_heads: int
    options: MemoryOptions

    @property
    def interface(self) -> Callable[[Tensor], Tensor]: ...


def autocasts(device: torch.device) -> bool:
    """Whether autocast is on for this device; some, such as meta, do not know it."""
    return torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type)


def _without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    return torch.autocast(device.type, enabled=False) if autocasts(device) else nullcontext()


def step(network: Network, step_input: Tensor, state: DNCState) -> tuple[Tensor, DNCState]:
    """One step: χ = [x; r_{t−1}], h = controller(χ), ξ = W_ξ h, then the memory.

    Under autocast the controller runs in the lower precision; the memory, whose sorting, products, softmax
    and links need the digits, keeps the state's.

    Args:
        network: the parts of a DNC.
        step_input: [B, I].
        state: the state after the step before.
    Returns:
        features [B, F + R·W], the controller's and then the words read, and the new state.
    """
    chi = torch.cat([step_input, state.read_words.flatten(-2)], -1)
    hidden, controller = network.controller(chi, state.controller)
    xi = network.interface(hidden)
    with _without_autocast(xi.device):
        interface = split_interface(xi.to(state.read_words.dtype), network.word_size, network.read_heads)
        read_words, memory = access(interface, state.memory, network.options)
    features = torch.cat([hidden, read_words.flatten(-2)], -1)
    return features, DNCState(controller, memory, read_words)


def run(
    network: Network,
    inputs: Tensor,
    state: DNCState,
    initial: DNCState,
    lengths: Tensor | None = None,
    reset: Tensor | None = None,
) -> tuple[Tensor, DNCState]:
    """The step over a whole sequence; see `unroll` for the arguments."""
    return unroll(partial(step, network), inputs, state, initial, lengths, reset)
