"""docs/results.md, written from results/*.json: python benchmarks/pages.py."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torchdnc.training.checkpoint import write_atomically

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results"
PAGE = ROOT / "docs" / "results.md"

HEAD = """# Results

Written by `python benchmarks/pages.py` from `results/*.json`, each of which the command named with it made. A
seed is "solved" when its validation score reached the recipe's goal; scores are on test sequences, which no
run was chosen by. A seed "failed" when its loss was no longer a number.
"""
NONE = "–"
SCORES = {
    "wrong_bits": ("wrong bits, %", 100),
    "wrong_bits_per_sequence": ("wrong bits per sequence", 1),
    "perfect": ("perfect sequences, %", 100),
    "mean_error": ("mean error, %", 100),
}
"""Score -> its name in a table and its unit's factor; errors of single bAbI tasks follow by themselves."""


def commit() -> str:
    """The commit of the checkout, marked if the files differ from it."""
    git = ["git", "describe", "--always", "--dirty"]
    told = subprocess.run(git, cwd=ROOT, capture_output=True, text=True, check=False)
    return told.stdout.strip() or "unknown"


def publish(name: str, record: dict[str, Any]) -> None:
    """Writes results/NAME.json, then the page from all of them."""
    RESULTS.mkdir(exist_ok=True)
    write_atomically(RESULTS / f"{name}.json", json.dumps(record, indent=2).encode() + b"\n")
    write()


def write() -> None:
    """Writes the page."""
    sections = [HEAD]
    for path in sorted(RESULTS.glob("*.json")):
        record = json.loads(path.read_text())
        section = _speed if "rows" in record else _learning
        sections.append("\n".join(section(path.stem, record)))
    write_atomically(PAGE, "\n".join(sections).encode())


def _learning(name: str, record: dict[str, Any]) -> Iterator[str]:
    where = record["environment"]
    yield f"## {name}\n"
    yield f"`{record['command']}`, commit {record['commit']}; {where['machine']}, {where['threads']} thread(s),"
    yield f"torch {where['torch']}, engine {where['engine']}. {_goal(record)}\n"
    columns = _columns(record)
    yield _row("seed", "ended", "steps", "seconds", *(_title(test, score) for test, score in columns))
    yield _row(*["---"] * (4 + len(columns)))
    for run in record["runs"]:
        yield _row(*_outcome(run), *(_value(run, *column) for column in columns))
    solved = sum(run["status"] == "solved" for run in record["runs"])
    yield f"\nSolved: {solved} of {len(record['runs'])}.\n"


def _columns(record: dict[str, Any]) -> list[tuple[str, str]]:
    """Tests and their scores, of whichever seeds have them."""
    goal = record["recipe"]["goal"]["metric"]
    scored = ((test, score) for run in record["runs"] for test, scores in run["tests"].items() for score in scores)
    return list(dict.fromkeys((test, score) for test, score in scored if _shown(score, goal)))


def _outcome(run: dict[str, Any]) -> tuple[object, ...]:
    if run["status"] == "failed":
        return run["seed"], run["status"], NONE, NONE
    return run["seed"], run["status"], run["step"], f"{run['seconds']:.0f}"


def _goal(record: dict[str, Any]) -> str:
    goal = record["recipe"]["goal"]
    return f"Goal: {goal['metric']} at most {goal['at_most']}."


def _shown(score: str, goal: str) -> bool:
    return score in (goal, "perfect") or score.startswith("error/")


def _title(test: str, score: str) -> str:
    label = SCORES[score][0] if score in SCORES else f"{score.removeprefix('error/')}, %"
    return label if test == "test" else f"{label}, {test}"


def _value(run: dict[str, Any], test: str, score: str) -> str:
    value = run["tests"].get(test, {}).get(score)
    return NONE if value is None else f"{value * SCORES.get(score, ('', 100))[1]:.4g}"


def _speed(name: str, record: dict[str, Any]) -> Iterator[str]:
    yield f"## {name}\n"
    where = f"{record['machine']}, {record['threads']} thread(s), torch {record['torch']}"
    yield f"`{record['command']}`, commit {record['commit']}; {where}."
    yield f"{record['unit'].capitalize()} of {record['rounds']} rounds.\n"
    for size, numbers in record["sizes"].items():
        yield f"- {size}: {', '.join(f'{letter} {number}' for letter, number in numbers.items())}"
    names = list(record["rows"][0])
    yield ""
    yield _row(*names)
    yield _row(*["---"] * len(names))
    for row in record["rows"]:
        yield _row(*(value if isinstance(value, str) else f"{value:.3g}" for value in row.values()))
    yield ""


def _row(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"


if __name__ == "__main__":
    write()
