"""What a training run tells whoever watches it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torchdnc.training.config import RunConfig


class RunError(Exception):
    """A run that cannot go on; its message is a sentence for the user."""


class DiskError(RunError):
    """A file could not be written; every earlier file is intact."""


class NonFiniteError(RunError):
    """The loss or the gradient is no longer a number."""


class LostError(RunError):
    """Another process that shares the run has ended or cannot be reached."""


@dataclass(frozen=True)
class Progress:
    """Where a run stands: with the weights and the optimiser's state, all that a resume needs."""

    step: int = 0
    """Updates made."""
    seconds: float = 0.0
    """Time spent, evaluations included."""
    losses: float = 0.0
    """Sum of the losses since the last row of them."""
    norms: float = 0.0
    """Sum of the gradient norms since then."""
    rows: int = 0
    """Updates since then."""
    scored: int = 0
    """Step of the last evaluation."""
    scores: Mapping[str, float] | None = None
    """What it found; None if it ended a lesson, and the next one was not evaluated yet."""
    lesson: int | None = None
    """Value of the curriculum's setting; None in the first lesson, and without a curriculum."""


Status = Literal["solved", "finished", "out of time", "interrupted"]


@dataclass(frozen=True)
class Result:
    """How a run ended."""

    run_dir: Path
    status: Status
    """solved: at its goal; finished: all steps made; the other two can be resumed."""
    step: int
    seconds: float
    scores: Mapping[str, float]
    """Of the last evaluation on the validation split; empty if there was none."""
    signal: int | None = None
    """What interrupted it."""


class Reporter:
    """Hears of a run's events; override those of interest."""

    def started(self, config: RunConfig, run_dir: Path, progress: Progress) -> None:
        """Training begins or goes on."""

    def warned(self, sentence: str) -> None:
        """Something the user should know."""

    def logged(self, row: Mapping[str, Any]) -> None:
        """A row of metrics.jsonl: step, seconds, and either loss and grad_norm or valid, a dict of scores; beside this
        lesson, the value of what grows, if there is a curriculum."""

    def ended(self, result: Result | None) -> None:
        """The run stopped; None where an error stopped it."""
