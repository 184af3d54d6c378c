"""Trains and tests what docs/results.md reports: python benchmarks/learning.py [NAME ...]; none means all.

Runs are kept in runs/results/NAME and gone on with where they stopped. Each study writes results/NAME.json,
then the page is written anew from all of them.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pages

from torchdnc.training import evaluate_run, find_recipe, load_recipe
from torchdnc.training.checkpoint import write_atomically
from torchdnc.training.console import Lines
from torchdnc.training.environment import environment
from torchdnc.training.plain import to_plain
from torchdnc.training.seeds import SEEDS, resume_seeds, train_seeds

RUNS = pages.ROOT / "runs" / "results"


@dataclass(frozen=True)
class Study:
    """A recipe trained from several seeds, each then tested in some ways."""

    recipe: str
    seeds: int
    tests: dict[str, dict[str, int]] = field(default_factory=lambda: {"test": {}})
    """Name -> what differs from the recipe: length, memory_size."""


STUDIES = {
    "copy": Study("copy-demo", 5, {"lengths 1 to 10": {}, "length 20": {"length": 20, "memory_size": 32}}),
    "repeat-copy": Study("repeat-copy", 3),
    "associative-recall": Study("associative-recall", 3),
    "babi-1": Study("babi-1", 1),
    "babi-1-4-6": Study("babi-1-4-6", 1),
}


def run(name: str) -> None:
    """Trains, tests, writes results/NAME.json."""
    study, folder = STUDIES[name], RUNS / name
    recipe = load_recipe(find_recipe(study.recipe))
    if (folder / SEEDS).exists():
        runs, interrupted = resume_seeds(folder, lambda _: [Lines()])
    else:
        runs, interrupted = train_seeds(recipe, folder, study.seeds, lambda _: [Lines()])
    if interrupted is not None:
        sys.exit(f"interrupted: the same command goes on with {folder}")
    record = {
        "command": f"python benchmarks/learning.py {name}",
        "commit": pages.commit(),
        "environment": environment(recipe),
        "recipe": recipe.to_dict(),
        "runs": [to_plain(seed) | {"tests": _tests(study, folder / f"seed-{seed.seed}")} for seed in runs],
    }
    write_atomically(pages.RESULTS / f"{name}.json", json.dumps(record, indent=2).encode() + b"\n")


def _tests(study: Study, folder: Path) -> dict[str, Any]:
    return {name: evaluate_run(folder, **change) for name, change in study.tests.items()}


def main() -> None:
    """The studies named on the command line."""
    names = sys.argv[1:] or list(STUDIES)
    unknown = [name for name in names if name not in STUDIES]
    if unknown:
        print(f"NAME must be one of {', '.join(STUDIES)}, got {unknown[0]}", file=sys.stderr)
        sys.exit(2)
    for name in names:
        run(name)
        pages.write()


if __name__ == "__main__":
    main()
