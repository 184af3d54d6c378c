"""Shares of a batch together are the whole batch."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
import torch
from torch import Tensor

from tests.conftest import assert_close
from tests.training.runs import tiny
from torchdnc.tasks import Batch, Copy, RepeatCopy, Task
from torchdnc.tasks.babi import BAbI
from torchdnc.training import DNCModel, Group
from torchdnc.training.parallel import Processes, divide, take

PLACES = ("kitchen", "garden", "hall")


def own_text(folder: Path) -> BAbI:
    """Ten stories of one to ten sentences, a question behind every second sentence and the last."""
    lines = []
    for story in range(1, 11):
        number = 0
        for place in range(story):
            lines.append(f"{(number := number + 1)} mary went to the {PLACES[place % 3]} .")
            if place % 2 or place == story - 1:
                lines.append(f"{(number := number + 1)} where is mary ?\t{PLACES[place % 3]}")
    for name in ("train", "test"):
        (folder / f"{name}.txt").write_text("\n".join(lines))
    return BAbI(train_files=(folder / "train.txt",), test_files=(folder / "test.txt",)).resolved()


REPEATS = RepeatCopy(bits=2, max_length=3, max_repeats=4)


CLIP = 1e-3
"""It binds: what reaches an activation must be as large in a share as in the whole batch."""


class Share(Processes):
    """One of several processes that has to do without the others."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size


def gradients(task: Task, batch: Batch, part: float) -> dict[str, Tensor]:
    torch.manual_seed(1)
    model = replace(cast(DNCModel, tiny().model), activation_gradient_clip=CLIP).build(task.spec).double()
    (part * task.loss(model(batch.inputs.double())[0], batch)).backward()
    return {name: one.grad for name, one in model.named_parameters() if one.grad is not None}


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("kind", ["copy", "repeat-copy", "babi"])
def test_shares_have_the_gradient_of_the_batch(kind: str, size: int, tmp_path: Path) -> None:
    task: Task = {"copy": tiny().task, "repeat-copy": REPEATS, "babi": own_text(tmp_path)}[kind]
    batch = task.sample(6, seed=4, step=0)
    shares = [Share(rank, size).share(batch) for rank in range(size)]
    asked = [int(share.mask.sum()) for share, _ in shares]
    assert len(set(asked)) > 1, "equal shares would hide a wrong weight"
    parts = [gradients(task, share, part) for share, part in shares]
    averaged = [gradients(task, share, 1 / size) for share, _ in shares]
    scaled = [gradients(task, share, size * part) for share, part in shares]
    whole = gradients(task, batch, 1.0)
    for name, expected in whole.items():
        assert_close(sum(part[name] for part in parts), expected, 1e-9)
    for wrong, scale in ((averaged, 1), (scaled, size)):
        assert max((sum(part[name] for part in wrong) / scale - whole[name]).abs().max() for name in whole) > 1e-4


def test_a_share_ends_with_its_longest_row() -> None:
    batch = REPEATS.sample(8, seed=0, step=0)
    for rank in range(2):
        share, _ = Share(rank, 2).share(batch)
        assert len(share.inputs) == share.lengths.max()
    chosen = take(batch, [5, 2])
    steps = int(batch.lengths[[5, 2]].max())
    assert torch.equal(chosen.lengths, batch.lengths[[5, 2]])
    for part, whole in zip(chosen[:3], batch[:3], strict=True):
        assert torch.equal(part, whole[:steps, [5, 2]])


def cost(lengths: list[int], shares: list[list[int]]) -> int:
    return max(max(lengths[row] for row in rows) * len(rows) for rows in shares if rows)


@pytest.mark.parametrize("lengths", [[3], [5, 5, 5, 5], [9, 1, 1, 1, 1, 1], [4, 7, 2, 7, 3, 3], [100, 90, 50, 10, 9]])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_no_way_to_deal_rows_out_is_cheaper(lengths: list[int], size: int) -> None:
    dealt = divide(lengths, size)
    assert len(dealt) == size
    assert sorted(itertools.chain(*dealt)) == list(range(len(lengths)))
    every = itertools.product(range(size), repeat=len(lengths))
    ways = ([[row for row, owner in enumerate(owners) if owner == share] for share in range(size)] for owners in every)
    assert cost(lengths, dealt) == min(cost(lengths, way) for way in ways)


def test_a_process_without_rows_shares_the_step() -> None:
    batch = Copy(bits=2).sample(1, seed=0, step=0)
    (_, one), (share, none) = (Share(rank, 2).share(batch) for rank in range(2))
    assert (one, none) == (1.0, 0.0)
    assert share.inputs.shape == (0, 0, 3)


def test_alone_nothing_changes() -> None:
    group, batch = Group(), Copy(bits=2).sample(3, seed=0, step=0)
    assert group.share(batch) == (batch, 1.0)
    assert list(group.deal([batch, batch])) == [batch, batch]
    assert group.agree(False, []) == (False, 0)
    assert group.agree(True, [15]) == (True, 15)
