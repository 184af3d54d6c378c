"""Trains and tests what docs/results.md reports: python benchmarks/learning.py [NAME ...]; none means all.

Runs are kept in runs/results/NAME and gone on with where they stopped; to train anew, delete that folder. Each study
writes results/NAME.json, which tells what its folder holds, then the page is written anew from all of them.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import babi_text
import pages

from torchdnc.tasks import BAbI, Task
from torchdnc.training import Progress, Reporter, RunConfig, evaluate_run, find_recipe, load_recipe, train
from torchdnc.training.console import Lines
from torchdnc.training.environment import commit as commit_now
from torchdnc.training.folder import read_config
from torchdnc.training.metrics import METRICS
from torchdnc.training.plain import to_plain
from torchdnc.training.seeds import SEEDS, SeedRun, read_seeds, resume_seeds, train_seeds
from torchdnc.types import MemoryOptions

RUNS = pages.ROOT / "runs" / "results"
COMMITS = "commits.txt"


@dataclass(frozen=True)
class Study:
    """A recipe trained from several seeds, each then tested in some ways."""

    recipe: str
    seeds: int
    tests: dict[str, dict[str, Any]] = field(default_factory=lambda: {"test": {}})
    """Name -> what differs from the recipe: the settings of `evaluate_run`."""
    model: dict[str, Any] = field(default_factory=dict)
    """What differs from the recipe's."""
    task: dict[str, Any] = field(default_factory=dict)
    """The same of the task."""
    run: dict[str, Any] = field(default_factory=dict)
    """The same of the run's other settings."""

    def config(self) -> RunConfig:
        """The run of the first seed."""
        config = load_recipe(find_recipe(self.recipe))
        task, model = replace(config.task, **self.task), replace(config.model, **self.model)
        return replace(config, task=task, model=model, **self.run)


def short(model: dict[str, Any] | None = None, task: dict[str, Any] | None = None, **options: Any) -> Study:
    """The recipe of look-up by content in so few steps that each of its parts can be changed once."""
    study = Study("babi-content", 1, model=model or {}, task=task or {}, run={"steps": 10_000, "max_minutes": None})
    if not options:
        return study
    own: Any = study.config().model
    return replace(study, model=study.model | {"options": replace(own.options, **options)})


ENLARGED = {f"{slots} slots": {"memory_size": slots} for slots in (32, 64, 128, 256, 512)}
STUDIES = {
    "copy": Study("copy-demo", 5, {"lengths 1 to 10": {}, "length 20, 32 slots": {"length": 20, "memory_size": 32}}),
    # How long each engine takes.
    "copy-reference": Study("copy-demo", 10, model={"engine": "reference"}),
    "copy-fused": Study("copy-demo", 10, model={"engine": "fused"}),
    "repeat-copy": Study("repeat-copy", 3),
    "associative-recall": Study("associative-recall", 3),
    # What a larger memory than that of training does to a trained model.
    "enlarged": Study("associative-recall", 3, ENLARGED),
    "enlarged-skipping": Study("associative-recall", 3, ENLARGED, {"options": MemoryOptions(skip_unwritten=True)}),
    # Lessons of up to 1,024 items, and tests on ten times as many; on few sequences, which are 40,000 steps long.
    "recall-sam": Study(
        "recall-sam",
        1,
        {
            "1,024 items": {"length": 1024, "sequences": 64},
            "10,000 items": {"length": 10_000, "batch_size": 8, "sequences": 16},
        },
    ),
    "babi-1": Study("babi-1", 1),
    "babi-1-4-6": Study("babi-1-4-6", 1),
    "babi-biadnc": Study("babi-biadnc", 1),
    "babi-content": Study("babi-content", 1),
    "babi-lstm": Study("babi-lstm", 1),
    # What each part of the recipe is worth, one change at a time: what it has is taken away, what it lacks is added.
    babi_text.SHORT: short(),
    f"{babi_text.SHORT}-no-gain": short({"input_gain": 1.0}),
    f"{babi_text.SHORT}-norm": short({"interface_norm": True}),
    f"{babi_text.SHORT}-no-dropout": short({"bypass_dropout": 0.0}),
    f"{babi_text.SHORT}-no-thinking": short(task={"think_steps": 0}),
    f"{babi_text.SHORT}-two-ways": short({"bidirectional": True}),
    f"{babi_text.SHORT}-links": short(links="full"),
    f"{babi_text.SHORT}-not-skipping": short(skip_unwritten=False),
    f"{babi_text.SHORT}-masking": short(masking=True),
    f"{babi_text.SHORT}-deallocation": short(deallocation=True),
}


class Commits(Reporter):
    """Notes in a run's folder each commit that it was trained by."""

    def __init__(self, commit: str) -> None:
        self.commit = commit

    def started(self, config: RunConfig, run_dir: Path, progress: Progress) -> None:
        with open(run_dir / COMMITS, "a") as file:
            file.write(f"{self.commit}\n")


def run(name: str, commit: str) -> None:
    """Trains, tests, writes results/NAME.json and the page."""
    study, folder = STUDIES[name], RUNS / name
    compile_kernels(study.config())
    train_all(study.config(), folder, study.seeds, commit)
    pages.publish(name, record(name, folder, commit))


def train_all(config: RunConfig, folder: Path, seeds: int, commit: str) -> None:
    """Trains so many seeds, or goes on with them; leaves the program where a signal interrupts it."""
    reporters = [Lines(), Commits(commit)]
    if (folder / SEEDS).exists():
        _, interrupted = resume_seeds(folder, lambda _: reporters)
    else:
        _, interrupted = train_seeds(config, folder, seeds, lambda _: reporters)
    if interrupted is not None:
        sys.exit(f"interrupted: the same command goes on with {folder}")


def compile_kernels(config: RunConfig) -> None:
    """One step of a run that is thrown away, so that the seconds of the first seed are its own."""
    with TemporaryDirectory() as folder:
        result = train(replace(config, steps=1, eval_sequences=1), Path(folder) / "run")
    if result.status == "interrupted":
        sys.exit("interrupted before the first run began")


def record(name: str, folder: Path, commit: str) -> dict[str, Any]:
    """What the runs in a folder were, by their own files, and how they do in the study's tests, run by this commit."""
    config, _, runs = read_seeds(folder)
    seeds = {run.seed: folder / f"seed-{run.seed}" for run in runs}
    commits = [line for seed in seeds.values() for line in commits_of(seed)]
    return {
        "command": f"python benchmarks/learning.py {name}",
        "commit": different([*commits, commit]),
        "environment": merged([read_config(seed)[1] for seed in seeds.values()]),
        "recipe": config.to_dict(),
        "parameters": config.model.count_parameters(config.task.spec),
        "notes": notes_of(config.task),
        "seconds_to_solve": _spread(
            [run.seconds for run in runs if run.status == "solved" and run.seconds is not None]
        ),
        "runs": [to_plain(run) | _found(STUDIES[name], run, seeds[run.seed]) for run in runs],
    }


def notes_of(task: Task) -> list[str]:
    """What a reader must know of the data, without the place where this machine keeps it."""
    if not isinstance(task, BAbI):
        return list(task.notes())
    return [note.replace(f"{task.source.folder.parent}/", "") for note in task.notes()]


def commits_of(folder: Path) -> list[str]:
    """The commits that a run was trained by."""
    path = folder / COMMITS
    return path.read_text().splitlines() if path.exists() else ["unknown"]


def merged(environments: list[dict[str, Any]]) -> dict[str, Any]:
    """One environment; where some differ, every value."""
    names = dict.fromkeys(name for each in environments for name in each)
    return {name: different(each.get(name, "unknown") for each in environments) for name in names}


def different(values: Iterable[Any]) -> Any:
    """The one value, or a text of the different ones."""
    found = list(dict.fromkeys(values))
    return found[0] if len(found) == 1 else " / ".join(map(str, found))


def _spread(values: list[float]) -> dict[str, float]:
    """Least, median and most; nothing of nothing."""
    return {"least": min(values), "median": statistics.median(values), "most": max(values)} if values else {}


def _found(study: Study, run: SeedRun, folder: Path) -> dict[str, Any]:
    """A run's scores in the study's tests, and on bAbI the way there."""
    ended = run.status != "failed"
    tests = {name: evaluate_run(folder, **change) for name, change in study.tests.items() if ended}
    way = validation(folder)
    return {"tests": tests} | ({"validation": way} if way else {})


def validation(folder: Path) -> list[list[float]]:
    """Step, seconds and mean error of each evaluation of a run; none where its task has no such score."""
    rows = [json.loads(line) for line in (folder / METRICS).read_text().splitlines()]
    scored = [row for row in rows if "mean_error" in row.get("valid", {})]
    return [[row["step"], row["seconds"], row["valid"]["mean_error"]] for row in scored]


def main() -> None:
    """The studies named on the command line."""
    names = sys.argv[1:] or list(STUDIES)
    unknown = [name for name in names if name not in STUDIES]
    if unknown:
        print(f"NAME must be one of {', '.join(STUDIES)}, got {unknown[0]}", file=sys.stderr)
        sys.exit(2)
    # Before the first result is written: a result in a checkout of a commit makes the rest of it no other.
    commit = commit_now()
    for name in names:
        run(name, commit)


if __name__ == "__main__":
    main()
