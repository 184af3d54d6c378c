"""Tables that are read on a terminal and in a Markdown page alike."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

from torchdnc.bench.goals import Goal

NONE = "–"
WIDTH = 118
GOAL_COLUMNS = ("goal / bound", "reached")


def prose(text: str) -> str:
    """A paragraph in lines of the pages' width."""
    return textwrap.fill(" ".join(text.split()), WIDTH, break_long_words=False, break_on_hyphens=False)


def number(value: float | None) -> str:
    """Three significant digits, never with an exponent; a dash for None."""
    if value is None:
        return NONE
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}" if abs(value) >= 1e-4 else f"{value:.4f}"


def exponent(value: float | None) -> str:
    """Two digits behind the point; a dash for None."""
    # Adding 0 takes the sign from -0.
    return NONE if value is None else f"{round(value, 2) + 0:.2f}"


def judged(value: float | None, goal: Sequence[float] | None) -> tuple[str, str]:
    """Cells under `GOAL_COLUMNS`."""
    if goal is None or value is None:
        return NONE if goal is None else str(Goal(*goal)), NONE
    held = Goal(*goal)
    return str(held), held.verdict(value)


def table(head: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """Lines of padded columns, the first to the left, the others to the right."""
    cells = [list(map(str, row)) for row in (head, *rows)]
    widths = [max(3, *(len(row[column]) for row in cells)) for column in range(len(head))]

    def line(row: Sequence[str]) -> str:
        padded = [
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |"

    rule = [("-" * width) if column == 0 else "-" * (width - 1) + ":" for column, width in enumerate(widths)]
    return "\n".join([line(cells[0]), line(rule), *map(line, cells[1:])])
