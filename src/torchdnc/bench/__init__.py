"""Measures the engines: time, memory, first call, scaling, and the distance to the machine's own limit."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch

from torchdnc.bench import figure, limit, memory, scaling, sparse, start, steps
from torchdnc.bench.plan import Found, Plan, Tell
from torchdnc.bench.record import environment, header, write
from torchdnc.bench.sizes import SEED, SIZES, dnc, sequence
from torchdnc.engines import select
from torchdnc.training.checkpoint import write_atomically


class Part(NamedTuple):
    """One kind of measurement: what it is, how many rounds a full and a quick run have, how it is done and told."""

    title: str
    rounds: int
    quick_rounds: int
    measure: Callable[[Plan, int, Tell], Found]
    lines: Callable[[Found], Iterator[str]]


PARTS = {
    "steps": Part("Time per step against the reference and nn.LSTM", 11, 3, steps.measure, steps.lines),
    "memory": Part("Memory that a training step takes", 3, 1, memory.measure, memory.lines),
    "start": Part("The first call, compiled or not", 3, 1, start.measure, start.lines),
    "scaling": Part("Time per step against every size", 5, 1, scaling.measure, scaling.lines),
    "sparse": Part("The sparse memory", 11, 3, sparse.measure, sparse.lines),
    "limit": Part("Where the time goes, and the machine's own limit", 11, 3, limit.measure, limit.lines),
}


def check() -> None:
    """Raises ValueError unless the fused engine can run here."""
    size = SIZES["S"]
    select("fused", dnc(size, "fused"), sequence(size))


def run(name: str, plan: Plan, tell: Tell, origin: Found | None = None) -> Found:
    """Measures one part.

    Args:
        name: of `PARTS`.
        plan: how to measure.
        tell: hears what is measured next.
        origin: the command, and `environment()` as it was at its start; None asks for it now.
    Returns:
        what was found, with what it depends on.
    Raises:
        ChildError: a process that was to measure something failed.
    """
    part = PARTS[name]
    rounds = plan.rounds or (part.quick_rounds if plan.quick else part.rounds)
    before, began = torch.get_num_threads(), time.monotonic()
    torch.set_num_threads(plan.threads)
    try:
        found = part.measure(plan, rounds, tell)
    finally:
        torch.set_num_threads(before)
    how = {"threads": plan.threads, "seed": SEED, "rounds": rounds, "quick": plan.quick}
    origin = origin or {"command": None, **environment()}
    return {"part": name, **origin, **how, "seconds": time.monotonic() - began, "found": found}


def save(record: Found, folder: Path) -> list[Path]:
    """Writes folder/PART.json, and the figure of a part that has one; returns what was written.

    Raises:
        DiskError: a file could not be written; older ones are intact.
    """
    path = folder / f"{record['part']}.json"
    write(path, record)
    if record["part"] != "scaling":
        return [path]
    picture = folder / "scaling.png"
    if figure.missing():
        # One that is there shows other numbers.
        picture.unlink(missing_ok=True)
        return [path]
    write_atomically(picture, figure.scaling(record["found"]))
    return [path, picture]


def describe(record: Found) -> str:
    """A record for a reader, as Markdown."""
    return "\n".join([header(record), "", *PARTS[record["part"]].lines(record["found"])])


__all__ = ["PARTS", "Part", "Plan", "Tell", "check", "describe", "environment", "run", "save"]
