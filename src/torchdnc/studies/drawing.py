"""Lines and numbers of several seeds: what the figures and tables of studies share."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

MARKS = "os*v^xDP"


def spread(panel: Any, across: Sequence[float], seeds: Sequence[Sequence[float]], label: str, place: int) -> None:
    """Draws the mean over seeds, and shades from the least to the most.

    Args:
        panel: axes of matplotlib.
        across: where the points lie.
        seeds: of each seed a value for every point.
        label: for the legend.
        place: of the line among the lines of the figure, which says how it looks.
    """
    columns, colour = [*zip(*seeds, strict=True)], f"C{place}"
    panel.plot(across, [*map(statistics.fmean, columns)], marker=MARKS[place % 8], color=colour, label=label)
    panel.fill_between(across, [*map(min, columns)], [*map(max, columns)], color=colour, alpha=0.15)


def percent(values: Sequence[float]) -> str:
    """The mean over seeds of shares, and the least: `97.8 (95.0)`."""
    return f"{100 * statistics.fmean(values):.1f} ({100 * min(values):.1f})"
