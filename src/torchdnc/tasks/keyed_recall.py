"""Keyed recall: store words under keys, wait, and find them again by their keys."""

from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np
from torch import Tensor

from torchdnc.checks import check_range, check_size, check_type
from torchdnc.tasks.base import Batch, Totals
from torchdnc.tasks.bits import BitTask, as_batch, bit_names, random_bits, wrong_bits

MOST_KEY_BITS = 62
"""Keys are drawn as whole numbers."""


@dataclass(frozen=True)
class KeyedRecall(BitTask):
    """Given n items, a key and a value at one step, then steps of noise, then the keys again, answer with the values.

    No two keys of a sequence are the same, and a key is asked for once at most. With 2 items of 3-bit keys and 2-bit
    values, and a delay of 2 steps:

        step            012345
        input key 0     .##.#.
        input key 1     .#.##.
        input key 2     #.##.#
        input value 0   ......
        input value 1   .#....
        input store     ##....
        input ask       ....##
        target value 0      ..
        target value 1      #.

    The value of an item is asked for at the step of its key.
    """

    name: ClassVar[str] = "keyed-recall"
    rising: ClassVar[frozenset[str]] = frozenset({"perfect", "recalled"})

    key_bits: int = 12
    """Width of a key."""
    value_bits: int = 8
    """Width of a value."""
    min_items: int = 1
    """Fewest items in a sequence."""
    max_items: int = 8
    """Most items in a sequence; each row's number is drawn uniformly."""
    min_delay: int = 0
    """Fewest steps of noise between the last item and the first question."""
    max_delay: int = 0
    """Most steps of noise; each row's number is drawn uniformly."""
    in_order: bool = False
    """Keys are asked for in the order of the items, not in one drawn at random."""
    latest: int | None = None
    """Only so many items that came last are asked for (None: all)."""

    def __post_init__(self) -> None:
        check_size("key_bits", self.key_bits)
        check_size("value_bits", self.value_bits)
        if self.key_bits > MOST_KEY_BITS:
            raise ValueError(f"key_bits must be at most {MOST_KEY_BITS}, got {self.key_bits}")
        check_range(1, min_items=self.min_items, max_items=self.max_items)
        check_range(0, min_delay=self.min_delay, max_delay=self.max_delay)
        check_type("in_order", self.in_order, bool)
        if self.latest is not None:
            check_size("latest", self.latest)
        if self.max_items > 2**self.key_bits:
            raise ValueError(f"max_items must be at most the {2**self.key_bits} keys there are, got {self.max_items}")

    @property
    def channels(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        keys, values = ([name.replace("bit", kind) for name in bit_names(bits)] for kind, bits in self._parts)
        return (*keys, *values, "store", "ask"), (*values,)

    @property
    def _parts(self) -> tuple[tuple[str, int], tuple[str, int]]:
        return ("key", self.key_bits), ("value", self.value_bits)

    def generate(self, rng: np.random.Generator, batch_size: int) -> Batch:
        counts = rng.integers(self.min_items, self.max_items + 1, batch_size)
        delays = rng.integers(self.min_delay, self.max_delay + 1, batch_size)
        keys = np.stack([self._keys(rng) for _ in range(batch_size)], 1)
        values = random_bits(rng, self.max_items, batch_size, self.value_bits)
        asked = counts if self.latest is None else np.minimum(counts, self.latest)
        asked_at, lengths = counts + delays, counts + delays + asked
        time, width = np.arange(lengths.max())[:, None], self.key_bits + self.value_bits
        noise = (time >= counts) & (time < asked_at)
        inputs = np.zeros((len(time), batch_size, width + 2), np.float32)
        inputs[..., :width] = random_bits(rng, len(time), batch_size, width) * noise[..., None]
        targets = np.zeros((len(time), batch_size, self.value_bits), np.float32)
        item, row = np.nonzero(np.arange(self.max_items)[:, None] < counts)
        inputs[item, row, :width] = np.concatenate([keys, values], -1)[item, row]
        inputs[item, row, width] = 1
        places = np.stack([self._places(rng, count) for count in asked], 1)
        late = item >= (counts - asked)[row]
        item, row = item[late], row[late]
        ask_at = asked_at[row] + places[item - (counts - asked)[row], row]
        inputs[ask_at, row, : self.key_bits] = keys[item, row]
        inputs[ask_at, row, width + 1] = 1
        targets[ask_at, row] = values[item, row]
        return as_batch(inputs, targets, (time >= asked_at) & (time < lengths), lengths)

    def _keys(self, rng: np.random.Generator) -> np.ndarray:
        """[max_items, key_bits], no two alike."""
        numbers = rng.choice(2**self.key_bits, self.max_items, replace=False)
        return (numbers[:, None] >> np.arange(self.key_bits) & 1).astype(np.float32)

    def _places(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """[max_items]: as the how-manieth each item is asked for; past `count` it means nothing."""
        order = np.arange(count) if self.in_order else rng.permutation(count)
        return np.pad(order, (0, self.max_items - count))

    def score(self, outputs: Tensor, batch: Batch) -> Totals:
        """Those of every task of bits, and the share of items recalled: of whose values every bit is right."""
        wrong = wrong_bits(outputs, batch).any(-1)
        asked = float(batch.mask.sum())
        return super().score(outputs, batch) | {"recalled": (asked - float(wrong.sum()), asked)}

    def with_length(self, length: int) -> Self:
        """The same task with exactly this many items."""
        check_size("length", length)
        return replace(self, min_items=length, max_items=length)
