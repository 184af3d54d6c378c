"""torchdnc tasks."""

import inspect
from dataclasses import dataclass
from typing import Annotated

import tyro

from torchdnc.commands.parsing import RefusedError, parse, refusing
from torchdnc.tasks import TASKS


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
