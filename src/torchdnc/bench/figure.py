"""The figure of how time grows with each size. Needs matplotlib (the extra `figures`)."""

from __future__ import annotations

import math
from typing import Any

from torchdnc.bench.plan import Found
from torchdnc.bench.text import exponent
from torchdnc.training.figures import missing, png

COLUMNS = 3
NAMES = {"N": "slots N", "W": "word size W", "R": "read heads R", "B": "batch B", "T": "time steps T"}


def scaling(found: Found) -> bytes:
    """Time per step against every size, logarithmic both ways, as PNG."""
    from matplotlib.figure import Figure

    sweeps = found["sweeps"]
    rows = math.ceil(len(sweeps) / COLUMNS)
    figure = Figure(figsize=(3.4 * COLUMNS, 3.2 * rows), layout="constrained")
    panels: Any = figure.subplots(rows, COLUMNS, sharey=True, squeeze=False)
    for panel in panels.flat[len(sweeps) :]:
        panel.remove()
    for panel, (letter, sweep) in zip(panels.flat, sweeps.items(), strict=False):
        for engine, mark in (("fused", "o"), ("reference", "s")):
            _line(panel, sweep, engine, mark)
        panel.set(xscale="log", yscale="log", xlabel=NAMES[letter])
        panel.set_xticks(sweep["values"], [str(value) for value in sweep["values"]])
        panel.minorticks_off()
        panel.grid(alpha=0.3)
        panel.legend(fontsize="small")
    figure.supylabel("ms per time step of training")
    return png(figure)


def _line(panel: Any, sweep: Found, engine: str, mark: str) -> None:
    points = [(at, time) for at, time in zip(sweep["values"], sweep[engine], strict=True) if time is not None]
    if points:
        label = f"{engine}, slope {exponent(sweep['slopes'][engine])}"
        panel.plot(*zip(*points, strict=True), marker=mark, label=label)


__all__ = ["missing", "scaling"]
