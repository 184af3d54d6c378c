"""The priority sort task (Graves et al. 2014, Neural Turing Machines, section 4.5)."""

from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np

from torchdnc.checks import check_range, check_size
from torchdnc.tasks.base import Batch
from torchdnc.tasks.bits import BitTask, as_batch, bit_names, random_bits


@dataclass(frozen=True)
class PrioritySort(BitTask):
    """Given vectors with priorities, answer with the highest ones, highest first: items + answers steps.

    A priority is drawn uniformly from [-1, 1]; pictures show it as a digit, 0 lowest. There is no delimiter:
    the answer begins when the input goes blank. With 6 vectors of 3 bits and 4 answers:

        step            0123456789
        input bit 0     #..#......
        input bit 1     #..##.....
        input bit 2     #.####....
        input priority  019854....
        target bit 0          .#..
        target bit 1          .##.
        target bit 2          ####
    """

    name: ClassVar[str] = "priority-sort"

    bits: int = 8
    """Width of a vector."""
    items: int = 20
    """Vectors given."""
    answers: int = 16
    """Vectors asked for."""

    def __post_init__(self) -> None:
        check_size("bits", self.bits)
        check_range(1, answers=self.answers, items=self.items)

    @property
    def channels(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        vector = bit_names(self.bits)
        return (*vector, "priority"), vector

    def generate(self, rng: np.random.Generator, batch_size: int) -> Batch:
        steps, rows = self.items + self.answers, np.arange(batch_size)
        vectors = random_bits(rng, self.items, batch_size, self.bits)
        priority = rng.uniform(-1, 1, (self.items, batch_size)).astype(np.float32)
        highest = np.argsort(-priority, axis=0, kind="stable")[: self.answers]
        inputs = np.zeros((steps, batch_size, self.bits + 1), np.float32)
        inputs[: self.items, :, : self.bits] = vectors
        inputs[: self.items, :, self.bits] = priority
        targets = np.zeros((steps, batch_size, self.bits), np.float32)
        targets[self.items :] = vectors[highest, rows]
        mask = np.repeat(np.arange(steps)[:, None] >= self.items, batch_size, axis=1)
        return as_batch(inputs, targets, mask, np.full(batch_size, steps))

    def symbol(self, channel: str, value: float) -> str:
        if channel != "priority" or value == 0:
            return super().symbol(channel, value)
        return str(min(int(5 * (value + 1)), 9))

    def with_length(self, length: int) -> Self:
        """The same task with exactly this many vectors, the same share of them asked for."""
        check_size("length", length)
        return replace(self, items=length, answers=max(1, round(length * self.answers / self.items)))
