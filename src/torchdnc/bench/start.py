"""The first call: how long it takes where nothing is compiled yet, and where a process before has compiled it.

Each figure is of a process of its own. `NUMBA_CACHE_DIR` is an empty folder before the first ("cold") and as that left
it before the second ("cached"), its files then being in the system's memory. Importing torch and torchdnc is not
counted; importing numba, loading or compiling the kernels and the training step itself are.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch

from torchdnc.bench.fresh import ChildError, fresh
from torchdnc.bench.goals import Goal
from torchdnc.bench.plan import Found, Plan, Tell, told
from torchdnc.bench.sizes import SIZES, Size, dnc, sequence, train
from torchdnc.bench.text import GOAL_COLUMNS, judged, number, prose, table
from torchdnc.bench.timing import seconds

GOALS = {"cold": Goal(15, 25), "cached": Goal(0.4, 1)}
"""Seconds."""
NAMES, QUICK_NAMES = ("S", "M"), ("S",)

ABOUT = """Seconds of the first training step of a process, fused engine, {dtype}: *cold* with an empty cache of
compiled code, *cached* in a second process after it. Importing torch is not counted, importing numba and loading
are.
"""


def measure(plan: Plan, rounds: int, tell: Tell) -> Found:
    """Cold, then cached, in as many empty folders as there are rounds."""
    names = QUICK_NAMES if plan.quick else NAMES
    rows = [row for name in told(names, tell) for row in _rows(name, rounds, plan.threads)]
    return {"sizes": {name: SIZES[name]._asdict() for name in names}, "dtype": "float32", "rows": rows}


def _rows(name: str, rounds: int, threads: int) -> list[Found]:
    pairs = [cold_and_cached(SIZES[name], threads) for _ in range(rounds)]
    return [
        {
            "size": name,
            "cache": cache,
            "seconds": statistics.median(first for first, _ in found),
            "second_call": statistics.median(second for _, second in found),
            "goal": GOALS[cache],
        }
        for cache, found in zip(GOALS, zip(*pairs, strict=True), strict=True)
    ]


def cold_and_cached(size: Size, threads: int) -> tuple[list[float], list[float]]:
    """Seconds of the first and the second call in a first process and in one after it.

    Raises:
        ChildError: the kernels were not kept where they should be, or were compiled again.
    """
    with tempfile.TemporaryDirectory(prefix="torchdnc-bench-") as folder:
        measure_here = partial(
            fresh, "start", {"size": size, "threads": threads}, environment={"NUMBA_CACHE_DIR": folder}
        )
        cold, kept = measure_here(), _files(folder)
        if not kept:
            raise ChildError("measuring start failed: no kernel was kept in NUMBA_CACHE_DIR")
        cached = measure_here()
        if new := _files(folder) - kept:
            raise ChildError(f"measuring start failed: a second process compiled anew: {', '.join(sorted(new))}")
    return cold, cached


def _files(folder: str) -> set[str]:
    return {path.name for path in Path(folder).rglob("*") if path.is_file()}


def child(size: list[int], threads: int) -> list[float]:
    """Seconds of the first and of the second training step of this process.

    Raises:
        RuntimeError: numba is loaded already.
    """
    if "numba" in sys.modules:
        raise RuntimeError("numba must not be loaded before its loading is timed")
    torch.set_num_threads(threads)
    measured = Size(*size)
    call = partial(train, dnc(measured, "fused"), sequence(measured))
    return [seconds(call), seconds(call)]


def lines(found: Found) -> Iterator[str]:
    """What was found, for a reader."""
    yield f"{prose(ABOUT.format(dtype=found['dtype']))}\n"
    head = ["size", "cache", "first call, s", *GOAL_COLUMNS, "second call, s"]
    yield table(head, (_cells(row) for row in found["rows"]))


def _cells(row: Found) -> list[str]:
    first = row["seconds"]
    return [row["size"], row["cache"], number(first), *judged(first, row["goal"]), number(row["second_call"])]
