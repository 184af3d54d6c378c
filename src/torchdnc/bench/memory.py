"""Memory: how far a training step makes a process grow at its peak.

Each figure is of a process of its own. A warm-up call at the measured size and a single time step loads libraries and
compiled code; what lies free is handed back to the system; then the peak is set back to what the process holds, and the
growth is how far a training step raises it.
"""

from __future__ import annotations

import ctypes
import gc
import resource
import statistics
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch

from torchdnc.bench.fresh import KilledError, fresh
from torchdnc.bench.goals import Goal
from torchdnc.bench.plan import Found, Plan, Tell, told
from torchdnc.bench.sizes import SIZES, Size, dnc, sequence, train
from torchdnc.bench.text import GOAL_COLUMNS, judged, number, prose, table

ENGINES = ("reference", "fused")
STEPS, QUICK_STEPS = (100, 400), (100,)
GOALS = {100: Goal(150, 180), 400: Goal(300, 500)}
"""Megabytes by which the fused engine may grow at size M, by time steps."""

STATUS = Path("/proc/self/status")
CLEAR = Path("/proc/self/clear_refs")
SET_BACK_PEAK = "5"
"""What Linux takes in `clear_refs` to set VmHWM back to VmRSS."""

MEGABYTE = 1e6

ABOUT = """Growth of a process in one training step at {size}: its peak of resident memory ({peak}) less what it held
before, in MB, the median of fresh processes. Libraries and compiled code are loaded before, by a call of one time
step at the same size; *kept* is what the process has grown by then.
"""


def measure(plan: Plan, rounds: int, tell: Tell) -> Found:
    """Every engine and number of steps, each in as many processes as there are rounds."""
    cases = [(steps, engine) for steps in (QUICK_STEPS if plan.quick else STEPS) for engine in ENGINES]
    named = told(cases, tell, lambda case: f"{case[1]}, T {case[0]}")
    rows = [_row(SIZES["M"]._replace(T=steps), engine, rounds, plan.threads) for steps, engine in named]
    return {"size": SIZES["M"]._asdict(), "rows": rows}


def _row(size: Size, engine: str, rounds: int, threads: int) -> Found:
    row: Found = {"engine": engine, "T": size.T, "goal": GOALS.get(size.T) if engine == "fused" else None}
    try:
        found = [fresh("memory", {"size": size, "engine": engine, "threads": threads}) for _ in range(rounds)]
    except KilledError as error:
        # This machine has too little memory for this engine, which is a finding.
        return row | {"megabytes": None, "kept": None, "peak": None, "killed": str(error)}
    medians = {name: statistics.median(each[name] for each in found) for name in ("megabytes", "kept")}
    return row | {**medians, "peak": found[0]["peak"], "killed": None}


def child(size: list[int], engine: str, threads: int) -> Found:
    """Growth of this process in a training step, and what it kept of the warm-up, in megabytes."""
    torch.set_num_threads(threads)
    measured = Size(*size)
    model, inputs = dnc(measured, engine), sequence(measured)
    before = held()
    train(model, inputs[:1])
    model.zero_grad()
    hand_back()
    kept = None if before is None else (held() or 0) - before
    grown, how = growth(partial(train, model, inputs))
    return {"megabytes": grown / MEGABYTE, "kept": (kept or 0) / MEGABYTE, "peak": how}


def growth(call: Callable[[], object]) -> tuple[int, str]:
    """Bytes by which a call raises this process's peak of resident memory above what it holds, and the peak's name."""
    hand_back()
    try:
        CLEAR.write_text(SET_BACK_PEAK)
    except OSError:
        # The peak of the past stays: growth that it hides is not seen.
        before = _highest()
        call()
        return _highest() - before, "getrusage"
    before = _status("VmHWM")
    call()
    return _status("VmHWM") - before, "VmHWM"


def held() -> int | None:
    """Bytes of resident memory, where the system tells it."""
    return _status("VmRSS") if STATUS.exists() else None


def _status(field: str) -> int:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(f"{field}:"))
    return 1024 * int(line.split()[1])


def _highest() -> int:
    """Linux counts in kilobytes, macOS in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def hand_back() -> None:
    """Gives free memory back to the system, which would else be used again and not be seen as growth."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def lines(found: Found) -> Iterator[str]:
    """What was found, for a reader."""
    rows = found["rows"]
    peaks = {row["peak"] for row in rows} - {None}
    yield f"{prose(ABOUT.format(size=_without_steps(found['size']), peak=' or '.join(sorted(peaks)) or 'not seen'))}\n"
    head = ["engine", "T", "growth, MB", *GOAL_COLUMNS, "kept, MB"]
    yield table(head, (_cells(row) for row in rows))
    for row in rows:
        if row["killed"]:
            yield f"\n{row['engine']}, T {row['T']}: {row['killed']}; signal 9 is what a system short of memory sends."


def _without_steps(size: Found) -> str:
    return ", ".join(f"{letter} {number}" for letter, number in size.items() if letter != "T")


def _cells(row: Found) -> list[str]:
    grown = row["megabytes"]
    return [row["engine"], str(row["T"]), number(grown), *judged(grown, row["goal"]), number(row["kept"])]
