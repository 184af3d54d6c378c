"""torchdnc demo."""

from dataclasses import dataclass
from pathlib import Path

from torchdnc.commands.parsing import parse, refusing
from torchdnc.commands.train import end, fresh_folder
from torchdnc.training import demo, find_recipe, load_recipe, train
from torchdnc.training.console import reporter


@dataclass(frozen=True)
class DemoArguments:
    """Train the copy task until it is solved, try it on longer sequences, and show the memory at work."""

    out: Path | None = None
    """Folder of the run (None: runs/copy-demo-DATE-TIME)."""


def demo_command(arguments: list[str]) -> int:
    """Train the copy task, try it on longer sequences, show the memory at work."""
    given = parse(DemoArguments, "torchdnc demo", arguments)
    out = given.out or fresh_folder("copy-demo")
    console = reporter()
    with refusing(lambda: not console.began):
        result = train(load_recipe(find_recipe("copy-demo")), out, console)
    code = end(result)
    if result.status != "solved":
        return code or 1
    print(f"\n{demo.show(out)}")
    return 0
