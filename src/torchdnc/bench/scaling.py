"""How the time per step of training grows with each size, the others being those of a base."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from torchdnc.bench.plan import Found, Plan, Tell, told
from torchdnc.bench.sizes import SIZES, Size, dnc, sequence, train
from torchdnc.bench.text import NONE, exponent, number, prose, table
from torchdnc.bench.timing import interleaved

ENGINES = ("fused", "reference")
BASE = SIZES["M"]._replace(T=20)
SWEEPS = {
    "N": (16, 32, 64, 128, 256, 512, 1024),
    "W": (8, 16, 32, 64, 128, 256),
    "R": (1, 2, 4, 8, 16),
    "B": (1, 2, 4, 8, 16, 32, 64),
    "T": (10, 30, 100, 300, 1000),
}
QUICK_BASE = SIZES["S"]._replace(T=20)
QUICK_SWEEPS = {"N": (16, 64, 256), "W": (10, 20, 40), "R": (1, 2, 4), "B": (1, 4, 16), "T": (10, 40, 160)}

AFFORDABLE = 2e9
"""Bytes of graph up to which the reference is run."""

ABOUT = """Milliseconds per time step of training, medians of the rounds, with one size changed at a time from
{base}. The slope is the exponent a of time ~ size^a over the upper half of the points; {none} stands where the
reference's graph would take more than {most:g} GB.
"""


def measure(plan: Plan, rounds: int, tell: Tell) -> Found:
    """Every sweep, both engines in turn at each point."""
    base, sweeps = (QUICK_BASE, QUICK_SWEEPS) if plan.quick else (BASE, SWEEPS)
    points = [(letter, value) for letter, values in sweeps.items() for value in values]
    found: Found = {
        letter: {"values": values, **{engine: [] for engine in ENGINES}} for letter, values in sweeps.items()
    }
    for letter, value in told(points, tell, lambda point: f"{point[0]} {point[1]}"):
        times = milliseconds(base._replace(**{letter: value}), rounds)
        for engine in ENGINES:
            found[letter][engine].append(times.get(engine))
    for sweep in found.values():
        sweep["slopes"] = {engine: slope(sweep["values"], sweep[engine]) for engine in ENGINES}
    return {"base": base._asdict(), "sweeps": found}


def milliseconds(size: Size, rounds: int) -> dict[str, float]:
    """Time per step of training on each engine that can be afforded."""
    engines = [engine for engine in ENGINES if engine == "fused" or graph_bytes(size) <= AFFORDABLE]
    inputs = sequence(size)
    times = interleaved({engine: partial(train, dnc(size, engine), inputs) for engine in engines}, rounds)
    return {engine: 1e3 * times.median(engine) / size.T for engine in engines}


def graph_bytes(size: Size) -> float:
    """About what autograd keeps of the reference: per step some five arrays as large as links and memory, float32."""
    return 4 * 5 * size.T * size.B * size.N * (size.N + size.W)


def slope(values: Sequence[float], times: Sequence[float | None]) -> float | None:
    """Exponent a of time ~ value^a: a straight line through the upper half of the points in logarithms.

    Args:
        values: ascending.
        times: of each; None where there is none.
    Returns:
        None where fewer than two points have a time.
    """
    points = [(math.log(value), math.log(time)) for value, time in zip(values, times, strict=True) if time is not None]
    if len(points) < 2:
        return None
    upper = points[-max(2, math.ceil(len(points) / 2)) :]
    return float(np.polyfit([x for x, _ in upper], [y for _, y in upper], 1)[0])


def lines(found: Found) -> Iterator[str]:
    """What was found, for a reader."""
    yield f"{prose(ABOUT.format(base=Size(**found['base']), none=NONE, most=AFFORDABLE / 1e9))}\n"
    for letter, sweep in found["sweeps"].items():
        head = [letter, *map(str, sweep["values"]), "slope"]
        rows = [[engine, *map(number, sweep[engine]), exponent(sweep["slopes"][engine])] for engine in ENGINES]
        yield table(head, rows) + "\n"
