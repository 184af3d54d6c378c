"""Figures of what benchmarks/suite.py found. Need matplotlib (the extra `figures`)."""

from __future__ import annotations

import io
import json
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from suite_text import columns

from torchdnc.bench import figure
from torchdnc.training.checkpoint import write_atomically

LEARNING, CURVES = "suite-learning.png", "suite-generalisation.png"
TITLES = {LEARNING: "Bits per sequence while training", CURVES: "Bits per sequence by length"}
COLOURS = {"lstm": "C7", "super-lstm": "C8", "ntm": "C1", "dnc": "C0", "dnc-variant": "C3"}
LEGEND_WIDTH = 1.5
"""Inches of a name."""
FLOOR = 0.01
"""Fewer bits than this are drawn as this: the axis is logarithmic."""


def draw(results: Path) -> None:
    """Draws both figures anew from the records in a folder; says so where matplotlib is missing."""
    if reason := figure.missing():
        print(f"note: {reason}", file=sys.stderr)
        return
    records = [json.loads(path.read_text()) for path in sorted(results.glob("suite-*.json"))]
    tasks = [record for record in records if set(record["models"]) <= set(COLOURS)]
    # A run of an instant was never evaluated.
    if scored := [record for record in tasks if any(run["learning"]["bits"] for _, run in _runs(record))]:
        write_atomically(results / LEARNING, _learning(scored))
    panels = [(record, counted) for record in tasks for counted in record["curves"]]
    if panels:
        write_atomically(results / CURVES, _curves(panels))


def _learning(records: list[dict[str, Any]]) -> bytes:
    """Bits against the sequences trained on, above, and against seconds; a line for each seed, a dot where solved."""
    whole, panels = _figure(2, len(records))
    for column, record in enumerate(records):
        for panel, axis, scale in zip(panels[:, column], ("sequences", "seconds"), ("log", "linear"), strict=True):
            for name, run in _runs(record):
                _seed(panel, run, axis, COLOURS[name])
            panel.axhline(record["solved"], color="black", linestyle=":", linewidth=1)
            panel.set(xscale=scale, yscale=_scale(record), xlabel=f"{axis} of training", title=record["suite"])
    return _png(whole, records, "bits per validation sequence")


def _scale(record: dict[str, Any]) -> str:
    """Linear where few bits are out of reach."""
    return "log" if record["solved"] < 1 else "linear"


def _runs(record: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield from ((name, run) for name, model in record["models"].items() for run in model["runs"])


def _seed(panel: Any, run: dict[str, Any], axis: str, colour: str) -> None:
    at, bits = run["learning"][axis], _floored(run["learning"]["bits"])
    panel.plot(at, bits, ".-", color=colour, linewidth=1, markersize=2, alpha=0.7)
    if run["status"] == "solved":
        panel.plot(at[-1:], bits[-1:], "o", color=colour, markersize=5)


def _curves(panels: list[tuple[dict[str, Any], str]]) -> bytes:
    """Bits against a size: median over the seeds, and their range."""
    whole, axes = _figure(1, len(panels))
    for panel, (record, counted) in zip(axes.flat, panels, strict=True):
        curve = record["curves"][counted]
        for name, model in record["models"].items():
            _median(panel, curve["values"], columns(model["runs"], counted, len(curve["values"])), COLOURS[name])
        panel.axvline(curve["trained"], color="black", linestyle=":", linewidth=1)
        panel.set(yscale="log", xlabel=counted, title=record["suite"])
    return _png(whole, [record for record, _ in panels], "bits per test sequence")


def _median(panel: Any, values: list[int], bits: list[list[float]], colour: str) -> None:
    if not bits[0]:
        return
    panel.plot(values, _floored(map(statistics.median, bits)), marker=".", color=colour)
    panel.fill_between(values, _floored(map(min, bits)), _floored(map(max, bits)), color=colour, alpha=0.15)


def _floored(bits: Any) -> list[float]:
    return [max(value, FLOOR) for value in bits]


def _figure(rows: int, columns: int) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    whole = Figure(figsize=(3.4 * columns, 3.2 * rows), layout="constrained")
    return whole, whole.subplots(rows, columns, squeeze=False)


def _png(whole: Any, records: list[dict[str, Any]], label: str) -> bytes:
    """The figure with its models named above it."""
    from matplotlib.lines import Line2D

    names = dict.fromkeys(name for record in records for name in record["models"])
    lines = [Line2D([], [], color=COLOURS[name], label=name) for name in names]
    abreast = min(len(lines), int(whole.get_figwidth() / LEGEND_WIDTH))
    whole.legend(handles=lines, loc="outside upper center", ncols=abreast)
    whole.supylabel(label)
    for panel in whole.axes:
        panel.grid(alpha=0.3)
    written = io.BytesIO()
    whole.savefig(written, format="png", dpi=100)
    return written.getvalue()
