"""torchdnc study."""

import shlex
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from torchdnc import studies
from torchdnc.commands.parsing import parse, refusing
from torchdnc.studies import STUDIES, Plan
from torchdnc.training.console import Lines, clock
from torchdnc.training.figures import missing


@dataclass(frozen=True)
class StudyArguments:
    """Answer a question about the memory: train models, measure them, draw a figure and write a page.

    The studies:
      retention  how long is what was stored remembered: items recalled after more and more noise, the gates meanwhile
      addresses  does the controller drown in addresses: items recalled as slots and controller grow, linear probes
      links      are the temporal links worth it: copy and keyed recall with dense, few and no links, without a memory
      full       what happens when the memory is full: items from a quarter to four times the slots, under every policy
      reuse      are slots used again: five times as many vectors as slots, the gates step by step
      resize     does a trained memory work at another size: a tenth to a hundred times the slots
      scale      what time and memory cost as the memory grows: LSTM, NTM, DNC, SAM, SDNC against N, T and B

    A study writes results/studies/NAME.json, docs/studies/NAME.png and docs/studies/NAME.md. Its trainings are kept in
    runs/studies/NAME and gone on with where they stopped, by the same command; to train anew, remove that folder.

    For example:
      torchdnc study full --quick
      torchdnc study full
    """

    names: Annotated[
        tuple[Literal["retention", "addresses", "links", "full", "reuse", "resize", "scale"], ...], tyro.conf.Positional
    ] = ()
    """Which studies (none: all)."""
    quick: bool = False
    """A look in a minute: too little training for an answer."""
    out: Path | None = None
    """One folder for all that is written (None: as above, or runs/studies/quick with --quick)."""


def study_command(arguments: list[str]) -> int:
    """Answer a question about the memory with trainings, a figure and a page."""
    given = parse(StudyArguments, "torchdnc study", arguments)
    out = given.out or (Path("runs/studies/quick") if given.quick else None)
    results, pages = (out, out) if out else (Path("results/studies"), Path("docs/studies"))
    if reason := missing():
        print(f"note: {reason}", file=sys.stderr)
    command = shlex.join(["torchdnc", "study", *arguments])
    for name in dict.fromkeys(given.names or STUDIES):
        _one(name, given.quick, results, pages, command)
    return 0


def _one(name: str, quick: bool, results: Path, pages: Path, command: str) -> None:
    began = time.monotonic()

    def tell(text: str) -> None:
        print(f"{name} {clock(time.monotonic() - began)}  {text}", file=sys.stderr, flush=True)

    runs = Path("runs/studies") / (f"{name}-quick" if quick else name)
    study, plan = STUDIES[name], Plan(runs, quick, (Lines(),), tell)
    with refusing():
        record = studies.run(name, study, plan, command)
    for path in studies.save(record, study, results, pages):
        tell(f"written to {path}")
    print(f"{study.question}\n\n{study.answer(record['found'])}", flush=True)
