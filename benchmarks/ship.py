"""Puts the trained weights of a study on bAbI into models/, with a model card: python benchmarks/ship.py babi-biadnc.

Of the runs in runs/results/NAME it takes the one with the least validation error, and its scores from
results/NAME.json, both of which `python benchmarks/learning.py NAME` has made.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import learning
import pages

from torchdnc.bench.text import prose, table
from torchdnc.tasks import BAbI
from torchdnc.tasks.babi.task import FAILED_ABOVE
from torchdnc.training import RunConfig, load_run
from torchdnc.training.checkpoint import WEIGHTS, write_atomically
from torchdnc.training.folder import CONFIG
from torchdnc.training.plain import to_toml
from torchdnc.training.seeds import SeedRun, read_seeds

MODELS = pages.ROOT / "models"
CARD = "README.md"


def ship(name: str) -> Path:
    """Writes config.json, model.safetensors and README.md into models/NAME; raises ValueError if anything is amiss."""
    path = pages.RESULTS / f"{name}.json"
    if not path.is_file():
        raise ValueError(f"there is no {path}: `python benchmarks/learning.py {name}` writes it")
    record = json.loads(path.read_text())
    config, _, runs = read_seeds(learning.RUNS / name)
    if not isinstance(config.task, BAbI):
        raise ValueError(f"NAME must be a study of bAbI, got {name}, which is one of {config.task.name}")
    best = best_of(runs)
    told = [run for run in record["runs"] if (run["seed"], run["step"]) == (best.seed, best.step)]
    if not told:
        raise ValueError(f"{path} is not of the runs in {learning.RUNS / name}: the command in it writes it anew")
    source, target = learning.RUNS / name / f"seed-{best.seed}", MODELS / name
    target.mkdir(parents=True, exist_ok=True)
    write_atomically(target / WEIGHTS, (source / WEIGHTS).read_bytes())
    write_atomically(target / CONFIG, _without_places(source / CONFIG, record["notes"]))
    # Weights that do not fit get no card.
    shipped, _ = load_run(target)
    write_atomically(target / CARD, card(name, shipped, record, told[0]).encode())
    return target


def best_of(runs: list[SeedRun]) -> SeedRun:
    """The run with the least validation error; raises ValueError if there is none with any."""
    scored = [(run.scores["mean_error"], run.seed, run) for run in runs if run.scores]
    if not scored:
        raise ValueError("there must be a run that ended and was evaluated, and there is none")
    return min(scored)[2]


def _without_places(path: Path, notes: list[str]) -> bytes:
    """A run's config.json for another machine: it looks for the data where that keeps it."""
    data = json.loads(path.read_text())
    data["config"]["task"]["data_dir"] = None
    data["notes"] = notes
    return json.dumps(data, indent=2).encode() + b"\n"


def card(name: str, config: RunConfig, record: dict[str, Any], run: dict[str, Any]) -> str:
    """The model card."""
    test = run["tests"]["test"]
    tasks = [score.removeprefix("error/task ") for score in test if score.startswith("error/task ")]
    failed = [task for task in tasks if test[f"error/task {task}"] > FAILED_ABOVE]
    return CARD_TEXT.format(
        name=name,
        which="all 20 tasks" if len(tasks) == 20 else f"task {', '.join(tasks)}",
        model=prose(_model(config)),
        settings=to_toml(_settings(config)),
        training=prose(_training(record, run)),
        notes="".join(f"\n{prose(f'{note[:1].upper()}{note[1:]}')}\n" for note in record["notes"]),
        errors=table(["task", "wrong, %"], _rows(test, tasks)),
        failed=prose(
            f"Above {FAILED_ABOVE:.0%} wrong, where papers say that a task failed: {', '.join(failed) or 'none'}. "
            f"On validation it was {_percent(run['scores']['mean_error'])}% at the last look."
        ),
        words=config.task.spec.input_size,
    )


def _model(config: RunConfig) -> str:
    return (
        f"A model of kind `{config.model.name}` with {config.model.count_parameters(config.task.spec):,} parameters, "
        "which reads a story word by word, one-hot, and answers with words that it knows wherever the story asks. Its "
        "settings and those of its training:"
    )


def _settings(config: RunConfig) -> dict[str, Any]:
    """What tells how it was built and trained; the words it knows are in config.json."""
    data = config.to_dict()
    named = {name: value for name, value in data["task"].items() if value not in ([], None) and name != "vocabulary"}
    return data | {"task": named}


def _training(record: dict[str, Any], run: dict[str, Any]) -> str:
    where, planned = record["environment"], record["recipe"]["steps"]
    chosen = f" Of {len(record['runs'])} seeds it is the best on validation." if len(record["runs"]) > 1 else ""
    return (
        f"`{record['command']}`, commit {record['commit']}: seed {run['seed']}, {run['step']:,} of {planned:,} steps "
        f"({run['status']}) in {run['seconds'] / 3600:.2f} hours on {where['machine']}, {where.get('processes', 1)} "
        f"process(es) of {where['threads']} thread(s), torch {where['torch']}. The weights are those of the last step."
        f"{chosen}"
    )


def _rows(test: dict[str, float], tasks: list[str]) -> list[list[str]]:
    rows = [[task, _percent(test[f"error/task {task}"])] for task in tasks]
    return [*rows, ["mean", _percent(test["mean_error"])], ["failed tasks", f"{test['failed_tasks']:.0f}"]]


def _percent(share: float) -> str:
    return f"{100 * share:.2f}"


CARD_TEXT = """# {name}

Answers questions about short stories: a network trained with torchdnc on {which} of bAbI (Weston et al. 2015)
jointly. Written by `python benchmarks/ship.py {name}`.

## Use it

```
torchdnc ask models/{name}  # tell it a story and ask, or name a file of one
torchdnc data babi  # finds the data, or downloads and verifies it
torchdnc eval models/{name}  # the errors below, in minutes
```

In Python, from the root of the repository:

```python
from torchdnc.training import load_run

config, model = load_run("models/{name}")  # the settings of its run, and the module in evaluation mode
```

## What it is

{model}

```toml
{settings}
```

## How it was trained

{training}

The data is bAbI v1.2, edition en-10k, copyright Facebook, Inc., under the Creative Commons Attribution 3.0 Unported
licence; the stories of en-valid-10k are for validation and taken out of those of training.
{notes}
## How well it does

Wrong answers to the test questions, 1,000 for each task:

{errors}

{failed}
[Results](../../docs/results.md) has what the papers report.

## What it cannot do

It knows {words} words, `.`, `?` and `-` among them, and refuses a text with others. It has seen stories of bAbI's
making alone and is of no use on other text. It always answers, also where the story does not tell; its probabilities
were never checked against how often it is right. The shares that `ask` prints are what the read heads looked at, which
need not be why it answered so.

The weights are under the licence of this repository, Apache-2.0.
"""


def main() -> None:
    """The study named on the command line."""
    names = [name for name, study in learning.STUDIES.items() if study.recipe.startswith("babi")]
    if len(sys.argv) != 2 or sys.argv[1] not in names:
        print(f"NAME must be one of {', '.join(names)}, got {' '.join(sys.argv[1:]) or 'nothing'}", file=sys.stderr)
        sys.exit(2)
    try:
        print(ship(sys.argv[1]))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
