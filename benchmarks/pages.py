"""docs/results.md and docs/studies, written from results/*.json and results/studies: python benchmarks/pages.py."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import babi_figure
import babi_text
import suite_figures
import suite_text
import why_text

from torchdnc import studies
from torchdnc.bench import PARTS, describe
from torchdnc.studies import STUDIES
from torchdnc.training.checkpoint import write_atomically

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results"
PAGE = ROOT / "docs" / "results.md"

HEAD = """# Results

Written by `python benchmarks/pages.py` from `results/*.json`, each of which the command named with it made.

## Training

A seed is "solved" when its validation score reached the recipe's goal; scores are on test sequences, which no
run was chosen by. A seed "failed" when its loss was no longer a number.
"""
SOAK = """## Both engines on calls drawn at random
"""
STREAM = """## A million steps through a sparse memory
"""
SPEED = """## Speed

Of the fused engine, on one machine; on another, `torchdnc bench` says what it is there.
"""
NONE = "–"
SCORES = {
    "wrong_bits": ("wrong bits, %", 100),
    "wrong_bits_per_sequence": ("wrong bits per sequence", 1),
    "perfect": ("perfect sequences, %", 100),
    "mean_error": ("mean error, %", 100),
    "failed_tasks": ("failed tasks", 1),
}
"""Score -> its name in a table and its unit's factor; errors of single bAbI tasks follow by themselves."""


def publish(name: str, record: dict[str, Any]) -> None:
    """Writes results/NAME.json, then the page from all of them."""
    with locked(RESULTS):
        save(RESULTS / f"{name}.json", record)
        if babi_text.is_joint(record):
            babi_figure.draw(RESULTS)
        write()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Makes the folder and waits until nobody else publishes in it."""
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def save(path: Path, record: dict[str, Any]) -> None:
    """Writes a record."""
    write_atomically(path, json.dumps(record, indent=2).encode() + b"\n")


def write() -> None:
    """Writes the page."""
    learned, joint, compared, measured, soaked, streamed = {}, {}, {}, {}, [], []
    for path in sorted(RESULTS.glob("*.json")):
        record = json.loads(path.read_text())
        if record.get("part") in PARTS:
            measured[record["part"]] = _speed(record)
        elif "mismatches" in record:
            soaked = [SOAK, *_soak(record)]
        elif "stream" in record:
            streamed = [STREAM, *_stream(record)]
        elif "suite" in record:
            compared[record["suite"]] = "\n".join(suite_text.describe(record))
        elif "recipe" in record and babi_text.is_joint(record):
            joint[path.stem] = record
        elif "recipe" in record:
            learned[path.stem] = "\n".join(_learning(path.stem, record))
        else:
            raise ValueError(f"{path} must be written by torchdnc bench or a script in benchmarks, and is by none")
    speed = [measured[part] for part in PARTS if part in measured]
    babi = babi_text.describe(joint, _shown(RESULTS / babi_figure.NAME, babi_figure.TITLE))
    sections = [
        HEAD,
        *learned.values(),
        *babi,
        *_suite(compared),
        *soaked,
        *streamed,
        *([SPEED] if speed else []),
        *speed,
    ]
    write_atomically(PAGE, "\n".join(sections).encode())


def write_studies() -> None:
    """Writes the pages and figures of the studies, and the page that ties them together."""
    records = {path.stem: json.loads(path.read_text()) for path in sorted((RESULTS / "studies").glob("*.json"))}
    for name, record in records.items():
        studies.save_page(record, STUDIES[name], PAGE.parent / "studies")
    write_atomically(PAGE.parent / "why-it-scales.md", "\n".join(why_text.describe(records)).encode())


def _suite(compared: dict[str, str]) -> Iterator[str]:
    """The sections of benchmarks/suite.py, with its figures; the rates that it took come last."""
    if compared:
        yield suite_text.HEAD
        yield from (_shown(RESULTS / name, title) for name, title in suite_figures.TITLES.items())
        yield from (compared[name] for name in sorted(compared, key=lambda name: (name == "rates", name)))


def _learning(name: str, record: dict[str, Any]) -> Iterator[str]:
    where = record["environment"]
    yield f"### {name}\n"
    yield f"`{record['command']}`, commit {record['commit']}; {where['machine']}, {where['threads']} thread(s),"
    yield f"torch {where['torch']}, engine {where['engine']}. {_goal(record)}\n"
    yield from (f"{note}\n" for note in record.get("notes", []))
    columns = _columns(record)
    yield _row("seed", "ended", "steps", "seconds", *(_title(test, score) for test, score in columns))
    yield _row(*["---"] * (4 + len(columns)))
    for run in record["runs"]:
        yield _row(*_outcome(run), *(_value(run, *column) for column in columns))
    solved = sum(run["status"] == "solved" for run in record["runs"])
    yield f"\nSolved: {solved} of {len(record['runs'])}{_in_seconds(record)}.\n" if record["recipe"]["goal"] else ""


def _in_seconds(record: dict[str, Any]) -> str:
    """How long the solved ones took, if the record tells."""
    took = record.get("seconds_to_solve")
    return f", in {took['least']:.1f} to {took['most']:.1f} s, median {took['median']:.1f} s" if took else ""


def _columns(record: dict[str, Any]) -> list[tuple[str, str]]:
    """Tests and their scores, of whichever seeds have them."""
    goal = record["recipe"]["goal"]
    wanted = {"perfect", "mean_error", "failed_tasks", *([goal["metric"]] if goal else [])}
    scored = ((test, score) for run in record["runs"] for test, scores in run["tests"].items() for score in scores)
    return list(dict.fromkeys((test, score) for test, score in scored if score in wanted or score.startswith("error/")))


def _outcome(run: dict[str, Any]) -> tuple[object, ...]:
    if run["status"] == "failed":
        return run["seed"], run["status"], NONE, NONE
    return run["seed"], run["status"], run["step"], f"{run['seconds']:.0f}"


def _goal(record: dict[str, Any]) -> str:
    goal = record["recipe"]["goal"]
    return f"Goal: {goal['metric']} at most {goal['at_most']}." if goal else "Without a goal: as long as it was let."


def _title(test: str, score: str) -> str:
    label = SCORES[score][0] if score in SCORES else f"{score.removeprefix('error/')}, %"
    return label if test == "test" else f"{label}, {test}"


def _value(run: dict[str, Any], test: str, score: str) -> str:
    value = run["tests"].get(test, {}).get(score)
    return NONE if value is None else f"{value * SCORES.get(score, ('', 100))[1]:.4g}"


def _soak(record: dict[str, Any]) -> Iterator[str]:
    """What benchmarks/soak.py found."""
    torch, allowed = record["versions"]["torch"], record["allowed"]
    yield f"`{record['command']}`, commit {record['commit']}; {record['machine']}, torch {torch}.\n"
    yield f"{record['cases']} calls of sizes, options, states and weights drawn at random, on the fused engine and on"
    yield f"the reference, in {record['seconds'] / 60:.0f} minutes: {len(record['mismatches'])} mismatches. Outputs,"
    yield "final states and all gradients are compared; allowed is an error of"
    yield f"{allowed['float64']:g} in float64 and in float32 of {allowed['float32']}.\n"
    yield from (f"- mismatch: `python benchmarks/soak.py --case {found['case']}`" for found in record["mismatches"])


def _stream(record: dict[str, Any]) -> Iterator[str]:
    """What benchmarks/stream.py found."""
    found, torch = record["stream"], record["versions"]["torch"]
    resident = found["resident MiB"]
    yield f"`{record['command']}`, commit {record['commit']}; {record['machine']}, torch {torch}.\n"
    apart = found["largest difference from dense tensors"]
    yield f"{found['steps']:,} steps through {found['slots']:,} slots in RAM and in files, without gradients, in"
    yield f"float64: at {found['steps that differ on disk']} steps the two differ. From dense tensors, which now and"
    yield f"then took some steps from the same state, outputs differ by up to {apart:.1e}. The process held"
    yield f"{resident['after a tenth']:.0f} MiB after a tenth of the steps, {resident['at the end']:.0f} at the end,"
    yield f"and after no call more than {resident['most']:.0f}.\n"


def _speed(record: dict[str, Any]) -> str:
    part = record["part"]
    return f"### {PARTS[part].title}\n\n{describe(record)}\n\n{_shown(RESULTS / f'{part}.png', PARTS[part].title)}"


def _shown(figure: Path, title: str) -> str:
    """A figure, if it was drawn."""
    return f"![{title}]({os.path.relpath(figure, PAGE.parent)})\n\n" if figure.exists() else ""


def _row(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"


if __name__ == "__main__":
    write()
    write_studies()
