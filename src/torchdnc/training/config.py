"""Everything that determines a training run, as one frozen dataclass."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

import torch

from torchdnc.checks import check_bound, check_choice, check_number, check_size
from torchdnc.tasks import TASKS, Task
from torchdnc.training.curriculum import Curriculum
from torchdnc.training.models import MODELS, DNCModel, Model
from torchdnc.training.optim import Optimizer
from torchdnc.training.plain import from_plain, to_plain

# More than any machine has cores; OpenMP dies of a number that it cannot make.
MOST_THREADS = 1024


@dataclass(frozen=True)
class Goal:
    """When to stop early."""

    metric: str
    """A score of the task that is better when lower."""
    at_most: float
    """Training stops once the validation score is at most this; a negative value never stops it."""

    def __post_init__(self) -> None:
        check_number("goal.at_most", self.at_most)

    def met(self, scores: Mapping[str, float]) -> bool:
        """Whether these scores reach the goal; without any they do not."""
        return bool(scores) and scores[self.metric] <= self.at_most


@dataclass(frozen=True)
class RunConfig:
    """One training run."""

    task: Task
    model: Model = field(default_factory=DNCModel)
    optimizer: Optimizer = field(default_factory=Optimizer)
    goal: Goal | None = None
    curriculum: Curriculum | None = None
    batch_size: int = 16
    """Sequences in a batch."""
    steps: int = 100_000
    """Updates at most."""
    seed: int = 0
    """Determines the first weights and every batch."""
    log_every: int = 100
    """Steps between rows of training loss."""
    eval_every: int = 1000
    """Steps between evaluations on the validation split."""
    eval_sequences: int = 256
    """Sequences of such an evaluation, or fewer where the split has fewer."""
    checkpoint_every: int = 1000
    """Steps between checkpoints."""
    max_minutes: float | None = None
    """Stop after so much time, resumably (None: no limit)."""
    threads: int | None = None
    """CPU threads of a process (None: as PyTorch chooses, or 1 for each of several processes)."""
    processes: int = 1
    """Processes on this machine that share every batch; torchrun's number under torchrun."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "steps", "log_every", "eval_every", "eval_sequences", "checkpoint_every"):
            check_size(name, getattr(self, name))
        if self.threads is not None:
            check_size("threads", self.threads)
            if self.threads > MOST_THREADS:
                raise ValueError(f"threads must be at most {MOST_THREADS}, got {self.threads}")
        check_size("seed", self.seed, least=0)
        check_bound("max_minutes", self.max_minutes)
        check_size("processes", self.processes)
        if self.processes > self.batch_size:
            raise ValueError(
                f"processes must be at most batch_size, {self.batch_size}, so that each has rows, got {self.processes}"
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain data, with the kind of task and model named."""
        data: dict[str, Any] = to_plain(self)
        for name, part in (("task", self.task), ("model", self.model)):
            data[name] = {"kind": part.name} | data[name]
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], where: str = "the configuration") -> Self:
        """The run that plain data describes; raises ValueError for anything unknown or contradictory."""
        parts = dict(data)
        for name, kinds in (("task", TASKS), ("model", MODELS)):
            if name in parts:
                parts[name] = _of_kind(kinds, parts[name], f"{where}: {name}")
        return from_plain(cls, parts, where)

    def prepared(self) -> Self:
        """The same run, the task's data looked up.

        Raises:
            ValueError, FileNotFoundError: data is missing, the goal is on no score that is better when lower, or there
                are no such lessons.
        """
        config = replace(self, task=self.task.resolved())
        scores = score_names(config.task)
        config.task.evaluation("valid", batch_size=1, sequences=1, seed=self.seed)
        if self.goal is not None:
            check_choice("goal.metric", self.goal.metric, scores)
            if self.goal.metric in config.task.rising:
                raise ValueError(f"goal.metric must be a score that is better when lower, got {self.goal.metric!r}")
        if self.curriculum is not None:
            if self.goal is None:
                raise ValueError("curriculum needs a goal that ends a lesson, got none")
            self.curriculum.check(config.task)
        return config


def score_names(task: Task) -> list[str]:
    """The names of a task's scores, found by scoring one sequence."""
    batch = task.sample(1, seed=0, step=0)
    outputs = torch.zeros(*batch.inputs.shape[:2], task.spec.output_size)
    return list(task.summary(task.score(outputs, batch)))


def _of_kind(kinds: Mapping[str, type[Any]], data: Any, where: str) -> Any:
    if not isinstance(data, Mapping) or "kind" not in data:
        raise ValueError(f"{where} needs the option 'kind', one of {', '.join(kinds)}")
    check_choice(f"{where}.kind", data["kind"], kinds)
    return from_plain(kinds[data["kind"]], {k: v for k, v in data.items() if k != "kind"}, where)
