"""The command line: torchdnc train | eval | tasks | data | demo."""

import contextlib
import inspect
import io
import itertools
import json
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, cast

import tyro

from torchdnc.tasks import TASKS
from torchdnc.tasks.data import Status, babi_status, fetch_babi
from torchdnc.training import (
    Reporter,
    Result,
    RunConfig,
    RunError,
    demo,
    evaluate_run,
    find_recipe,
    load_recipe,
    recipe_names,
    resume,
    train,
)
from torchdnc.training.console import Lines, reporter, scores_table, seeds_table
from torchdnc.training.metrics import TensorBoard
from torchdnc.training.seeds import SEEDS, Reporters, SeedRun, resume_seeds, train_seeds

T = TypeVar("T")

# A recipe has chosen the kinds of task and model: their options are listed at once, not as subcommands.
CONFIG = (tyro.conf.AvoidSubcommands,)

TRAIN_HELP = """Train a model by a recipe, or go on with a run.

  torchdnc train RECIPE [--option value]   RECIPE is a name below or the path of a .toml file
  torchdnc train RECIPE --help             every option of that recipe, with its value
  torchdnc train --resume RUN              go on from the last checkpoint, also after a crash
  torchdnc train babi --data-dir DIR       short for --task.data-dir

examples:
  torchdnc train copy-demo
  torchdnc train copy --task.max-length 40 --model.memory-size 64 --seed 3 --out runs/long-copy
  torchdnc train copy-demo --seeds 5

recipes:
"""


class RefusedError(Exception):
    """A bad argument; its message is a sentence."""


@contextlib.contextmanager
def refusing(still: Callable[[], bool] = lambda: True) -> Iterator[None]:
    """Turn the errors of bad arguments into a refusal, while `still` says that they can be that."""
    try:
        yield
    except (ValueError, TypeError, FileNotFoundError) as error:
        if not still():
            raise
        raise RefusedError(str(error)) from error


def parse(kind: Callable[..., T], prog: str, arguments: Sequence[str], default: Any = None) -> T:
    """The arguments as a dataclass; raises RefusedError with tyro's complaint as one sentence."""
    given: dict[str, Any] = {} if default is None else {"default": default}
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return cast(T, tyro.cli(kind, prog=prog, args=arguments, config=CONFIG, **given))
    except SystemExit as end:
        if end.code in (0, None):
            raise
        raise RefusedError(f"{_sentence(complaint.getvalue())}; see {prog} --help") from end
    except ValueError as error:
        raise RefusedError(str(error)) from error


def _sentence(box: str) -> str:
    """The first paragraph below the title of tyro's message, which has a frame only if stdout is UTF-8."""
    lines = [line.strip("│ ") for line in box.splitlines()[1:]]
    paragraphs = itertools.groupby(lines, lambda line: line.strip("─-") != "")
    text = next((" ".join(words) for is_text, words in paragraphs if is_text), box).rstrip(".")
    # The checks of settings name the setting; tyro's prefix would name our own fields.
    return re.sub(r"^Error parsing [a-z]\S*: ", "", text)


@dataclass(frozen=True)
class TrainArguments:
    """Train a model by this recipe; an option given here replaces the recipe's."""

    config: Annotated[RunConfig, tyro.conf.arg(name="")]
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
    tensorboard: bool = False
    """Also write the metrics for TensorBoard."""


def train_command(arguments: list[str]) -> int:
    """Train a model by a recipe, or go on with a run."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(TRAIN_HELP + "\n".join(f"  {name:20}{_about(name)}" for name in recipe_names()))
        return 0 if arguments else 2
    if any(argument.partition("=")[0] == "--resume" for argument in arguments):
        return _resume(parse(ResumeArguments, "torchdnc train", arguments))
    name = arguments[0]
    if name.startswith("-"):
        raise RefusedError(f"the recipe must come first, got {name!r}; see torchdnc train --help")
    with refusing():
        path = find_recipe(name)
        recipe = load_recipe(path)
    options = [re.sub("^--data[-_]dir(?==|$)", "--task.data-dir", option) for option in arguments[1:]]
    given = parse(TrainArguments, f"torchdnc train {name}", options, TrainArguments(recipe))
    out = given.out or _fresh_folder(path.stem)
    if given.seeds is not None:
        count = given.seeds
        return _seeds(out, given.tensorboard, lambda make: train_seeds(given.config, out, count, make))
    console, reporters = _reporters(given.tensorboard)
    with refusing(lambda: not console.began):
        return _end(train(given.config, out, *reporters))


def _about(name: str) -> str:
    """The comment that a recipe begins with."""
    return find_recipe(name).read_text().partition("\n")[0].lstrip("# ")


def _fresh_folder(name: str) -> Path:
    stem = f"runs/{name}-{datetime.now():%Y%m%d-%H%M%S}"
    names = itertools.chain([stem], (f"{stem}-{count}" for count in itertools.count(2)))
    return next(path for path in map(Path, names) if not path.exists())


def _reporters(tensorboard: bool) -> tuple[Lines, list[Reporter]]:
    console = reporter()
    with refusing():
        return console, [console, TensorBoard()] if tensorboard else [console]


def _resume(given: ResumeArguments) -> int:
    if (given.resume / SEEDS).exists():
        if given.steps is not None or given.max_minutes is not None:
            raise RefusedError(
                f"--steps and --max-minutes cannot change while several seeds are resumed in {given.resume}"
            )
        return _seeds(given.resume, given.tensorboard, lambda make: resume_seeds(given.resume, make))
    console, reporters = _reporters(given.tensorboard)
    with refusing(lambda: not console.began):
        return _end(resume(given.resume, *reporters, steps=given.steps, max_minutes=given.max_minutes))


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


def _end(result: Result) -> int:
    """Say how a run can go on; returns the exit code."""
    if result.status in ("interrupted", "out of time"):
        print(f"go on with: torchdnc train --resume {result.run_dir}")
    return 0 if result.signal is None else 128 + result.signal


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


@dataclass(frozen=True)
class TasksArguments:
    """List the tasks, or show one of them with a sample.

    Example: torchdnc tasks copy
    """

    name: Annotated[str | None, tyro.conf.Positional] = None
    """A task."""


def tasks_command(arguments: list[str]) -> int:
    """List the tasks, or show one of them with a sample."""
    name = parse(TasksArguments, "torchdnc tasks", arguments).name
    if name is None:
        for task in TASKS.values():
            print(f"{task.name:20}{(task.__doc__ or '').partition(chr(10))[0]}")
        return 0
    if name not in TASKS:
        raise RefusedError(f"there is no task {name}: the tasks are {', '.join(TASKS)}")
    return _show_task(name)


def _show_task(name: str) -> int:
    task = TASKS[name]()
    print(inspect.getdoc(task))
    with refusing():
        print("\nA sample:\n\n" + task.render(task.sample(1, seed=0, step=0)))
    return 0


@dataclass(frozen=True)
class DemoArguments:
    """Train the copy task until it is solved, try it on longer sequences, and show the memory at work."""

    out: Path | None = None
    """Folder of the run (None: runs/copy-demo-DATE-TIME)."""


def demo_command(arguments: list[str]) -> int:
    """Train the copy task, try it on longer sequences, show the memory at work."""
    given = parse(DemoArguments, "torchdnc demo", arguments)
    out = given.out or _fresh_folder("copy-demo")
    console = reporter()
    with refusing(lambda: not console.began):
        result = train(load_recipe(find_recipe("copy-demo")), out, console)
    code = _end(result)
    if result.status != "solved":
        return code or 1
    print(f"\n{demo.show(out)}")
    return 0


@dataclass(frozen=True)
class DataArguments:
    """Find the data of a task, and download what is absent.

    Example: torchdnc data babi --data-dir ~/data
    """

    name: Annotated[Literal["babi"], tyro.conf.Positional]
    """Which data."""
    data_dir: Path | None = None
    """Where it is or shall be (None: $TORCHDNC_DATA, else torchdnc in the user's cache folder)."""
    download: bool = True
    """Download what is absent; --no-download only says what that is."""


def data_command(arguments: list[str]) -> int:
    """Find the data of a task, and download what is absent."""
    given = parse(DataArguments, "torchdnc data", arguments)
    status = babi_status(given.data_dir)
    if not status.complete:
        _print_data(status)
        if not given.download:
            return 1
        print("downloading", flush=True)
        fetch_babi(given.data_dir, progress=Percent())
        status = babi_status(given.data_dir)
    _print_data(status)
    return 0


def _print_data(status: Status) -> None:
    print(f"{len(status.present)} files in {status.folder}")
    for kind in ("absent", "altered"):
        for name in getattr(status, kind):
            print(f"{kind}: {name}")


class Percent:
    """Prints every tenth of a download."""

    tenth = 0

    def __call__(self, done: int, total: int | None) -> None:
        if total and 10 * done // total > self.tenth:
            self.tenth = 10 * done // total
            print(f"{10 * self.tenth}% of {total / 1e6:.1f} MB", flush=True)


COMMANDS = {
    "train": train_command,
    "eval": eval_command,
    "tasks": tasks_command,
    "data": data_command,
    "demo": demo_command,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0, 1 for a failed run, 2 for bad arguments, 128 + signal."""
    try:
        try:
            return _dispatch(list(sys.argv[1:] if arguments is None else arguments))
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read the output has seen enough; Python would fail again where it flushes the rest at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except RefusedError as error:
        return _fail(error, 2)
    except RunError as error:
        return _fail(error, 1)
    except OSError as error:
        return _fail(f"{error.filename}: {error.strerror}" if error.filename else error, 1)
    except KeyboardInterrupt:
        return _fail("interrupted; a run in training is saved as far as its last checkpoint", 130)


def _dispatch(arguments: list[str]) -> int:
    name = arguments[0] if arguments else None
    if name in (None, "-h", "--help"):
        print("The differentiable neural computer.\n\nusage: torchdnc COMMAND [-h] ...\n")
        print("\n".join(f"  {name:8}{command.__doc__}" for name, command in COMMANDS.items()))
        print("\n  torchdnc COMMAND --help tells more; torchdnc --version prints the version.")
        return 2 if name is None else 0
    if name == "--version":
        print(f"torchdnc {version('torchdnc')}")
        return 0
    if name not in COMMANDS:
        raise RefusedError(f"there is no command {name}: the commands are {', '.join(COMMANDS)}")
    return COMMANDS[name](arguments[1:])


def _fail(sentence: object, code: int) -> int:
    print(f"error: {sentence}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
