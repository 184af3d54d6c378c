"""The figure of how runs on all 20 bAbI tasks went. Needs matplotlib (the extra `figures`)."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

from babi_text import is_joint, whole

from torchdnc.bench import figure
from torchdnc.training.checkpoint import write_atomically

TICKS = (1, 2, 5, 10, 20, 50, 100)
NAME, TITLE = "babi.png", "Mean validation error of the bAbI tasks while training"


def draw(results: Path) -> None:
    """Draws the figure anew from the records in a folder, if any tells of evaluations."""
    if reason := figure.missing():
        print(f"note: {reason}", file=sys.stderr)
        return
    records = {path.stem: json.loads(path.read_text()) for path in sorted(results.glob("babi-*.json"))}
    joint = whole({name: record for name, record in records.items() if is_joint(record)})
    runs = {f"{name}, seed {run['seed']}": run for name, record in joint.items() for run in record["runs"]}
    if told := {label: run["validation"] for label, run in runs.items() if run.get("validation")}:
        write_atomically(results / NAME, _png(told))


def _png(ways: dict[str, list[list[float]]]) -> bytes:
    """Error against hours, logarithmic, a line for each run."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(7, 4), layout="constrained")
    panel: Any = drawn.subplots()
    for label, way in ways.items():
        _, seconds, errors = zip(*way, strict=True)
        panel.plot([second / 3600 for second in seconds], [100 * error for error in errors], ".-", label=label)
    panel.set(yscale="log", xlabel="hours of training", ylabel="mean validation error, %")
    panel.set_yticks(TICKS, map(str, TICKS))
    panel.minorticks_off()
    panel.grid(alpha=0.3)
    panel.legend(fontsize="small")
    written = io.BytesIO()
    drawn.savefig(written, format="png", dpi=120)
    return written.getvalue()
