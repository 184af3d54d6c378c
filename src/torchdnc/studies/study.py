"""What a study is, and what is written of it: NAME.json, NAME.png and NAME.md."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torchdnc.bench.text import prose
from torchdnc.training import Reporter, RunConfig
from torchdnc.training.checkpoint import write_atomically
from torchdnc.training.environment import commit, machine, versions
from torchdnc.training.figures import missing
from torchdnc.training.report import NonFiniteError
from torchdnc.training.seeds import SEEDS, read_seeds, resume_seeds, train_seeds

Found = dict[str, Any]
"""What a study measured, as it is written to its file."""


@dataclass(frozen=True)
class Plan:
    """How to go about it: quick, a look in a minute; runs: the folder of the trainings; reporters hear of these."""

    runs: Path
    quick: bool = False
    reporters: Sequence[Reporter] = ()
    tell: Callable[[str], None] = field(default=lambda text: None)
    """Hears what is done next."""


@dataclass(frozen=True)
class Study:
    """A question and how it is answered.

    question: one line; measure: does it; figure: draws what was found, as PNG; answer: says it in a paragraph; lines:
    the tables and limits behind it, in Markdown.
    """

    question: str
    measure: Callable[[Plan], Found]
    figure: Callable[[Found], bytes]
    answer: Callable[[Found], str]
    lines: Callable[[Found], Iterator[str]]


def run(name: str, study: Study, plan: Plan, command: str) -> Found:
    """Does a study; returns its record.

    Raises:
        KeyboardInterrupt: a training was interrupted; the same goes on with it.
        ValueError: the folder of its runs holds those of other settings.
    """
    # Before a result is written: a result in a checkout makes the rest of it no other.
    origin = {"commit": commit(), "machine": machine(), "versions": versions()}
    return {"study": name, "command": command, **origin, "quick": plan.quick, "found": study.measure(plan)}


def save(record: Found, study: Study, results: Path, pages: Path) -> list[Path]:
    """Writes results/NAME.json, pages/NAME.png and pages/NAME.md; returns what was written.

    Raises:
        DiskError: a file could not be written; older ones are intact.
    """
    # First what cannot be drawn anew.
    path = results / f"{record['study']}.json"
    _write(path, json.dumps(record, indent=2).encode() + b"\n")
    return [path, *save_page(record, study, pages)]


def save_page(record: Found, study: Study, pages: Path) -> list[Path]:
    """Writes pages/NAME.png, where it can be drawn, and pages/NAME.md; returns what was written."""
    name, drawn = record["study"], missing() is None
    written = {pages / f"{name}.png": study.figure(record["found"])} if drawn else {}
    written[pages / f"{name}.md"] = page(record, study, drawn).encode()
    for path, data in written.items():
        _write(path, data)
    return [*written]


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, data)


def page(record: Found, study: Study, drawn: bool) -> str:
    """The page of a study: the question, the answer, the figure, the tables, the command."""
    name, found, of = record["study"], record["found"], record["versions"]
    told = ", ".join(f"{package} {of[package]}" for package in ("torch", "numba", "python"))
    lines = [f"# {study.question}", "", prose(study.answer(found)), ""]
    lines += [f"![What the tables below say]({name}.png)", ""] if drawn else []
    lines += [*study.lines(found), ""]
    lines += [prose(f"`{record['command']}`, commit {record['commit']}; {record['machine']}, {told}.")]
    lines += ["A quick look: too little training for a record."] if record["quick"] else []
    return "\n".join(lines) + "\n"


def trained(plan: Plan, name: str, config: RunConfig, seeds: int) -> list[Path]:
    """The folders of a training's seeds, trained here or before; those whose loss was no number are left out.

    Raises:
        KeyboardInterrupt: one was interrupted; the same call goes on with it.
        ValueError: the folder holds runs of other settings.
        NonFiniteError: of all seeds.
    """
    folder = plan.runs / name
    if (folder / SEEDS).exists():
        before, count, _ = read_seeds(folder)
        if (before, count) != (config, seeds):
            raise ValueError(f"{folder} holds runs of other settings: remove it to train anew")
        runs, interrupted = resume_seeds(folder, lambda _: plan.reporters)
    else:
        runs, interrupted = train_seeds(config, folder, seeds, lambda _: plan.reporters)
    if interrupted is not None:
        raise KeyboardInterrupt
    ended = [folder / f"seed-{each.seed}" for each in runs if each.status != "failed"]
    if not ended:
        raise NonFiniteError(f"no run in {folder} ended: their losses were no longer numbers")
    return ended
