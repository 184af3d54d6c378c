"""The differentiable neural computer."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchdnc.checks import (
    check_bound,
    check_dtype,
    check_like,
    check_shape,
    check_share,
    check_size,
    check_type,
)
from torchdnc.engines import check_engine, reference, select
from torchdnc.nn.controllers import check_controller_state, check_input_gain, enlarge_inputs, make_controller
from torchdnc.nn.interface import enlarge, make_interface
from torchdnc.nn.lookahead import BackwardLSTM
from torchdnc.nn.recurrent import Call, Recurrent, linear_output, without_batch
from torchdnc.nn.resizing import resize_memory
from torchdnc.ops import MemoryReport, interface_size, memory_report
from torchdnc.ops.overflow import trim
from torchdnc.ops.slots import of_width
from torchdnc.types import PAPER, UNUSED, DNCState, Interface, MemoryOptions, MemoryState


class DNC(Recurrent):
    """A recurrent network that learns to write to, read from and manage a memory; called as `nn.LSTM` is.

    At each step the controller sees the input and the words read before, h = controller([x; r_{t−1}]),
    commands the memory through the interface vector ξ = W_ξ h + b, and the output is y = W_y [h; r_t] + b
    with the words just read.

    Args:
        input_size: I, features of each input.
        hidden_size: H, units of each layer of the controller.
        output_size: outputs of a linear map (with bias) of the features; None returns the features: h of
            every layer, then the read words.
        memory_size: N, slots of a fresh state. No parameter depends on it.
        word_size: W, numbers in a slot.
        read_heads: R.
        num_layers: layers of the controller.
        controller: "lstm" (the paper's deep LSTM), "feedforward", or a module that keeps to
            `torchdnc.nn.controllers.Controller`, takes I + R·W inputs and emits num_layers · H features.
        batch_first: inputs and outputs are [B, T, ·] instead of [T, B, ·].
        engine: "auto", or an engine by name.
        options: departures from the paper's memory.
        interface_norm: the interface vector is normalised, ξ = LayerNorm(W_ξ h + b), with a gain and a bias of its own
            (Franke et al. 2018).
        bidirectional: an LSTM of as many layers and units reads the input from its end, and interface and outputs take
            its h beside the controller's (Franke et al. 2018): what is written depends on what is asked later. Every
            call is read from its own end; there are no single steps. The controller must be "lstm".
        bypass_dropout: while training, the share of the controller's h that outputs do not see, so that they learn to
            rely on what is read (Franke et al. 2018); the memory sees all of it.
        input_gain: factor of the first weights for the input x (not for the words read) of the controller and of the
            second LSTM; some tens where an input is one-hot.
        activation_gradient_clip: bound on the gradient of the controller's activations (the paper: 10), not of those
            of a second LSTM; None for none.
        device, dtype: of the parameters.
    Raises:
        ValueError, TypeError: an argument is out of range.
    Source: Graves et al. 2016.
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
        num_layers: int = 1,
        controller: str | nn.Module = "lstm",
        batch_first: bool = False,
        engine: str = "auto",
        options: MemoryOptions = PAPER,
        interface_norm: bool = False,
        bidirectional: bool = False,
        bypass_dropout: float = 0.0,
        input_gain: float = 1.0,
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
            "num_layers": num_layers,
        }
        for name, size in sizes.items():
            check_size(name, size)
        check_type("options", options, MemoryOptions)
        for name, switch in {
            "batch_first": batch_first,
            "interface_norm": interface_norm,
            "bidirectional": bidirectional,
        }.items():
            check_type(name, switch, bool)
        check_dtype("dtype", dtype)
        check_bound("activation_gradient_clip", activation_gradient_clip)
        check_share("bypass_dropout", bypass_dropout)
        check_input_gain(input_gain, controller)
        self.bypass_dropout, self.input_gain = bypass_dropout, input_gain
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.memory_size, self.word_size, self.read_heads = memory_size, word_size, read_heads
        self.batch_first, self.engine, self.options = batch_first, check_engine(engine), options

        most = options.max_memory_size
        if most is not None and most < memory_size:
            raise ValueError(f"options.max_memory_size must be at least memory_size, got {most} and {memory_size}")
        if bidirectional and controller != "lstm":
            raise ValueError(f'controller must be "lstm" where bidirectional is True, got {controller!r}')
        where: dict[str, Any] = {"device": device, "dtype": dtype}
        self.controller: Any = make_controller(
            controller, input_size + read_heads * word_size, hidden_size, num_layers, activation_gradient_clip, **where
        )
        self.backward_lstm = BackwardLSTM(input_size, hidden_size, num_layers, **where) if bidirectional else None
        self.looks_ahead = bidirectional
        self.feature_size = features = hidden_size * num_layers * (2 if bidirectional else 1)
        self.interface_size = interface_size(word_size, read_heads, options)
        self.interface: Any = make_interface(features, self.interface_size, interface_norm, **where)
        self.output = linear_output(features + read_heads * word_size, output_size, device=device, dtype=dtype)
        self._enlarge()

    def reset_parameters(self) -> None:
        """Draws every parameter anew, from the distribution it was made with."""
        super().reset_parameters()
        self._enlarge()

    def _enlarge(self) -> None:
        enlarge(self.interface)
        enlarge_inputs(self.controller, self.input_size, self.input_gain)
        if self.backward_lstm is not None:
            enlarge_inputs(self.backward_lstm, self.input_size, self.input_gain)

    def resize(self, state: DNCState, memory_size: int) -> DNCState:
        """The state with another number of slots; the model then runs with that many.

        More slots: never-written ones are appended. Fewer: the slots of highest `usage` stay, in their order,
        ties going to the lowest slot; what the last step wrote enters the usage only at the next step. With
        `overflow="grow"` every row then has that many; one that starts afresh has the model's `memory_size` again.
        Pinned slots stay before others.

        Args:
            state: of this model, batched or not.
            memory_size: the new N, at least 1.
        Returns:
            a state of that size; the one passed in is not changed.
        Raises:
            ValueError, TypeError: the state is not of this model, or the size is out of range.
        """
        check_type("state", state, DNCState)
        batched = isinstance(state.read_words, Tensor) and state.read_words.dim() == 3
        self._check_state(state, state.read_words.shape[:1] if batched else ())
        check_size("memory_size", memory_size)
        return state._replace(memory=resize_memory(state.memory, memory_size))

    def trace(self, input: Tensor, state: DNCState | None = None) -> tuple[Tensor, list[DNCState]]:
        """Runs a whole sequence on the reference engine, and keeps the state after every step.

        Args:
            input: [T, B, I], or [B, T, I] with `batch_first`, or [T, I] for a single sequence.
            state: where to start; None for zeros.
        Returns:
            output, to rounding that of a call, and the T states, the last of them that of a call.
        Raises:
            ValueError, TypeError: an argument does not fit, before anything is computed.
        """
        call, batched = self._arrange(input, state, None, None), input.dim() == 3
        states: list[DNCState] = []
        features, _ = self._run_on(partial(reference.run, watch=lambda xi, before, after: states.append(after)), call)
        output, _ = self._restore(self._outputs(features), call.state, batched)
        return output, states if batched else [without_batch(state) for state in states]

    @torch.no_grad()
    def report(
        self, input: Tensor, state: DNCState | None = None, lengths: Tensor | None = None
    ) -> tuple[MemoryReport, DNCState]:
        """Runs a whole sequence on the reference engine, and says what every step did to the memory.

        Args:
            input, state, lengths: as in a call.
        Returns:
            the report, each part [T, B], or [T] of a single sequence, 0 past a row's length; and the state after the
            last step, that of a call.
        Raises:
            ValueError, TypeError: an argument does not fit, before anything is computed.
        """
        call, batched = self._arrange(input, state, lengths, None), input.dim() == 3
        steps: list[MemoryReport] = []

        def watch(xi: Interface, before: MemoryState, after: DNCState) -> None:
            steps.append(memory_report(xi, before, after.memory, self.options))

        features, end = self._run_on(partial(reference.run, watch=watch), call)
        parts = [torch.stack(part) for part in zip(*steps, strict=True)]
        if call.lengths is not None:
            ended = torch.arange(len(features), device=features.device).unsqueeze(-1) >= call.lengths
            parts = [part.masked_fill(ended, 0) for part in parts]
        if batched:
            return MemoryReport(*parts), end
        return MemoryReport(*(part.squeeze(1) for part in parts)), without_batch(end)

    def _zeros(self, batch_size: int, memory_size: int | None = None) -> DNCState:
        self._check_counting()
        zeros = next(self.interface.parameters()).new_zeros
        shapes = self._memory_shapes((batch_size,), memory_size or self.memory_size)
        leaves = {name: zeros(shape) for name, shape in shapes.items()}
        if "slots" in leaves:
            leaves["slots"] += self.memory_size
        memory = MemoryState(**dict.fromkeys(MemoryState._fields, UNUSED) | leaves)
        read_words = zeros(batch_size, self.read_heads, self.word_size)
        return DNCState(self.controller.initial_state(batch_size), memory, read_words)

    def _check_counting(self) -> None:
        """Raises unless the parameters' dtype can count slots and steps, where the memory's state does."""
        dtype = next(self.interface.parameters()).dtype
        if self.options.overflow != "drop" and dtype not in (torch.float32, torch.float64):
            raise TypeError(
                f"overflow={self.options.overflow!r} counts in the model's dtype, which must be torch.float32 or "
                f"torch.float64, got {dtype}"
            )

    def _memory_shapes(self, batch: tuple[int, ...], memory_size: int) -> dict[str, tuple[int, ...]]:
        """Shapes of the fields of a memory's state, but for those that no option needs."""
        N, W, R = memory_size, self.word_size, self.read_heads
        shapes = {"memory": (*batch, N, W), "usage": (*batch, N)}
        if self.options.links != "none":
            shapes |= {"precedence": (*batch, N), "link": (*batch, N, N)}
        shapes |= {"write_weights": (*batch, N), "read_weights": (*batch, R, N)}
        if self.options.skip_unwritten:
            shapes["written"] = (*batch, N)
        if self.options.overflow == "reclaim":
            shapes |= {"age": (*batch, N), "pinned": (*batch, N)}
        if self.options.overflow == "grow":
            shapes["slots"] = batch
        return shapes

    def _check_state(self, state: Any, batch: tuple[int, ...]) -> None:
        self._check_counting()
        check_type("state", state, DNCState)
        check_type("state.memory", state.memory, MemoryState)
        W, R, like = self.word_size, self.read_heads, next(self.interface.parameters())
        check_shape("state.memory.memory", state.memory.memory, (*batch, None, W))
        check_like("state.memory.memory", state.memory.memory, like)
        shapes = self._memory_shapes(batch, state.memory.memory.shape[-2])
        for name, leaf in state.memory._asdict().items():
            if name in shapes:
                check_shape(f"state.memory.{name}", leaf, shapes[name])
                check_like(f"state.memory.{name}", leaf, like)
            elif not isinstance(leaf, tuple) or leaf:
                raise ValueError(f"state.memory.{name} must be () with this model's options, got {type(leaf).__name__}")
        check_shape("state.read_words", state.read_words, (*batch, R, W))
        check_like("state.read_words", state.read_words, like)
        check_controller_state("state.controller", state.controller, self.controller, batch)

    def _run(self, call: Call) -> tuple[Tensor, DNCState]:
        return self._run_on(select(self.engine, self, call.inputs), call)

    def _run_on(self, run: Callable[..., Any], call: Call) -> tuple[Tensor, DNCState]:
        grows, width = self.options.overflow == "grow", call.state.memory.usage.shape[-1]
        initial = call.state
        if call.reset is not None:
            # A row starts afresh in a memory of the size it has, which may have been resized; one that grows, with as
            # many slots as the model has.
            if grows:
                wide = of_width(call.state.memory, max(width, self.memory_size))
                call = call._replace(state=call.state._replace(memory=wide))
            initial = self._zeros(call.inputs.shape[1], memory_size=call.state.memory.usage.shape[-1])
        beside = None
        if self.backward_lstm is not None:
            beside = self.backward_lstm(call.inputs, call.lengths, call.reset)
        features, state = run(self, call.inputs, call.state, initial, call.lengths, call.reset, beside)
        if grows and (call.reset is not None or state.memory.usage.shape[-1] > width):
            state = state._replace(memory=trim(state.memory))
        if beside is None:
            return features, state
        hidden, words = features.split([self.feature_size // 2, self.read_heads * self.word_size], -1)
        return torch.cat([hidden, beside, words], -1), state

    def _outputs(self, features: Tensor) -> Tensor:
        if self.bypass_dropout:
            hidden, words = features.split([self.feature_size, self.read_heads * self.word_size], -1)
            features = torch.cat([F.dropout(hidden, self.bypass_dropout, self.training), words], -1)
        return super()._outputs(features)

    def extra_repr(self) -> str:
        return (
            f"input_size={self.input_size}, memory_size={self.memory_size}, word_size={self.word_size}, "
            f"read_heads={self.read_heads}, engine={self.engine!r}"
        )
