"""The copy task (Graves et al. 2014, Neural Turing Machines, section 4.1)."""

from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np

from torchdnc.checks import check_range, check_size
from torchdnc.tasks.base import Batch
from torchdnc.tasks.bits import BitTask, as_batch, bit_names, random_bits


@dataclass(frozen=True)
class Copy(BitTask):
    """Repeat a sequence of random vectors after a delimiter, with no input meanwhile: 2 L + 1 steps.

    With several sequences, each is repeated before the next one comes (Graves et al. 2016, Extended Data Figure 1).

    With 5 vectors of 3 bits:

        step             01234567890
        input bit 0      .####......
        input bit 1      ...........
        input bit 2      ###........
        input delimiter  .....#.....
        target bit 0           .####
        target bit 1           .....
        target bit 2           ###..
    """

    name: ClassVar[str] = "copy"

    bits: int = 8
    """Width of a vector."""
    min_length: int = 1
    """Fewest vectors in a sequence."""
    max_length: int = 20
    """Most vectors in a sequence; each row's number is drawn uniformly."""
    sequences: int = 1
    """Sequences, one after another."""

    def __post_init__(self) -> None:
        check_size("bits", self.bits)
        check_size("sequences", self.sequences)
        check_range(1, min_length=self.min_length, max_length=self.max_length)

    @property
    def channels(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        vector = bit_names(self.bits)
        return (*vector, "delimiter"), vector

    def generate(self, rng: np.random.Generator, batch_size: int) -> Batch:
        vectors = rng.integers(self.min_length, self.max_length + 1, (self.sequences, batch_size))
        ends = np.cumsum(2 * vectors + 1, 0)
        steps = int(ends[-1].max())
        inputs = np.zeros((steps, batch_size, self.bits + 1), np.float32)
        targets = np.zeros((steps, batch_size, self.bits), np.float32)
        mask = np.zeros((steps, batch_size), np.bool_)
        for count, end in zip(vectors, ends, strict=True):
            t, row = np.nonzero(np.arange(steps)[:, None] < count)
            shown = end[row] - 2 * count[row] - 1 + t
            answer = shown + count[row] + 1
            inputs[shown, row, : self.bits] = targets[answer, row] = random_bits(rng, len(t), self.bits)
            inputs[end - count - 1, np.arange(batch_size), self.bits] = 1
            mask[answer, row] = True
        return as_batch(inputs, targets, mask, ends[-1])

    def with_length(self, length: int) -> Self:
        check_size("length", length)
        return replace(self, min_length=length, max_length=length)
