"""torchdnc eval."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from torchdnc.commands.parsing import parse, refusing
from torchdnc.training import evaluate_run
from torchdnc.training.console import scores_table


@dataclass(frozen=True)
class EvalArguments:
    """Evaluate a saved run on test sequences that it was not trained on.

    Example: torchdnc eval runs/my-copy --length 20 --memory-size 32
    """

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of the run."""
    length: int | None = None
    """Length of every sequence, in the task's unit (None: as trained)."""
    memory_size: int | None = None
    """Memory slots (None: as trained)."""
    sequences: int | None = None
    """Sequences (None: the whole test split, or 1000 where it has no end)."""
    batch_size: int | None = None
    """Sequences at a time (None: as trained)."""
    data_dir: Path | None = None
    """Folder of the data, for tasks that read some (None: as trained)."""
    json: bool = False
    """Print JSON."""


def eval_command(arguments: list[str]) -> int:
    """Evaluate a saved run, also on longer sequences or with another memory size."""
    given = parse(EvalArguments, "torchdnc eval", arguments)
    with refusing():
        scores = evaluate_run(
            given.run,
            length=given.length,
            memory_size=given.memory_size,
            sequences=given.sequences,
            batch_size=given.batch_size,
            data_dir=given.data_dir,
        )
    print(json.dumps(scores) if given.json else scores_table(scores))
    return 0
