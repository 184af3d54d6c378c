"""The reference engine: a loop over `ops`, differentiated by autograd. Others are held against it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from torchdnc.engines.unroll import unroll
from torchdnc.ops import access, split_interface
from torchdnc.types import DNCState, HeadWords, Interface, MemoryOptions, MemoryState


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


Watch = Callable[[Interface, MemoryState, DNCState], None]
"""Hears of every step: the interface, the memory before it and the state after it."""


def step(
    network: Network, step_input: Tensor, state: DNCState, beside: Tensor | None = None, watch: Watch | None = None
) -> tuple[Tensor, DNCState]:
    """One step: χ = [x; r_{t−1}], h = controller(χ), ξ = interface(h), then the memory.

    Under autocast the controller runs in the lower precision; the memory, whose sorting, products, softmax
    and links need the digits, keeps the state's.

    Args:
        network: the parts of a DNC.
        step_input: [B, I].
        state: the state after the step before.
        beside: [B, E], features that the interface takes after the controller's; None: none.
        watch: hears of it; None: nobody.
    Returns:
        features [B, F + R·W], the controller's and then the words read, and the new state.
    """
    chi = torch.cat([step_input, state.read_words.flatten(-2)], -1)
    hidden, controller = network.controller(chi, state.controller)
    xi = network.interface(hidden if beside is None else torch.cat([hidden, beside], -1))
    if autocasts(xi.device):
        with torch.autocast(xi.device.type, enabled=False):
            interface, read_words, memory = _memory_step(network, xi.to(state.read_words.dtype), state.memory)
    else:
        interface, read_words, memory = _memory_step(network, xi, state.memory)
    after = DNCState(controller, memory, read_words)
    if watch is not None:
        watch(interface, state.memory, after)
    return torch.cat([hidden, read_words.flatten(-2)], -1), after


def _memory_step(network: Network, xi: Tensor, memory_state: MemoryState) -> tuple[Interface, HeadWords, MemoryState]:
    interface = split_interface(xi, network.word_size, network.read_heads, network.options)
    return interface, *access(interface, memory_state, network.options)


def run(
    network: Network,
    inputs: Tensor,
    state: DNCState,
    initial: DNCState,
    lengths: Tensor | None = None,
    reset: Tensor | None = None,
    beside: Tensor | None = None,
    *,
    watch: Watch | None = None,
) -> tuple[Tensor, DNCState]:
    """The step over a whole sequence; see `unroll` for the arguments, `step` for the last one."""
    return unroll(partial(step, network, watch=watch), inputs, state, initial, lengths, reset, beside)
