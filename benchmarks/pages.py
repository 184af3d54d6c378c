"""docs/results.md, written from results/*.json: python benchmarks/pages.py."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results"
PAGE = ROOT / "docs" / "results.md"

HEAD = """# Results

Written by `python benchmarks/pages.py` from `results/*.json`, each of which the command named with it made. A
seed is "solved" when its validation score reached the recipe's goal; scores are on test sequences, which no
run was chosen by.
"""
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


def write() -> None:
    """Writes the page."""
    sections = [HEAD]
    for path in sorted(RESULTS.glob("*.json")):
        record = json.loads(path.read_text())
        section = _speed if "rows" in record else _learning
        sections.append("\n".join(section(path.stem, record)))
    PAGE.write_text("\n".join(sections))


def _learning(name: str, record: dict[str, Any]) -> Iterator[str]:
    where = record["environment"]
    yield f"## {name}\n"
    yield f"`{record['command']}`, commit {record['commit']}; {where['machine']}, {where['threads']} thread(s),"
    yield f"torch {where['torch']}, engine {where['engine']}. {_goal(record)}\n"
    tests = record["runs"][0]["tests"]
    goal = record["recipe"]["goal"]["metric"]
    columns = [(test, score) for test in tests for score in tests[test] if _shown(score, goal)]
    yield _row("seed", "ended", "steps", "seconds", *(_title(test, score) for test, score in columns))
    yield _row(*["---"] * (4 + len(columns)))
    for run in record["runs"]:
        scores = (_value(score, run["tests"][test][score]) for test, score in columns)
        yield _row(run["seed"], run["status"], run["step"], f"{run['seconds']:.0f}", *scores)
    solved = sum(run["status"] == "solved" for run in record["runs"])
    yield f"\nSolved: {solved} of {len(record['runs'])}.\n"


def _goal(record: dict[str, Any]) -> str:
    goal = record["recipe"]["goal"]
    return f"Goal: {goal['metric']} at most {goal['at_most']}."


def _shown(score: str, goal: str) -> bool:
    return score in (goal, "perfect") or score.startswith("error/")


def _title(test: str, score: str) -> str:
    label = SCORES[score][0] if score in SCORES else f"{score.removeprefix('error/')}, %"
    return label if test == "test" else f"{label}, {test}"


def _value(score: str, value: float) -> str:
    return f"{value * SCORES.get(score, ('', 100))[1]:.4g}"


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
