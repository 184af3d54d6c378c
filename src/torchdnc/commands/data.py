"""torchdnc data."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from torchdnc.commands.parsing import parse
from torchdnc.tasks.data import Status, babi_status, fetch_babi


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
