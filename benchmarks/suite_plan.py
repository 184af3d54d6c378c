"""What benchmarks/suite.py compares: models, tasks, and what is tried on each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from torchdnc.tasks import Task
from torchdnc.training import Goal, Optimizer, RunConfig, find_recipe, load_recipe
from torchdnc.training.matching import matched, of_kind
from torchdnc.types import MemoryOptions

MEMORY = {"memory_size": 128, "word_size": 20}
"""The NTM paper's, on every task."""


@dataclass(frozen=True)
class Contender:
    """A model to compare: its kind, its learning rate, and what else is to be set; a variant is a row of this table."""

    kind: str
    learning_rate: float
    settings: dict[str, Any] = field(default_factory=dict)


VARIANT = MemoryOptions(skip_unwritten=True, deallocation=True)
CONTENDERS = {
    "lstm": Contender("lstm", 3e-3),
    "super-lstm": Contender("super-lstm", 3e-3),
    "ntm": Contender("ntm", 3e-3),
    "dnc": Contender("dnc", 1e-2),
    # Keys are looked for among what was written and not freed since.
    "dnc-variant": Contender("dnc", 1e-2, {"interface_norm": True, "options": VARIANT}),
}


@dataclass(frozen=True)
class Curve:
    """Tests on sequences longer than those of training: a task by a size, the sizes, and the largest trained on."""

    at: Callable[[Any, int], Task]
    values: tuple[int, ...]
    trained: int


@dataclass(frozen=True)
class Experiment:
    """A recipe's task, learned by every contender from some seeds, with as many parameters as the recipe's DNC."""

    recipe: str
    seeds: int
    solved: float
    """Bits per sequence that count as solved."""
    task: dict[str, Any] = field(default_factory=dict)
    """What differs from the recipe's."""
    curves: dict[str, Curve] = field(default_factory=dict)
    """What is counted -> tests by it."""
    contenders: dict[str, Contender] = field(default_factory=lambda: CONTENDERS)

    def config(self, name: str, minutes: float) -> RunConfig:
        """The run of a contender's first seed."""
        recipe, contender = load_recipe(find_recipe(self.recipe)), self.contenders[name]
        task = replace(recipe.task, **self.task)
        reference: Any = replace(recipe.model, **MEMORY)
        model: Any = replace(of_kind(reference, contender.kind), **contender.settings)
        return RunConfig(
            task=task,
            model=matched(model, task.spec, reference.count_parameters(task.spec)),
            optimizer=Optimizer("adam", contender.learning_rate, clip_norm=10.0),
            goal=Goal("bits_per_sequence", self.solved),
            steps=10_000_000,
            log_every=25,
            # Some runs are of a hundred steps, some of thousands; an evaluation costs about as much as one or two.
            eval_every=25,
            eval_sequences=64,
            max_minutes=minutes,
            threads=1,
        )


EXPERIMENTS = {
    "copy": Experiment(
        "copy", 5, 0.1, curves={"vectors": Curve(lambda task, n: task.with_length(n), tuple(range(10, 121, 10)), 20)}
    ),
    "repeat-copy": Experiment(
        "repeat-copy",
        5,
        0.1,
        {"max_length": 10, "max_repeats": 10},
        {
            "vectors, 10 repeats": Curve(
                lambda task, n: task.with_repeats(10).with_length(n), (5, 10, 12, 14, 16, 18, 20), 10
            ),
            "repeats of 10 vectors": Curve(
                lambda task, n: task.with_repeats(n).with_length(10), (5, 10, 12, 14, 16, 18, 20), 10
            ),
        },
    ),
    "associative-recall": Experiment(
        "associative-recall", 5, 0.1, curves={"items": Curve(lambda task, n: task.with_length(n), (6, 10, 15, 20), 6)}
    ),
    # As good as the paper's NTM after a million sequences; its 133.5 bits include the first 5, a bit each.
    "ngrams": Experiment("ngrams", 3, 128.5),
    "priority-sort": Experiment("priority-sort", 3, 20.0),
}
SPARSE_CONTENDERS = {
    "dnc": CONTENDERS["dnc"],
    "sam": Contender("sparse-dnc", 3e-3, {"links": False, "interface_norm": True}),
    "sdnc": Contender("sparse-dnc", 3e-3, {"links": True, "interface_norm": True}),
}
SPARSE = {
    f"{name}-sparse": replace(EXPERIMENTS[name], seeds=3, contenders=SPARSE_CONTENDERS)
    for name in ("copy", "associative-recall", "priority-sort")
}
RATES = {
    "rates": Experiment(
        "copy",
        1,
        0.1,
        contenders={
            f"{name} {rate:g}": replace(CONTENDERS[name], learning_rate=rate)
            for name in ("lstm", "super-lstm", "ntm", "dnc")
            for rate in (1e-3, 3e-3, 1e-2)
        },
    )
}
ALL = EXPERIMENTS | SPARSE | RATES
