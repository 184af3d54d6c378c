"""Whether a model's memory is too small for its task."""

from torch import nn

from torchdnc.nn import DNC
from torchdnc.tasks import Task

SEQUENCES = 4
LOST = 1.0
"""Writes of a sequence, in sum, whose loss is worth a word."""


def full_memory(model: nn.Module, task: Task, seed: int) -> str | None:
    """A sentence if a few validation sequences lose writes because no slot is free; None if not, or without a DNC."""
    if not isinstance(model, DNC):
        return None
    (batch,) = task.evaluation("valid", batch_size=SEQUENCES, sequences=SEQUENCES, seed=seed)
    report, state = model.report(batch.inputs, lengths=batch.lengths)
    lost = float(report.summary()["lost"].mean())
    if lost <= LOST:
        return None
    slots = state.memory.usage.shape[-1]
    return (
        f"the memory of {slots} slots is full: of the writes of a sequence {lost:.1f} are lost on average; more slots "
        'would keep them, or the model option overflow "grow" or "reclaim"'
    )
