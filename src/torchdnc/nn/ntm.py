"""The Neural Turing Machine."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchdnc import ops
from torchdnc.checks import check_bound, check_choice, check_dtype, check_like, check_shape, check_size, check_type
from torchdnc.engines import unroll
from torchdnc.nn.controllers import CONTROLLERS, check_controller_state
from torchdnc.nn.recurrent import Call, Recurrent, linear_output
from torchdnc.types import HeadWeights, HeadWords, Memory, NTMState

MEMORY_START = 1e-6
"""What every number of the memory starts as: of several ways the most reliable in Collier & Beel (2018)."""

Kind = Literal["lstm", "feedforward"]


class Head(NamedTuple):
    """How all heads of a kind address, each [B, heads, ·]: keys [W]; strengths, gates, sharpness; shifts [S]."""

    keys: Tensor
    strengths: Tensor
    gates: Tensor
    sharpness: Tensor
    shifts: Tensor


class NTM(Recurrent):
    """The Neural Turing Machine, called as a DNC is: heads look up by content, and move by location.

    Every head addresses by
        w^c = softmax(β cos(k, M_{t−1})),  w^g = g w^c + (1 − g) w_{t−1},  w = sharpen(shift(w^g, s), γ).
    The read heads take r = w M_{t−1}; then the write heads make
        M_t = M_{t−1} ∘ Π_h (1 − w_h e_hᵀ) + Σ_h w_h a_hᵀ.
    The controller sees the input and the words read one step before, and the outputs are a linear map of what it emits
    and of the words just read. At the start every number of the memory is 1e-6 and every head is on slot 0.

    Args:
        input_size: I, features of each input.
        hidden_size: H, units of each layer of the controller.
        output_size: outputs of a linear map (with bias) of the features; None returns the features: h of
            every layer, then the read words.
        memory_size: N, slots of a fresh state. No parameter depends on it.
        word_size: W, numbers in a slot.
        read_heads, write_heads: how many of each.
        shift_range: heads move by at most so many slots in a step, either way.
        num_layers: layers of the controller.
        controller: "lstm" (the deep LSTM of the DNC) or "feedforward".
        batch_first: inputs and outputs are [B, T, ·] instead of [T, B, ·].
        activation_gradient_clip: bound on the gradient of the controller's activations; None for none.
        device, dtype: of the parameters.
    Raises:
        ValueError, TypeError: an argument is out of range.
    Source: Graves, Wayne & Danihelka 2014 (arXiv:1410.5401).
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        output_size: int | None = None,
        *,
        memory_size: int = 128,
        word_size: int = 20,
        read_heads: int = 1,
        write_heads: int = 1,
        shift_range: int = 1,
        num_layers: int = 1,
        controller: Kind = "lstm",
        batch_first: bool = False,
        activation_gradient_clip: float | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        sizes = {
            "input_size": input_size,
            "hidden_size": hidden_size,
            "memory_size": memory_size,
            "word_size": word_size,
            "read_heads": read_heads,
            "write_heads": write_heads,
            "num_layers": num_layers,
        }
        for name, size in sizes.items():
            check_size(name, size)
        check_size("shift_range", shift_range, least=0)
        check_choice("controller", controller, get_args(Kind))
        check_type("batch_first", batch_first, bool)
        check_dtype("dtype", dtype)
        check_bound("activation_gradient_clip", activation_gradient_clip)
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.memory_size, self.word_size, self.shift_range = memory_size, word_size, shift_range
        self.read_heads, self.write_heads, self.batch_first = read_heads, write_heads, batch_first
        self.controller: Any = CONTROLLERS[controller](
            input_size + read_heads * word_size,
            hidden_size,
            num_layers,
            activation_gradient_clip,
            device=device,
            dtype=dtype,
        )
        features = hidden_size * num_layers
        heads, address = read_heads + write_heads, word_size + 3 + 2 * shift_range + 1
        self.interface = nn.Linear(features, heads * address + write_heads * 2 * word_size, device=device, dtype=dtype)
        self.output = linear_output(features + read_heads * word_size, output_size, device=device, dtype=dtype)

    def _zeros(self, batch_size: int, memory_size: int | None = None) -> NTMState:
        N = memory_size or self.memory_size
        like = next(self.interface.parameters())
        at_first = lambda heads: torch.eye(1, N, dtype=like.dtype, device=like.device).repeat(batch_size, heads, 1)  # noqa: E731
        return NTMState(
            controller=self.controller.initial_state(batch_size),
            memory=like.new_full((batch_size, N, self.word_size), MEMORY_START),
            read_weights=at_first(self.read_heads),
            write_weights=at_first(self.write_heads),
            read_words=like.new_zeros(batch_size, self.read_heads, self.word_size),
        )

    def _check_state(self, state: Any, batch: tuple[int, ...]) -> None:
        check_type("state", state, NTMState)
        like = next(self.interface.parameters())
        check_shape("state.memory", state.memory, (*batch, None, self.word_size))
        N = state.memory.shape[-2]
        shapes = {"read_weights": (*batch, self.read_heads, N), "write_weights": (*batch, self.write_heads, N)}
        for name, shape in (shapes | {"read_words": (*batch, self.read_heads, self.word_size)}).items():
            check_shape(f"state.{name}", getattr(state, name), shape)
        for name in ("memory", *shapes, "read_words"):
            check_like(f"state.{name}", getattr(state, name), like)
        check_controller_state("state.controller", state.controller, self.controller, batch)

    def _run(self, call: Call) -> tuple[Tensor, NTMState]:
        initial = call.state
        if call.reset is not None:
            initial = self._zeros(call.inputs.shape[1], memory_size=call.state.memory.shape[-2])
        return unroll(self._step, call.inputs, call.state, initial, call.lengths, call.reset)

    def _step(self, step_input: Tensor, state: NTMState) -> tuple[Tensor, NTMState]:
        """One step: features [B, F] and the new state, from the input [B, I]."""
        chi = torch.cat([step_input, state.read_words.flatten(-2)], -1)
        hidden, controller = self.controller(chi, state.controller)
        with torch.autocast(step_input.device.type, enabled=False):
            reading, writing, erase, add = self._heads(self.interface(hidden).to(state.memory.dtype))
            read_weights = _address(reading, state.memory, state.read_weights)
            write_weights = _address(writing, state.memory, state.write_weights)
            words = ops.read_words(state.memory, read_weights)
            memory = _write(state.memory, write_weights, erase, add)
        features = torch.cat([hidden, words.flatten(-2)], -1)
        return features, NTMState(controller, memory, read_weights, write_weights, words)

    def _heads(self, interface: Tensor) -> tuple[Head, Head, HeadWords, HeadWords]:
        """The read heads, the write heads, and what these erase and add, from the raw interface [B, X]."""
        W, S, heads = self.word_size, 2 * self.shift_range + 1, self.read_heads + self.write_heads
        addresses, changes = interface.split([heads * (W + 3 + S), self.write_heads * 2 * W], -1)
        keys, strengths, gates, sharpness, shifts = addresses.unflatten(-1, (heads, W + 3 + S)).split(
            [W, 1, 1, 1, S], -1
        )
        every = Head(
            keys=keys,
            strengths=F.softplus(strengths.squeeze(-1)),
            gates=torch.sigmoid(gates.squeeze(-1)),
            sharpness=ops.oneplus(sharpness.squeeze(-1)),
            shifts=torch.softmax(shifts, -1),
        )
        reading = Head(*(part[:, : self.read_heads] for part in every))
        writing = Head(*(part[:, self.read_heads :] for part in every))
        erase, add = changes.unflatten(-1, (self.write_heads, 2 * W)).chunk(2, -1)
        return reading, writing, torch.sigmoid(erase), add

    def extra_repr(self) -> str:
        return (
            f"input_size={self.input_size}, memory_size={self.memory_size}, word_size={self.word_size}, "
            f"read_heads={self.read_heads}, write_heads={self.write_heads}, shift_range={self.shift_range}"
        )


def _address(heads: Head, memory: Memory, weights_prev: HeadWeights) -> HeadWeights:
    """Weightings of heads, [B, heads, N]."""
    content = ops.content_weights(memory, heads.keys, heads.strengths)
    moved = ops.shift(ops.interpolate(content, weights_prev, heads.gates), heads.shifts)
    return ops.sharpen(moved, heads.sharpness)


def _write(memory: Memory, weights: HeadWeights, erase: HeadWords, add: HeadWords) -> Memory:
    """M_t = M_{t−1} ∘ Π_h (1 − w_h e_hᵀ) + Σ_h w_h a_hᵀ."""
    kept = (1 - weights.unsqueeze(-1) * erase.unsqueeze(-2)).prod(1)
    return memory * kept + weights.transpose(-1, -2) @ add
