"""torchdnc train."""

import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Annotated

import tyro

from torchdnc.checks import check_choice
from torchdnc.commands.parsing import RefusedError, parse, refusing
from torchdnc.training import (
    MODELS,
    Reporter,
    Result,
    RunConfig,
    find_recipe,
    follow,
    follows,
    joined,
    load_recipe,
    recipe_names,
    resume,
    train,
)
from torchdnc.training.console import Lines, reporter, seeds_table
from torchdnc.training.matching import matched, of_kind, parameters_named
from torchdnc.training.metrics import TensorBoard
from torchdnc.training.seeds import SEEDS, Reporters, SeedRun, resume_seeds, train_seeds

TRAIN_HELP = """Train a model by a recipe, or go on with a run.

  torchdnc train RECIPE [--option value]   RECIPE is a name below or the path of a .toml file
  torchdnc train RECIPE --help             every option of that recipe, with its value
  torchdnc train --resume RUN              go on from the last checkpoint, also after a crash
  torchdnc train babi-dnc --data-dir DIR   short for --task.data-dir
  torchdnc train copy --model lstm         another kind of model: dnc, ntm, lstm or super-lstm
  torchdnc train RECIPE --processes 2      two processes share every batch; the weights are one's, to rounding

The same run across machines, on each of them (torchrun --help):
  torchrun --nnodes 2 --nproc-per-node 4 --rdzv-backend c10d --rdzv-endpoint HOST:29400 \\
    -m torchdnc.cli train RECIPE --out RUN

examples:
  torchdnc train copy-demo
  torchdnc train copy --task.max-length 40 --model.memory-size 64 --seed 3 --out runs/long-copy
  torchdnc train copy-demo --seeds 5
  torchdnc train copy --model lstm --match-parameters copy

recipes:
"""


@dataclass(frozen=True)
class TrainArguments:
    """Train a model by this recipe; an option given here replaces the recipe's."""

    config: Annotated[RunConfig, tyro.conf.arg(name="")]
    model: str | None = None
    """Kind of model: dnc, ntm, lstm or super-lstm. Settings that it has in common with the recipe's model stay, the
    rest are its kind's own (None: the recipe's)."""
    match_parameters: str | None = None
    """Choose the hidden size so that the model has about as many parameters as this: a number, or a run's folder or
    a recipe, whose model is counted on this task (None: the hidden size as given)."""
    out: Path | None = None
    """Folder of the run (None: runs/RECIPE-DATE-TIME)."""
    seeds: int | None = None
    """Train so many seeds, one after another, from --seed on."""
    tensorboard: bool = False
    """Also write the metrics for TensorBoard."""


@dataclass(frozen=True)
class ResumeArguments:
    """Go on with a run, or with a folder of several seeds, from its last checkpoint."""

    resume: Path
    """Folder of the run."""
    steps: int | None = None
    """New number of updates at most (None: as before)."""
    max_minutes: float | None = None
    """New limit of time (None: as before)."""
    processes: int | None = None
    """New number of processes that share every batch (None: as before)."""
    tensorboard: bool = False
    """Also write the metrics for TensorBoard."""


def train_command(arguments: list[str]) -> int:
    """Train a model by a recipe, or go on with a run."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(TRAIN_HELP + "\n".join(f"  {name:20}{_about(name)}" for name in recipe_names()))
        return 0 if arguments else 2
    if follows() and not {"-h", "--help"} & set(arguments):
        with refusing(), joined() as group:
            return exit_code(follow(group))
    if any(argument.partition("=")[0] == "--resume" for argument in arguments):
        return _resume(parse(ResumeArguments, "torchdnc train", arguments))
    name = arguments[0]
    if name.startswith("-"):
        raise RefusedError(f"the recipe must come first, got {name!r}; see torchdnc train --help")
    with refusing():
        path = find_recipe(name)
        recipe = _with_model(load_recipe(path), arguments[1:])
    options = [re.sub("^--data[-_]dir(?==|$)", "--task.data-dir", option) for option in arguments[1:]]
    given = parse(TrainArguments, f"torchdnc train {name}", options, TrainArguments(recipe))
    config = _matched(given, options)
    out = given.out or fresh_folder(path.stem)
    if given.seeds is not None:
        count = given.seeds
        return _seeds(out, given.tensorboard, lambda make: train_seeds(config, out, count, make))
    console, reporters = _reporters(given.tensorboard)
    with refusing(lambda: not console.began):
        return end(train(config, out, *reporters))


def _with_model(recipe: RunConfig, options: list[str]) -> RunConfig:
    """The recipe with the kind of model that the options ask for, which decides what other options there are."""
    words = [word for option in options for word in re.sub("^--model=", "--model\n", option).split("\n")]
    kinds = [kind for option, kind in itertools.pairwise(words) if option == "--model"]
    if not kinds or kinds[-1] == "None":
        return recipe
    check_choice("model", kinds[-1], MODELS)
    return replace(recipe, model=of_kind(recipe.model, kinds[-1]))


def _matched(given: TrainArguments, options: list[str]) -> RunConfig:
    """The run, with its model sized where that is asked for."""
    config = given.config
    if given.match_parameters is None:
        return config
    if any(re.match("--model.hidden[-_]size(=|$)", option) for option in options):
        raise RefusedError("--match-parameters chooses the hidden size: --model.hidden-size cannot be given too")
    with refusing():
        spec = config.task.resolved().spec
        return replace(config, model=matched(config.model, spec, parameters_named(given.match_parameters, spec)))


def _about(name: str) -> str:
    """The comment that a recipe begins with."""
    return find_recipe(name).read_text().partition("\n")[0].lstrip("# ")


def fresh_folder(name: str) -> Path:
    stem = f"runs/{name}-{datetime.now():%Y%m%d-%H%M%S}"
    names = itertools.chain([stem], (f"{stem}-{count}" for count in itertools.count(2)))
    return next(path for path in map(Path, names) if not path.exists())


def _reporters(tensorboard: bool) -> tuple[Lines, list[Reporter]]:
    console = reporter()
    with refusing():
        return console, [console, TensorBoard()] if tensorboard else [console]


def _resume(given: ResumeArguments) -> int:
    if (given.resume / SEEDS).exists():
        if any(value is not None for value in (given.steps, given.max_minutes, given.processes)):
            raise RefusedError(
                "--steps, --max-minutes and --processes cannot change while several seeds are resumed "
                f"in {given.resume}"
            )
        return _seeds(given.resume, given.tensorboard, lambda make: resume_seeds(given.resume, make))
    console, reporters = _reporters(given.tensorboard)
    with refusing(lambda: not console.began):
        return end(
            resume(
                given.resume,
                *reporters,
                steps=given.steps,
                max_minutes=given.max_minutes,
                processes=given.processes,
            )
        )


def _seeds(out: Path, tensorboard: bool, run: Callable[[Reporters], tuple[list[SeedRun], Result | None]]) -> int:
    consoles: list[Lines] = []

    def make(config: RunConfig) -> list[Reporter]:
        console, reporters = _reporters(tensorboard)
        consoles.append(console)
        return reporters

    with refusing(lambda: not any(console.began for console in consoles)):
        runs, interrupted = run(make)
    print(seeds_table(runs))
    if interrupted is not None:
        print(f"go on with: torchdnc train --resume {out}")
        return 128 + (interrupted.signal or 0)
    print(f"saved in {out}, summary in {out / SEEDS}")
    return 1 if any(ended.status == "failed" for ended in runs) else 0


def end(result: Result) -> int:
    """Say how a run can go on; returns the exit code."""
    if result.status in ("interrupted", "out of time"):
        print(f"go on with: torchdnc train --resume {result.run_dir}")
    return exit_code(result)


def exit_code(result: Result) -> int:
    return 0 if result.signal is None else 128 + result.signal
