"""torchdnc bench."""

import os
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro

from torchdnc import bench
from torchdnc.bench import PARTS, Plan, figure
from torchdnc.commands.parsing import RefusedError, parse, refusing
from torchdnc.training.console import clock

BUSY = 0.5
"""Load from which on a measurement is not to be trusted."""
RESULTS, QUICK_RESULTS = Path("results"), Path("runs/bench")


@dataclass(frozen=True)
class BenchArguments:
    """Measure the fused engine on this machine, against the reference engine and nn.LSTM.

    The parts, each with a file of its own:
      steps    time per step of training and of the outputs alone, at three sizes
      memory   how far a training step makes a process grow
      start    the first call of a process, with and without compiled code at hand
      scaling  time per step against slots, word size, heads, batch and length, with a figure
      sparse   time and memory of the sparse memory, up to a million slots
      limit    where the time goes, and how far it is from what this machine could do

    A part's table is printed and its file written as soon as it is done. Times want a machine with nothing else to do.
    A full run takes some ten minutes, a quick one a minute or two.

    For example:
      torchdnc bench --quick
      torchdnc bench steps memory --threads 1
    """

    parts: Annotated[
        tuple[Literal["steps", "memory", "start", "scaling", "sparse", "limit"], ...], tyro.conf.Positional
    ] = ()
    """What to measure (none: all)."""
    quick: bool = False
    """A look in a minute or two: few rounds, smaller sizes in scaling and limit, no written million in sparse."""
    out: Path | None = None
    """Folder of the files, replaced where they exist (None: results, or runs/bench with --quick)."""
    threads: int | None = None
    """Threads of PyTorch and of the kernels (None: as PyTorch chooses)."""
    rounds: int | None = None
    """Rounds that a median is taken of (None: each part's own number)."""


def bench_command(arguments: list[str]) -> int:
    """Measure the fused engine: time, memory, first call, scaling, the machine's limit."""
    given = parse(BenchArguments, "torchdnc bench", arguments)
    with refusing():
        threads = torch.get_num_threads() if given.threads is None else given.threads
        plan = Plan(given.quick, threads, given.rounds)
        bench.check()
    out = _folder(given.out or (QUICK_RESULTS if given.quick else RESULTS))
    names: list[str] = list(dict.fromkeys(given.parts or PARTS))
    # Before the first file is written: a result in a checkout makes the rest of it no other.
    origin = {"command": shlex.join(["torchdnc", "bench", *arguments]), **bench.environment()}
    for note in _notes(names, origin["load"]):
        print(f"note: {note}", file=sys.stderr)
    done: list[str] = []
    try:
        _measure(names, plan, out, origin, done)
    except KeyboardInterrupt:
        again = _command(names[len(done) :], given)
        print(f"interrupted; {_finished(done, out)}; go on with: {again}", file=sys.stderr)
        return 130
    return 0


def _folder(out: Path) -> Path:
    """The folder, made before anything is measured."""
    if out.exists() and not out.is_dir():
        raise RefusedError(f"out must be a folder, got the file {out}")
    with suppress(OSError):
        out.mkdir(parents=True, exist_ok=True)
    if not os.access(out, os.W_OK):
        raise RefusedError(f"out must be a folder that can be written to, got {out}")
    return out


def _notes(names: list[str], load: float) -> Iterator[str]:
    """What the user should know before it begins."""
    if load > BUSY:
        yield f"the machine is busy (load {load:.1f}): times will be too long, on several threads far too long"
    if "scaling" in names and (reason := figure.missing()):
        yield reason


def _measure(names: list[str], plan: Plan, out: Path, origin: dict[str, Any], done: list[str]) -> None:
    """Measures, prints and writes part after part, and notes which are done."""
    for name in names:
        record = bench.run(name, plan, _teller(name), origin)
        for path in bench.save(record, out):
            print(f"{name}: written to {path}", file=sys.stderr)
        done.append(name)
        print(f"{PARTS[name].title}\n\n{bench.describe(record)}\n", flush=True)


def _teller(part: str) -> bench.Tell:
    """Prints what is measured next, with the time since the part began."""
    began = time.monotonic()

    def tell(text: str) -> None:
        print(f"{part} {clock(time.monotonic() - began)}  {text}", file=sys.stderr, flush=True)

    return tell


def _command(names: list[str], given: BenchArguments) -> str:
    """The command for these parts, with the options that were given."""
    options = {"--out": given.out, "--threads": given.threads, "--rounds": given.rounds}
    words = [word for name, value in options.items() if value is not None for word in (name, str(value))]
    return shlex.join(["torchdnc", "bench", *names, *["--quick"] * given.quick, *words])


def _finished(done: list[str], out: Path) -> str:
    return f"{', '.join(done)} in {out}" if done else "no part was finished"
