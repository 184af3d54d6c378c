"""The associative recall task (Graves et al. 2014, Neural Turing Machines, section 4.3)."""

from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np

from torchdnc.checks import check_range, check_size
from torchdnc.tasks.base import Batch
from torchdnc.tasks.bits import BitTask, as_batch, bit_names, random_bits


@dataclass(frozen=True)
class AssociativeRecall(BitTask):
    """Given n items of l vectors and one of them as a query, answer with the item that came after it.

    An item follows an item delimiter; the query, any item but the last, stands between two query delimiters:
    n (l + 1) + 2 l + 2 steps. With 3 items of two 3-bit vectors:

        step          012345678901234
        input bit 0   .##.....#......
        input bit 1   .#..#..##.#....
        input bit 2   ..#.##.##.##...
        input item    #..#..#........
        input query   .........#..#..
        target bit 0               .#
        target bit 1               ##
        target bit 2               ##
    """

    name: ClassVar[str] = "associative-recall"

    bits: int = 6
    """Width of a vector."""
    item_length: int = 3
    """Vectors in an item."""
    min_items: int = 2
    """Fewest items in a sequence."""
    max_items: int = 6
    """Most items in a sequence; each row's number is drawn uniformly."""

    def __post_init__(self) -> None:
        check_size("bits", self.bits)
        check_size("item_length", self.item_length)
        check_range(2, min_items=self.min_items, max_items=self.max_items)

    @property
    def channels(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        vector = bit_names(self.bits)
        return (*vector, "item", "query"), vector

    def generate(self, rng: np.random.Generator, batch_size: int) -> Batch:
        counts = rng.integers(self.min_items, self.max_items + 1, batch_size)
        queries = rng.integers(0, counts - 1)
        items = random_bits(rng, self.max_items, batch_size, self.item_length, self.bits)
        query_at = counts * (self.item_length + 1)
        answer_at = query_at + self.item_length + 2
        lengths = answer_at + self.item_length
        rows, time = np.arange(batch_size), np.arange(lengths.max())[:, None]
        inputs = np.zeros((len(time), batch_size, self.bits + 2), np.float32)
        targets = np.zeros((len(time), batch_size, self.bits), np.float32)
        item, row = np.nonzero(np.arange(self.max_items)[:, None] < counts)
        item_at = item * (self.item_length + 1)
        inputs[item_at, row, self.bits] = 1
        inputs[query_at, rows, self.bits + 1] = inputs[answer_at - 1, rows, self.bits + 1] = 1
        self._place(inputs, item_at + 1, row, items[item, row])
        self._place(inputs, query_at + 1, rows, items[queries, rows])
        self._place(targets, answer_at, rows, items[queries + 1, rows])
        return as_batch(inputs, targets, (time >= answer_at) & (time < lengths), lengths)

    def _place(self, array: np.ndarray, start: np.ndarray, row: np.ndarray, items: np.ndarray) -> None:
        steps = start[:, None] + np.arange(self.item_length)
        array[steps, row[:, None], : self.bits] = items

    def with_length(self, length: int) -> Self:
        """The same task with exactly this many items."""
        check_size("length", length, least=2)
        return replace(self, min_items=length, max_items=length)
