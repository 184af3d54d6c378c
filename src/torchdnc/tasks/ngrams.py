"""The dynamic n-grams task (Graves et al. 2014, Neural Turing Machines, section 4.4)."""

import math
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from torchdnc.checks import check_size
from torchdnc.tasks.base import Batch, Totals
from torchdnc.tasks.bits import BitTask, as_batch


@dataclass(frozen=True)
class NGrams(BitTask):
    """Predict each bit of a sequence from those before it: length - 1 steps.

    A bit is 1 with a probability that depends on the order - 1 bits before it; the table of these
    probabilities is drawn afresh for each sequence, all from Beta(1/2, 1/2). The first order - 1 bits are
    fair coins and not asked for, so costs leave out one bit for each of them. With order 3 and 40 bits:

        step             012345678901234567890123456789012345678
        input bit        ...#..#..##....##..#..#.#..#.#..#.#....
        target next bit   .#..#..##....##..#..#.#..#.#..#.#.....
    """

    name: ClassVar[str] = "ngrams"

    order: int = 6
    """Bits in an n-gram: the predicted one and its context."""
    length: int = 200
    """Bits in a sequence."""

    def __post_init__(self) -> None:
        check_size("order", self.order, least=2)
        check_size("length", self.length, least=self.order)

    @property
    def channels(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        return ("bit",), ("next bit",)

    def generate(self, rng: np.random.Generator, batch_size: int) -> Batch:
        context_bits, rows = self.order - 1, np.arange(batch_size)
        table = rng.beta(0.5, 0.5, (batch_size, 2**context_bits))
        chance = rng.random((self.length, batch_size))
        bits = chance < 0.5
        context = np.zeros(batch_size, np.int64)
        for t in range(self.length):
            if t >= context_bits:
                bits[t] = chance[t] < table[rows, context]
            context = (2 * context + bits[t]) % 2**context_bits
        steps = self.length - 1
        inputs, targets = (part[:, :, None].astype(np.float32) for part in (bits[:-1], bits[1:]))
        mask = np.repeat(np.arange(steps)[:, None] >= context_bits - 1, batch_size, axis=1)
        return as_batch(inputs, targets, mask, np.full(batch_size, steps))

    def score(self, outputs: Tensor, batch: Batch) -> Totals:
        """The bit tasks' score, and what the optimal estimator would have paid on the same sequences."""
        rows = batch.lengths.numel()
        optimal = self.optimal_bits(batch).sum().item()
        return super().score(outputs, batch) | {"optimal_bits_per_sequence": (optimal, float(rows))}

    def optimal_bits(self, batch: Batch) -> Tensor:
        """Cost in bits of each prediction by p(1) = (N1 + 1/2) / (N1 + N0 + 1), [length - order + 1, B].

        N1 and N0 count the ones and zeros that have followed the same context so far.
        """
        windows = batch.inputs[:, :, 0].double().unfold(0, self.order - 1, 1)
        powers = 2.0 ** torch.arange(self.order - 2, -1, -1, dtype=torch.float64, device=windows.device)
        context = (windows @ powers).long()
        bit = batch.targets[self.order - 2 :, :, 0].double()
        seen = F.one_hot(context, 2 ** (self.order - 1)).double()
        ones = seen * bit[:, :, None]
        n, n1 = ((x.cumsum(0) - x).gather(2, context[:, :, None]).squeeze(2) for x in (seen, ones))
        p = (n1 + 0.5) / (n + 1)
        return -torch.where(bit > 0.5, p, 1 - p).log() / math.log(2)

    def with_length(self, length: int) -> Self:
        """The same task with sequences of exactly this many bits."""
        check_size("length", length, least=self.order)
        return replace(self, length=length)
