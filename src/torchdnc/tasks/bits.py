"""What the generated tasks share: targets are bits, the loss is the sigmoid cross-entropy."""

import math
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from torchdnc.checks import check_choice, check_size
from torchdnc.tasks.base import (
    SPLITS,
    Batch,
    Spec,
    Split,
    Task,
    Totals,
    masked,
    random_stream,
)

STEPS_PER_LINE = 72


@dataclass(frozen=True)
class BitTask(Task):
    """A task whose sequences are drawn afresh for every batch and whose answers are bits."""

    rising: ClassVar[frozenset[str]] = frozenset({"perfect"})

    @property
    @abstractmethod
    def channels(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Names of the input channels and of the output channels."""

    @abstractmethod
    def generate(self, rng: np.random.Generator, batch_size: int) -> Batch:
        """A batch made of these random numbers."""

    @property
    def spec(self) -> Spec:
        inputs, outputs = self.channels
        return Spec(len(inputs), len(outputs))

    def sample(self, batch_size: int, *, seed: int, step: int) -> Batch:
        check_size("batch_size", batch_size)
        check_size("seed", seed, least=0)
        check_size("step", step, least=0)
        return self.generate(random_stream("train", seed, step), batch_size)

    def evaluation(self, split: Split, *, batch_size: int, sequences: int | None, seed: int) -> Iterator[Batch]:
        check_choice("split", split, SPLITS)
        check_size("batch_size", batch_size)
        check_size("seed", seed, least=0)
        if sequences is None:
            raise ValueError(f"sequences must be given, since {self.name} is generated without end, got None")
        check_size("sequences", sequences)
        sizes = (min(batch_size, sequences - start) for start in range(0, sequences, batch_size))
        return (self.generate(random_stream(split, seed, i), size) for i, size in enumerate(sizes))

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Mean over the masked bits of -(y ln p + (1-y) ln (1-p)) with p = sigmoid(output)."""
        logits = masked(outputs, batch)
        return F.binary_cross_entropy_with_logits(logits, batch.targets[batch.mask].to(logits.dtype))

    def score(self, outputs: Tensor, batch: Batch) -> Totals:
        """Wrong bits, cross-entropy in bits per sequence (the NTM paper's cost), perfect sequences."""
        bits = float(batch.mask.sum()) * outputs.shape[-1]
        wrong_rows = wrong_bits(outputs, batch).sum((0, 2))
        wrong, rows = float(wrong_rows.sum()), float(len(wrong_rows))
        return {
            "wrong_bits": (wrong, bits),
            "wrong_bits_per_sequence": (wrong, rows),
            "bits_per_sequence": (self.loss(outputs, batch).item() * bits / math.log(2), rows),
            "perfect": (float((wrong_rows == 0).sum()), rows),
        }

    def symbol(self, channel: str, value: float) -> str:
        """The character that stands for an input value in a picture."""
        return {0.0: ".", 1.0: "#"}.get(value, "+" if value > 0 else "-")

    def render(self, batch: Batch, outputs: Tensor | None = None, row: int = 0) -> str:
        """A line per channel, a column per step: # is 1, . is 0, x is wrong, blank where nothing counts."""
        length = int(batch.lengths[row])
        bits, asked = batch.targets[:length, row] > 0.5, batch.mask[:length, row]
        lines = [("step", "".join(str(step % 10) for step in range(length)))]
        lines += self._input_lines(batch.inputs[:length, row])
        lines += self._answer_lines("target", bits, asked, torch.zeros_like(bits))
        if outputs is None:
            return _paragraphs(lines, length)
        wrong = wrong_bits(outputs, batch)[:length, row]
        lines += self._answer_lines("output", bits, asked, wrong)
        total = int(asked.sum()) * bits.shape[-1]
        return f"{_paragraphs(lines, length)}\n\n{int(wrong.sum())} of {total} bits wrong"

    def _input_lines(self, inputs: Tensor) -> list[tuple[str, str]]:
        return [
            (f"input {name}", "".join(self.symbol(name, value) for value in channel))
            for name, channel in zip(self.channels[0], inputs.T.tolist(), strict=True)
        ]

    def _answer_lines(self, kind: str, bits: Tensor, asked: Tensor, wrong: Tensor) -> list[tuple[str, str]]:
        codes = torch.where(asked[:, None], torch.where(wrong, 3, 1 + bits.int()), 0)
        return [
            (f"{kind} {name}", "".join(" .#x"[code] for code in channel))
            for name, channel in zip(self.channels[1], codes.T.tolist(), strict=True)
        ]


def _paragraphs(lines: list[tuple[str, str]], length: int) -> str:
    width = max(len(label) for label, _ in lines) + 2
    starts = range(0, length, STEPS_PER_LINE)
    blocks = [
        "\n".join(f"{label:{width}}{text[at : at + STEPS_PER_LINE]}".rstrip() for label, text in lines) for at in starts
    ]
    return "\n\n".join(blocks)


def wrong_bits(outputs: Tensor, batch: Batch) -> Tensor:
    """[T, B, O] bool: the masked bits on whose wrong side of 0 the output is; NaN is always wrong."""
    right = torch.where(batch.targets > 0.5, outputs > 0, outputs <= 0)
    return ~right & batch.mask[:, :, None]


def bit_names(bits: int) -> tuple[str, ...]:
    """Names of the channels of a vector."""
    return tuple(f"bit {i}" for i in range(bits))


def random_bits(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Fair coin flips as float32."""
    return rng.integers(0, 2, shape, dtype=np.int8).astype(np.float32)


def as_batch(inputs: np.ndarray, targets: np.ndarray, mask: np.ndarray, lengths: np.ndarray) -> Batch:
    """The arrays as a batch of group 0."""
    arrays = (inputs, targets, mask, lengths, np.zeros_like(lengths))
    return Batch(*(torch.from_numpy(array) for array in arrays))
