"""How well a model does on sequences that it was not trained on."""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from torchdnc.tasks import Batch, Split, Task, Totals, add_totals
from torchdnc.tasks.bits import BitTask
from torchdnc.training.checkpoint import load_weights
from torchdnc.training.config import RunConfig
from torchdnc.training.folder import read_config
from torchdnc.training.models import check_room
from torchdnc.training.parallel import Group

TEST_SEQUENCES = 1000
"""Of a task that is generated without end."""


def evaluate(
    model: nn.Module,
    task: Task,
    split: Split,
    *,
    batch_size: int,
    sequences: int | None,
    seed: int,
    group: Group | None = None,
) -> dict[str, float]:
    """The task's scores of a model.

    Args:
        model: called as `outputs, state = model(inputs)`; its training mode is left as it was.
        task: what to score.
        split: "valid" or "test".
        batch_size: sequences at a time.
        sequences: how many; None for all of a split that has an end.
        seed: determines the sequences of a generated task.
        group: of processes that all call this with equal models, and deal the batches out among themselves.
    """
    group = group or Group()
    totals: Totals = {}
    training = model.training
    model.eval()
    try:
        for batch in group.deal(task.evaluation(split, batch_size=batch_size, sequences=sequences, seed=seed)):
            totals = add_totals(totals, _score(model, task, batch))
    finally:
        model.train(training)
    return task.summary(group.total(totals))


@torch.no_grad()
def _score(model: nn.Module, task: Task, batch: Batch) -> Totals:
    return task.score(predict(model, batch), batch)


def predict(model: nn.Module, batch: Batch) -> Tensor:
    """The model's outputs [T, B, O]; past a row's end they mean nothing.

    What follows a row's end reaches what the mask asks only in a model that looks ahead; others are spared the
    lengths, since freezing states costs time.
    """
    lengths = {"lengths": batch.lengths} if getattr(model, "looks_ahead", False) else {}
    outputs: Tensor = model(batch.inputs, **lengths)[0]
    return outputs


def load_run(
    run_dir: str | Path, *, memory_size: int | None = None, data_dir: Path | None = None
) -> tuple[RunConfig, nn.Module]:
    """A run's configuration and its trained model, if asked for with other slots or data in another place.

    Raises:
        ValueError: there is no such run, it was never saved, or it lacks the memory or the data to change.
    """
    run_dir = Path(run_dir)
    config, _ = read_config(run_dir)
    no_memory = f"memory_size cannot be set: the model of {run_dir} ({config.model.name}) has no memory"
    no_data = f"data_dir cannot be set: the task of {run_dir} ({config.task.name}) reads no data"
    config = replace(
        config,
        model=_changed(config.model, "memory_size", memory_size, no_memory),
        task=_changed(config.task, "data_dir", data_dir, no_data),
    )
    model = config.model.build(config.task.spec)
    load_weights(run_dir, model)
    return config, model.eval()


def _changed(part: Any, name: str, value: Any, refusal: str) -> Any:
    """The settings with one of them changed unless the value is None; ValueError if it is none of them."""
    if value is None:
        return part
    if name not in {field.name for field in fields(part)}:
        raise ValueError(refusal)
    return replace(part, **{name: value})


def evaluate_run(
    run_dir: str | Path,
    *,
    length: int | None = None,
    memory_size: int | None = None,
    batch_size: int | None = None,
    sequences: int | None = None,
    data_dir: Path | None = None,
) -> dict[str, float]:
    """The test scores of a saved run; what is None is as the run was trained.

    Args:
        run_dir: its folder.
        length: of every sequence, in the task's own unit.
        memory_size: slots.
        batch_size: sequences at a time.
        sequences: how many; None for the whole split, or for 1000 where it is generated without end.
        data_dir: where the task's data is, for tasks that read some.
    """
    config, model = load_run(run_dir, memory_size=memory_size, data_dir=data_dir)
    task = config.task if length is None else config.task.with_length(length)
    if sequences is None and isinstance(task, BitTask):
        sequences = TEST_SEQUENCES
    if batch_size is None:
        batch_size = config.batch_size
    check_room(config.model, batch_size if sequences is None else min(batch_size, sequences))
    return evaluate(model, task, "test", batch_size=batch_size, sequences=sequences, seed=config.seed)
