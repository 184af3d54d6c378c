"""What `torchdnc demo` shows of a trained copy model."""

from pathlib import Path

import torch

from torchdnc.nn import DNC
from torchdnc.tasks.copy import Copy
from torchdnc.training.evaluate import evaluate_run, load_run
from torchdnc.training.picture import picture, weightings

LENGTHS = (10, 20)
"""The longest sequences that the recipe copy-demo trains on, and longer ones."""
NEXT = """The run is saved in {run}. What to try next:
  torchdnc eval {run} --length 30 --memory-size 64
  torchdnc train copy-demo --seeds 5
  torchdnc train repeat-copy
  torchdnc train --help"""


def show(run_dir: Path) -> str:
    """Scores by length with twice the slots, one sequence, and the memory at work on it."""
    task, model = _load(run_dir)
    parts = [_by_length(run_dir, 2 * model.memory_size), _one_sequence(task, model), NEXT.format(run=run_dir)]
    return "\n\n".join(parts)


def _by_length(run_dir: Path, slots: int) -> str:
    lines = []
    for length in LENGTHS:
        scores = evaluate_run(run_dir, length=length, memory_size=slots)
        wrong, perfect = 100 * scores["wrong_bits"], 100 * scores["perfect"]
        lines.append(f"length {length}, {slots} slots: {wrong:.3g}% wrong bits, {perfect:.3g}% of sequences perfect")
    return "\n".join(lines)


@torch.no_grad()
def _one_sequence(task: Copy, model: DNC) -> str:
    task = task.with_length(task.max_length)
    batch = next(iter(task.evaluation("test", batch_size=1, sequences=1, seed=0)))
    outputs, _ = model(batch.inputs)
    memory = picture(*weightings(model, batch.inputs[:, 0]))
    return (
        f"One sequence:\n\n{task.render(batch, outputs)}\n\n"
        f"The memory at work on it, a line per slot and a column per step:\n\n{memory}"
    )


def _load(run_dir: Path) -> tuple[Copy, DNC]:
    config, model = load_run(run_dir)
    if not (isinstance(config.task, Copy) and isinstance(model, DNC)):
        raise ValueError(f"{run_dir} must hold a DNC that copies, got {config.model.name} on {config.task.name}")
    return config.task, model
