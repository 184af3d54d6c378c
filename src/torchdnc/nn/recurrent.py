"""What every model here shares with `nn.LSTM`: layouts in and out, lengths, resets and states."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence
from torch.utils import _pytree as pytree

from torchdnc.checks import check_like, check_shape, check_size
from torchdnc.engines.reference import autocasts


class Call(NamedTuple):
    """One call, checked, time first and batched: inputs [T, B, I], lengths [B], reset [T, B]."""

    inputs: Tensor
    state: Any
    lengths: Tensor | None
    reset: Tensor | None


class Recurrent(nn.Module, ABC):
    """A model over sequences, called as `output, state = model(input, state, lengths, reset)`.

    A model says what its states are and how features come from a batched, time-first call; `output` maps
    features to outputs; this class does the rest.
    """

    input_size: int
    batch_first: bool
    output: nn.Module
    looks_ahead: bool = False
    """Outputs depend on later inputs: padding must be told apart by `lengths`, and there are no single steps."""

    @abstractmethod
    def _zeros(self, batch_size: int) -> Any:
        """The all-zero state of `batch_size` rows."""

    @abstractmethod
    def _check_state(self, state: Any, batch: tuple[int, ...]) -> None:
        """Raises unless `state` is a state of this model, for `batch` rows ((): a single sequence)."""

    @abstractmethod
    def _run(self, call: Call) -> tuple[Tensor, Any]:
        """Features [T, B, F] and the final state."""

    def _outputs(self, features: Tensor) -> Tensor:
        """Outputs [*, O] of features [*, F]."""
        outputs: Tensor = self.output(features)
        return outputs

    def initial_state(self, batch_size: int | None = None) -> Any:
        """The all-zero state of `batch_size` rows; None: of a single sequence, without a batch dimension."""
        if batch_size is None:
            return without_batch(self._zeros(1))
        check_size("batch_size", batch_size, least=0)
        return self._zeros(batch_size)

    def reset_parameters(self) -> None:
        """Draws every parameter anew, from the distribution it was made with."""
        for child in self.children():
            _reset_parameters(child)

    def forward(
        self,
        input: Tensor | PackedSequence,
        state: Any = None,
        lengths: Tensor | Sequence[int] | int | None = None,
        reset: Tensor | None = None,
    ) -> tuple[Tensor | PackedSequence, Any]:
        """Runs a whole sequence.

        Args:
            input: [T, B, I], or [B, T, I] with `batch_first`, or [T, I] for a single sequence, or a
                PackedSequence.
            state: where to start, from `initial_state` or an earlier call; None for zeros.
            lengths: [B] integers from 0 to T, or one for a single sequence. Past its length a row's state is
                frozen and its outputs are zero; the padding is never read, whatever it holds.
            reset: [T, B] (or [B, T], or [T]) bool: rows to start afresh before that step; ignored past a
                row's length.
        Returns:
            output, laid out as the input was, and the state after the last step; after a PackedSequence it is
            in the caller's order.
        Raises:
            ValueError, TypeError: an argument does not fit, before anything is computed.
        """
        if isinstance(input, PackedSequence):
            return self._forward_packed(input, state, lengths, reset)
        call = self._arrange(input, state, lengths, reset)
        output, state = self._forward_batch(call)
        return self._restore(output, state, batched=input.dim() == 3)

    def step(self, step_input: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Runs one step: a call over a sequence of length one, on the same engine.

        Args:
            step_input: [B, I], or [I] for a single sequence.
            state: where to start; None for zeros.
        Returns:
            output [B, O] or [O], and the new state.
        Raises:
            ValueError, TypeError: an argument does not fit, or the model looks ahead.
        """
        if self.looks_ahead:
            raise ValueError("step cannot run a model that looks ahead: give it the whole sequence")
        batched = self._check_input("step_input", step_input, dims=2)
        rows = step_input if batched else step_input.unsqueeze(0)
        call = Call(rows.unsqueeze(0), self._batch_state(state, rows.shape[0], batched), None, None)
        features, state = self._run(call)
        output = self._outputs(features.squeeze(0))
        return (output, state) if batched else (output.squeeze(0), without_batch(state))

    def _check_input(self, name: str, tensor: Tensor, dims: int) -> bool:
        """Checks shape, dtype and device; says whether there is a batch dimension."""
        batched = isinstance(tensor, Tensor) and tensor.dim() == dims
        check_shape(name, tensor, (None,) * (dims - 1 if batched else dims - 2) + (self.input_size,))
        check_like(name, tensor, next(self.parameters()), also=_cast_dtypes(tensor.device))
        return batched

    def _batch_state(self, state: Any, batch_size: int, batched: bool) -> Any:
        if state is None:
            return self._zeros(batch_size)
        self._check_state(state, (batch_size,) if batched else ())
        return state if batched else pytree.tree_map(lambda leaf: leaf.unsqueeze(0), state)

    def _arrange(self, input: Tensor, state: Any, lengths: Any, reset: Any) -> Call:
        batched = self._check_input("input", input, dims=3)
        if not batched:
            input, reset = _batch_of_one(input, reset)
        elif self.batch_first:
            input = input.transpose(0, 1)
        T, B, _ = input.shape
        if T == 0:
            raise ValueError("input must have at least one time step, got 0")
        if reset is not None:
            reset = _check_reset(reset, T, B, swapped=batched and self.batch_first).to(input.device)
        lengths = None if lengths is None else _check_lengths(lengths, B, T).to(input.device)
        return Call(input, self._batch_state(state, B, batched), lengths, reset)

    def _forward_batch(self, call: Call) -> tuple[Tensor, Any]:
        features, state = self._run(call)
        output = self._outputs(features)
        if call.lengths is not None:
            steps = torch.arange(len(output), device=output.device).unsqueeze(-1)
            output = output.masked_fill((steps >= call.lengths).unsqueeze(-1), 0)
        return output, state

    def _restore(self, output: Tensor, state: Any, batched: bool) -> tuple[Tensor, Any]:
        if not batched:
            return output.squeeze(1), without_batch(state)
        return (output.transpose(0, 1) if self.batch_first else output), state

    def _forward_packed(
        self, packed: PackedSequence, state: Any, lengths: Any, reset: Any
    ) -> tuple[PackedSequence, Any]:
        if lengths is not None:
            raise ValueError("lengths must be None with a PackedSequence, which carries its own")
        check_shape("input.data", packed.data, (None, self.input_size))
        padded, lengths = pad_packed_sequence(packed, self.batch_first)
        output, state = self.forward(padded, state, lengths, reset)
        assert isinstance(output, Tensor)
        if packed.sorted_indices is not None:
            output = output.index_select(0 if self.batch_first else 1, packed.sorted_indices)
            lengths = lengths[packed.sorted_indices.cpu()]
        data, batch_sizes, _, _ = pack_padded_sequence(output, lengths, self.batch_first)
        return PackedSequence(data, batch_sizes, packed.sorted_indices, packed.unsorted_indices), state


def _reset_parameters(module: nn.Module) -> None:
    """Resets a module, or what it is made of where it does not know how."""
    reset: Any = getattr(module, "reset_parameters", None)
    if reset is not None:
        reset()
        return
    for child in module.children():
        _reset_parameters(child)


def without_batch(state: Any) -> Any:
    """The state of a single sequence from that of a batch of one."""
    return pytree.tree_map(lambda leaf: leaf.squeeze(0), state)


def _batch_of_one(input: Tensor, reset: Any) -> tuple[Tensor, Any]:
    """A single sequence as a time-first batch."""
    if isinstance(reset, Tensor):
        check_shape("reset", reset, (len(input),))
        reset = reset.unsqueeze(1)
    return input.unsqueeze(1), reset


def _as_integers(lengths: Any) -> Tensor:
    """`lengths` as a tensor; a plain number as one of a single element."""
    try:
        integers: Tensor = torch.atleast_1d(torch.as_tensor(lengths))
    except (TypeError, ValueError):
        raise TypeError(f"lengths must be integers, got {lengths!r}") from None
    if integers.is_floating_point() or integers.is_complex() or integers.dtype == torch.bool:
        raise TypeError(f"lengths must be integers, got {integers.dtype}")
    return integers


def _check_lengths(lengths: Any, batch_size: int, steps: int) -> Tensor:
    integers = _as_integers(lengths)
    check_shape("lengths", integers, (batch_size,))
    if batch_size and (integers.min() < 0 or integers.max() > steps):
        raise ValueError(f"lengths must be from 0 to {steps}, got {integers.tolist()}")
    return integers


def _check_reset(reset: Any, steps: int, batch_size: int, swapped: bool) -> Tensor:
    """`reset` as [T, B]."""
    check_shape("reset", reset, (batch_size, steps) if swapped else (steps, batch_size))
    if reset.dtype != torch.bool:
        raise TypeError(f"reset must be bool, got {reset.dtype}")
    time_first: Tensor = reset.transpose(0, 1) if swapped else reset
    return time_first


def linear_output(
    feature_size: int, output_size: int | None, device: torch.device | str | None, dtype: torch.dtype | None
) -> nn.Module:
    """The map from features to outputs: linear with a bias, or the identity when there is no output size."""
    if output_size is None:
        return nn.Identity()
    check_size("output_size", output_size)
    return nn.Linear(feature_size, output_size, device=device, dtype=dtype)


def _cast_dtypes(device: torch.device) -> tuple[torch.dtype, ...]:
    """The dtypes that autocast turns into its own: none where it is off, and never float64."""
    return (torch.float32, torch.bfloat16, torch.float16) if autocasts(device) else ()
