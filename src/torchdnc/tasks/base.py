"""What a task is: batches as a function of seed and step, a loss, a score in the paper's units, a picture."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, Self, get_args

import numpy as np
import torch
from torch import Tensor

Split = Literal["valid", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
Totals = dict[str, tuple[float, float]]
"""Name -> (numerator, denominator) of a score; see `add_totals`."""

# The first word of every random seed: the training stream never meets the evaluation streams.
STREAMS = {"train": 0, "valid": 1, "test": 2}


class Batch(NamedTuple):
    """Sequences to learn from or to be scored on, time first; past a row's length everything is zero."""

    inputs: Tensor
    """[T, B, I] float32."""
    targets: Tensor
    """[T, B, O] float32 bits, or [T, B] int64 class numbers."""
    mask: Tensor
    """[T, B] bool: the steps at which an answer is asked for."""
    lengths: Tensor
    """[B] int64: steps of each row; the rest is padding."""
    groups: Tensor
    """[B] int64: what kind of row it is, for scores by group (bAbI: the task number); 0 elsewhere."""


class Spec(NamedTuple):
    """Width of a task's inputs and outputs."""

    input_size: int
    output_size: int


@dataclass(frozen=True)
class Task(ABC):
    """A problem to train on; its fields are its settings."""

    name: ClassVar[str]
    rising: ClassVar[frozenset[str]] = frozenset()
    """The scores that are better the higher they are."""

    @property
    @abstractmethod
    def spec(self) -> Spec:
        """Width of the inputs and outputs."""

    @abstractmethod
    def sample(self, batch_size: int, *, seed: int, step: int) -> Batch:
        """The training batch of a step: the same one for the same task, batch_size, seed and step."""

    @abstractmethod
    def evaluation(self, split: Split, *, batch_size: int, sequences: int | None, seed: int) -> Iterator[Batch]:
        """Batches never trained on: fresh sequences, or a finite split in order, up to `sequences`."""

    @abstractmethod
    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Mean cross-entropy in nats over what the mask asks for; outputs are logits [T, B, O]."""

    @abstractmethod
    def score(self, outputs: Tensor, batch: Batch) -> Totals:
        """Numerators and denominators, in the paper's units, of one batch; outputs are logits [T, B, O]."""

    @abstractmethod
    def render(self, batch: Batch, outputs: Tensor | None = None, row: int = 0) -> str:
        """A text picture of one row: inputs, targets and, if given, the outputs and where they are wrong."""

    @abstractmethod
    def with_length(self, length: int) -> Self:
        """The same task with every sequence of this length; raises ValueError where that means nothing."""

    def summary(self, totals: Totals) -> dict[str, float]:
        """Each score as one number: numerator / denominator."""
        return {name: numerator / denominator for name, (numerator, denominator) in totals.items()}

    def resolved(self) -> Self:
        """The same task with the settings that are read from data filled in, to be kept with a model."""
        return self

    def notes(self) -> tuple[str, ...]:
        """Sentences a user should see before training, such as data that is incomplete."""
        return ()


def add_totals(first: Totals, second: Totals) -> Totals:
    """The totals of two batches together; a name may be in one of them only."""
    names = first | second
    pairs = {name: (first.get(name, (0.0, 0.0)), second.get(name, (0.0, 0.0))) for name in names}
    return {name: (a[0] + b[0], a[1] + b[1]) for name, (a, b) in pairs.items()}


def masked(outputs: Tensor, batch: Batch) -> Tensor:
    """The outputs asked for, [K, O], in at least float32; selected, since the others may hold anything."""
    return outputs[batch.mask].to(torch.promote_types(outputs.dtype, torch.float32))


def random_stream(split: str, seed: int, step: int) -> np.random.Generator:
    """The random numbers of one batch; distinct for every split, seed and step."""
    return np.random.default_rng([STREAMS[split], seed, step])
