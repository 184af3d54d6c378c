"""What the processes that share a run do together; in a group of one, each of it changes nothing."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import reduce
from itertools import islice
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from torchdnc.tasks import Batch, Totals, add_totals
from torchdnc.training.report import LostError


class Group:
    """A process that trains alone."""

    rank = 0
    """Process 0 leads: it alone writes, prints and decides."""
    size = 1

    def share(self, batch: Batch) -> tuple[Batch, float]:
        """This process's rows of a batch, and their part of all that the mask asks for."""
        return batch, 1.0

    def add(self, loss: Tensor, parameters: Sequence[nn.Parameter]) -> float:
        """The sum of all processes' losses; every parameter's gradient becomes the sum of theirs."""
        return loss.item()

    def deal(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """This process's batches: every `size`-th."""
        return islice(batches, self.rank, None, self.size)

    def total(self, totals: Totals) -> Totals:
        """The totals of all processes together."""
        return totals

    def agree(self, stop: bool, caught: Iterable[int]) -> tuple[bool, int]:
        """Whether any process wants to stop, and a signal that one of them caught (0: none did)."""
        return stop, max(caught, default=0)

    def hand(self, value: Any) -> Any:
        """The value that process 0 gives."""
        return value


class Processes(Group):
    """One of the processes of `torch.distributed`'s default group.

    The gradient of a loss that is a mean over the whole batch is the sum of the gradients of each share's mean,
    each times its part of the batch. DistributedDataParallel averages: it would need losses times the number of
    processes, whose larger gradients a controller clips at its activations; and a share without rows would block it.
    """

    def __init__(self) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()

    def share(self, batch: Batch) -> tuple[Batch, float]:
        mine = take(batch, divide(batch.lengths.tolist(), self.size)[self.rank])
        return mine, int(mine.mask.sum()) / int(batch.mask.sum())

    def add(self, loss: Tensor, parameters: Sequence[nn.Parameter]) -> float:
        gradients = [torch.zeros_like(one) if one.grad is None else one.grad for one in parameters]
        sums = torch.cat([*(gradient.flatten() for gradient in gradients), loss.detach().view(1)])
        with _together():
            dist.all_reduce(sums)
        *parts, total = sums.split([*(one.numel() for one in parameters), 1])
        for one, part in zip(parameters, parts, strict=True):
            one.grad = part.view_as(one)
        return float(total)

    def total(self, totals: Totals) -> Totals:
        every: list[Totals] = [{}] * self.size
        with _together():
            dist.all_gather_object(every, totals)
        return reduce(add_totals, every)

    def agree(self, stop: bool, caught: Iterable[int]) -> tuple[bool, int]:
        said = torch.tensor([int(stop), max(caught, default=0)])
        with _together():
            dist.all_reduce(said, dist.ReduceOp.MAX)
        return bool(said[0]), int(said[1])

    def hand(self, value: Any) -> Any:
        values = [value]
        with _together():
            dist.broadcast_object_list(values, src=0)
        return values[0]


@contextmanager
def _together() -> Iterator[None]:
    """Raises LostError where a process can no longer be reached: gloo says so by a RuntimeError."""
    try:
        yield
    except RuntimeError as error:
        raise LostError("another process of the run has ended") from error


def take(batch: Batch, rows: list[int]) -> Batch:
    """These rows of a batch, as many steps as the longest of them has."""
    lengths = batch.lengths[rows]
    steps = max(lengths.tolist(), default=0)
    inputs, targets, mask = (part[:steps, rows] for part in (batch.inputs, batch.targets, batch.mask))
    return Batch(inputs, targets, mask, lengths, batch.groups[rows])


def divide(lengths: Sequence[int], shares: int) -> list[list[int]]:
    """Every row in one share: rows of like length together, so that no share is longer to compute than need be.

    A share costs its rows times its longest row, since shorter ones are padded; the most that one costs is least.

    Args:
        lengths: of the rows, each at least 1.
        shares: how many; the last may have no rows.
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True)

    def filled(limit: int) -> list[list[int]]:
        parts: list[list[int]] = []
        start = 0
        while start < len(order):
            rows = limit // lengths[order[start]]
            parts.append(order[start : start + rows])
            start += rows
        return parts

    limits = range(max(lengths), max(lengths) * len(lengths) + 1)
    parts = filled(limits[bisect_left(limits, True, key=lambda limit: len(filled(limit)) <= shares)])
    return parts + [[] for _ in range(shares - len(parts))]
