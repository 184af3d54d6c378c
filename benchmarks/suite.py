"""The NTM paper's tasks, learned by five models of about as many parameters: python benchmarks/suite.py [TASK ...].

Every run is bounded in time, and stops as soon as its task is solved. Runs are kept in a folder each, under
runs/results/suite-MINUTES, and gone on with where they stopped; to train anew, delete that folder. Each task writes
results/suite-TASK.json, then figures and page are made anew from all of them. Two processes may train two tasks.

With names that end in `-sparse` it has sparse memories learn three of the tasks, beside the DNC. With the name `rates`
it tries learning rates on copy instead, which those of the suite were chosen by: python benchmarks/suite.py rates
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

import learning
import pages
import suite_figures
import suite_text
from suite_plan import ALL, EXPERIMENTS, Experiment

from torchdnc.tasks import Task
from torchdnc.training import RunConfig, RunError, evaluate, load_run
from torchdnc.training.environment import commit as commit_now
from torchdnc.training.folder import read_config
from torchdnc.training.metrics import METRICS
from torchdnc.training.seeds import SEEDS, SeedRun, read_seeds

MINUTES = 1.0
"""Of training at most, for each run."""
QUICK_MINUTES = 5 / 60
QUICK = pages.ROOT / "runs" / "suite-quick"
TEST_BATCH, TEST_SEQUENCES, CURVE_SEQUENCES = 100, 1000, 100
TESTS = "tests.json"
DENSITY = 1.1
"""Steps of a learning curve's point over those of the point before, at least."""


def run(name: str, minutes: float, seeds: int | None, results: Path, commit: str) -> None:
    """Trains and tests every contender, writes the record, figures and page; `seeds` None: as many as planned."""
    experiment, folder = ALL[name], _runs(minutes) / name
    for contender in experiment.contenders:
        config = experiment.config(contender, minutes)
        count = seeds or experiment.seeds
        _check_same(config, count, folder / contender)
        learning.compile_kernels(config)
        learning.train_all(config, folder / contender, count, commit)
    publish(name, record(name, minutes, commit), results)


def _runs(minutes: float) -> Path:
    return learning.RUNS / f"suite-{minutes:.3g}"


def _check_same(config: RunConfig, seeds: int, folder: Path) -> None:
    """Leaves the program if the runs in a folder are not what is to be trained."""
    if (folder / SEEDS).exists() and read_seeds(folder)[:2] != (config, seeds):
        sys.exit(f"{folder} holds runs of other settings or seeds: delete it to train anew")


def record(name: str, minutes: float, commit: str) -> dict[str, Any]:
    """What the contenders' runs were, by their own files, and how they do in the tests."""
    experiment, folder = ALL[name], _runs(minutes) / name
    found = {contender: _contender(experiment, folder / contender) for contender in experiment.contenders}
    seeds = [path.parent for path in sorted(folder.glob(f"*/*/{METRICS}"))]
    commits = [line for seed in seeds for line in learning.commits_of(seed)]
    config = experiment.config(next(iter(experiment.contenders)), minutes)
    return {
        "suite": name,
        "command": f"python benchmarks/suite.py {name}{_options(minutes)}",
        "commit": learning.different([*commits, commit]),
        "environment": learning.merged([read_config(seed)[1] for seed in seeds]),
        "minutes": minutes,
        "solved": experiment.solved,
        "task": config.to_dict()["task"],
        "curves": {
            counted: {"values": list(curve.values), "trained": curve.trained}
            for counted, curve in experiment.curves.items()
        },
        "models": found,
    }


def _options(minutes: float) -> str:
    return {MINUTES: "", QUICK_MINUTES: " --quick"}.get(minutes, f" --minutes {minutes:.3g}")


def _contender(experiment: Experiment, folder: Path) -> dict[str, Any]:
    config, _, runs = read_seeds(folder)
    settings = config.to_dict()
    return {
        "model": settings["model"],
        "learning_rate": config.optimizer.learning_rate,
        "parameters": config.model.count_parameters(config.task.spec),
        "runs": [_run(experiment, config, run, folder / f"seed-{run.seed}") for run in runs],
    }


def _run(experiment: Experiment, config: RunConfig, run: SeedRun, folder: Path) -> dict[str, Any]:
    told: dict[str, Any] = {"seed": run.seed, "status": run.status}
    if run.status != "failed" and run.step is not None and run.seconds is not None:
        sequences = run.step * config.batch_size
        told |= {"steps": run.step, "sequences": sequences, "seconds": round(run.seconds, 1)}
        told |= _tested(experiment, folder)
    return told | {"learning": _learning(folder, config.batch_size)}


def _learning(folder: Path, batch_size: int) -> dict[str, list[float]]:
    """Bits per sequence on validation sequences, against the sequences trained on and the seconds."""
    points: list[tuple[int, float, float]] = []
    rows = [json.loads(line) for line in (folder / METRICS).read_text().splitlines()]
    scored = [row for row in rows if "valid" in row]
    for row in scored:
        sequences = row["step"] * batch_size
        if not points or sequences >= DENSITY * points[-1][0] or row is scored[-1]:
            points.append((sequences, row["seconds"], row["valid"]["bits_per_sequence"]))
    return {name: [point[i] for point in points] for i, name in enumerate(("sequences", "seconds", "bits"))}


def _tested(experiment: Experiment, folder: Path) -> dict[str, Any]:
    """How a run does on test sequences like those of training, and on others; tested once, then kept beside it."""
    path = folder / TESTS
    if not path.exists():
        config, model = load_run(folder)

        def score(task: Task, sequences: int) -> dict[str, float]:
            return evaluate(model, task, "test", batch_size=TEST_BATCH, sequences=sequences, seed=config.seed)

        curves = {
            counted: [score(curve.at(config.task, n), CURVE_SEQUENCES)["bits_per_sequence"] for n in curve.values]
            for counted, curve in experiment.curves.items()
        }
        pages.save(path, {"test": score(config.task, TEST_SEQUENCES), "curves": curves})
    told: dict[str, Any] = json.loads(path.read_text())
    return told


def publish(name: str, record: dict[str, Any], results: Path) -> None:
    """Writes the record, and from all records the figures and, beside published results, the page."""
    with pages.locked(results):
        pages.save(results / f"suite-{name}.json", record)
        suite_figures.draw(results)
        if results == pages.RESULTS:
            pages.write()
    print("\n".join(suite_text.describe(record)), flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="TASK", help=f"{', '.join(ALL)} (none: the five tasks)")
    bound = parser.add_mutually_exclusive_group()
    bound.add_argument("--minutes", type=float, default=MINUTES, help=f"bound on every run ({MINUTES:g})")
    bound.add_argument(
        "--quick", action="store_true", help=f"a look: 5 s a run, one seed, results in {QUICK.relative_to(pages.ROOT)}"
    )
    given = parser.parse_args()
    if given.quick:
        given.minutes = QUICK_MINUTES
    if not 0 < given.minutes < math.inf:
        parser.error(f"--minutes must be a finite number above 0, got {given.minutes}")
    for name in given.names:
        if name not in ALL:
            parser.error(f"TASK must be one of {', '.join(ALL)}, got {name}")
    return given


def main() -> None:
    """The tasks named on the command line."""
    given = _arguments()
    # Before the first result is written: a result in a checkout of a commit makes the rest of it no other.
    commit = commit_now()
    for name in given.names or EXPERIMENTS:
        try:
            run(name, given.minutes, 1 if given.quick else None, QUICK if given.quick else pages.RESULTS, commit)
        except RunError as error:
            sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
