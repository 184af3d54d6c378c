"""The repeat copy task (Graves et al. 2014, Neural Turing Machines, section 4.2)."""

import math
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np

from torchdnc.checks import check_range, check_size
from torchdnc.tasks.base import Batch
from torchdnc.tasks.bits import BitTask, as_batch, bit_names, random_bits


@dataclass(frozen=True)
class RepeatCopy(BitTask):
    """Repeat a sequence of L random vectors R times, then say that this is the end: L + 1 + L R + 1 steps.

    R stands beside the delimiter on a channel of its own, as (R - mean) / standard deviation over the range
    of repeats (0 where the range holds one number). The last target is a 1 on the end channel. With 2 bits,
    3 vectors and 1 to 3 repeats, here 3:

        step             01234567890123
        input bit 0      .##...........
        input bit 1      #.#...........
        input delimiter  ...#..........
        input repeats    ...+..........
        target bit 0         .##.##.##.
        target bit 1         #.##.##.#.
        target end           .........#
    """

    name: ClassVar[str] = "repeat-copy"

    bits: int = 8
    """Width of a vector."""
    min_length: int = 1
    """Fewest vectors in a sequence."""
    max_length: int = 10
    """Most vectors in a sequence; each row's number is drawn uniformly."""
    min_repeats: int = 1
    """Fewest repeats."""
    max_repeats: int = 10
    """Most repeats; each row's number is drawn uniformly."""
    scaled_over: tuple[int, int] | None = None
    """Range of repeats that the mean and the deviation of their channel are of (None: of the repeats drawn)."""

    def __post_init__(self) -> None:
        check_size("bits", self.bits)
        check_range(1, min_length=self.min_length, max_length=self.max_length)
        check_range(1, min_repeats=self.min_repeats, max_repeats=self.max_repeats)
        if self.scaled_over is not None:
            if len(self.scaled_over) != 2:
                raise ValueError(f"scaled_over must be the fewest and the most repeats, got {self.scaled_over}")
            check_range(1, **dict(zip(("scaled_over[0]", "scaled_over[1]"), self.scaled_over, strict=True)))

    @property
    def channels(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        vector = bit_names(self.bits)
        return (*vector, "delimiter", "repeats"), (*vector, "end")

    def generate(self, rng: np.random.Generator, batch_size: int) -> Batch:
        vectors = rng.integers(self.min_length, self.max_length + 1, batch_size)
        repeats = rng.integers(self.min_repeats, self.max_repeats + 1, batch_size)
        lengths = vectors * (repeats + 1) + 2
        rows, time = np.arange(batch_size), np.arange(lengths.max())[:, None]
        inputs = np.zeros((len(time), batch_size, self.bits + 2), np.float32)
        targets = np.zeros((len(time), batch_size, self.bits + 1), np.float32)
        t, row = np.nonzero(time < vectors)
        inputs[t, row, : self.bits] = random_bits(rng, len(t), self.bits)
        inputs[vectors, rows, self.bits] = 1
        inputs[vectors, rows, self.bits + 1] = self._normalised(repeats)
        mask = (time > vectors) & (time < lengths)
        t, row = np.nonzero(mask & (time < lengths - 1))
        source = (t - vectors[row] - 1) % vectors[row]
        targets[t, row, : self.bits] = inputs[source, row, : self.bits]
        targets[lengths - 1, rows, self.bits] = 1
        return as_batch(inputs, targets, mask, lengths)

    def _normalised(self, repeats: np.ndarray) -> np.ndarray:
        least, most = self._scale
        count = most - least + 1
        # 0.5 is the deviation of two numbers; that of one number, 0, would divide 0 by 0.
        deviation = max(math.sqrt((count**2 - 1) / 12), 0.5)
        return np.asarray((repeats - (least + most) / 2) / deviation)

    @property
    def _scale(self) -> tuple[int, int]:
        return self.scaled_over or (self.min_repeats, self.max_repeats)

    def with_length(self, length: int) -> Self:
        check_size("length", length)
        return replace(self, min_length=length, max_length=length)

    def with_repeats(self, repeats: int) -> Self:
        """The same task with exactly this many repeats, told to the model on the scale that it knows."""
        check_size("repeats", repeats)
        return replace(self, min_repeats=repeats, max_repeats=repeats, scaled_over=self._scale)
