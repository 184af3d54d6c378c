"""How well trained models recall what they stored, item by item."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from torchdnc.tasks import Batch, KeyedRecall
from torchdnc.tasks.bits import wrong_bits
from torchdnc.training import RunConfig
from torchdnc.training.config import Goal
from torchdnc.training.evaluate import predict
from torchdnc.training.optim import Optimizer

TASK = KeyedRecall(key_bits=16, value_bits=8, min_items=1, max_items=24, max_delay=4)
"""What the studies of addresses, of full memories and of other sizes ask for, with `SLOTS` while training."""
SLOTS = 32


def training(task: KeyedRecall, steps: int) -> RunConfig:
    """How models learn to recall, in so many steps at most."""
    return RunConfig(
        task=task,
        optimizer=Optimizer(name="adam", learning_rate=3e-3, clip_norm=10.0),
        goal=Goal("wrong_bits", 1e-4),
        batch_size=32,
        threads=1,
        steps=steps,
        eval_every=250,
        eval_sequences=256,
    )


@torch.no_grad()
def recalled(model: nn.Module, task: KeyedRecall, sequences: int, seed: int = 0) -> Tensor:
    """The share of sequences in which each item was recalled, all bits of its value right.

    Args:
        model: called as `outputs, state = model(inputs)`.
        task: with one number of items.
        sequences: how many test sequences.
        seed: determines them.
    Returns:
        [items], the item stored first coming first.
    """
    right = torch.zeros(task.max_items, dtype=torch.float64)
    for batch in task.evaluation("test", batch_size=min(sequences, 32), sequences=sequences, seed=seed):
        fine = ~wrong_bits(predict(model, batch), batch).any(-1)
        right += (item_of_question(task, batch) * fine.unsqueeze(-1)).sum((0, 1))
    return right / sequences


def item_of_question(task: KeyedRecall, batch: Batch) -> Tensor:
    """[T, B, items] bool: whether a step asks for the key of an item."""
    keys = batch.inputs[..., : task.key_bits]
    stored = keys[: task.max_items].transpose(0, 1)
    same: Tensor = (keys.unsqueeze(2) == stored).all(-1) & batch.mask.unsqueeze(-1)
    return same
