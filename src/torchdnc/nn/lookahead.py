"""Reading a sequence from its end."""

from __future__ import annotations

from itertools import chain
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchdnc.engines import unroll
from torchdnc.types import LSTMState


class BackwardLSTM(nn.Module):
    """The paper's deep LSTM from each row's end to its beginning: what a step sees is the input now and later.

    The input enters every layer and every layer's h is a feature, as in `LSTMController`; a layer is an `nn.LSTM`.

    Args:
        input_size: I, features of the input.
        hidden_size: H of each layer.
        num_layers: how many.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.layers = nn.ModuleList(
            nn.LSTM(input_size + hidden_size * (layer > 0), hidden_size, device=device, dtype=dtype)
            for layer in range(num_layers)
        )

    def forward(self, inputs: Tensor, lengths: Tensor | None = None, reset: Tensor | None = None) -> Tensor:
        """Features [T, B, L·H] of inputs [T, B, I].

        Args:
            inputs: [T, B, I].
            lengths: [B]: a row begins at its last step; what the features hold past it is finite and means nothing.
            reset: [T, B] bool: what comes from such a step on is not seen before it.
        """
        # `nn.LSTM` has no kernels for every lower precision.
        with torch.autocast(inputs.device.type, enabled=False):
            return self._features(inputs.to(next(self.parameters()).dtype), lengths, reset)

    def _features(self, inputs: Tensor, lengths: Tensor | None, reset: Tensor | None) -> Tensor:
        T, B, _ = inputs.shape
        place = _mirrored(T, lengths if lengths is not None else torch.full((B,), T, device=inputs.device))
        mirrored = inputs.gather(0, place.unsqueeze(-1).expand_as(inputs))
        if lengths is not None:
            beyond = torch.arange(T, device=inputs.device).unsqueeze(-1) >= lengths
            mirrored = mirrored.masked_fill(beyond.unsqueeze(-1), 0)
        if reset is None:
            found = self._run(mirrored)
        else:
            # Coming from the end, the step after a reset is the one to start afresh before.
            afresh = F.pad(reset.gather(0, place)[:-1], (0, 0, 1, 0))
            start = self._zeros(mirrored)
            found, _ = unroll(self._step, mirrored, start, start, reset=afresh)
        return found.gather(0, place.unsqueeze(-1).expand_as(found))

    def _run(self, inputs: Tensor) -> Tensor:
        """All layers over the whole sequence, one after another."""
        hidden: list[Tensor] = []
        for layer in self.layers:
            hidden.append(layer(torch.cat([inputs, *hidden[-1:]], -1))[0])
        return torch.cat(hidden, -1)

    def _step(self, step_input: Tensor, state: LSTMState) -> tuple[Tensor, LSTMState]:
        hidden: list[Tensor] = []
        cell: list[Tensor] = []
        for layer, h, s in zip(self.layers, state.hidden, state.cell, strict=True):
            seen = torch.cat([step_input, *hidden[-1:]], -1).unsqueeze(0)
            _, (h, s) = layer(seen, (h.unsqueeze(0), s.unsqueeze(0)))
            hidden.append(h.squeeze(0))
            cell.append(s.squeeze(0))
        return torch.cat(hidden, -1), LSTMState(tuple(hidden), tuple(cell))

    def _zeros(self, inputs: Tensor) -> LSTMState:
        zeros: Any = [inputs.new_zeros(inputs.shape[1], self.hidden_size) for _ in chain(self.layers, self.layers)]
        return LSTMState(tuple(zeros[: len(self.layers)]), tuple(zeros[len(self.layers) :]))


def _mirrored(steps: int, lengths: Tensor) -> Tensor:
    """[T, B]: the step that each step of a row changes places with, past the row's length itself."""
    step = torch.arange(steps, device=lengths.device).unsqueeze(-1)
    return torch.where(step < lengths, lengths - 1 - step, step)
