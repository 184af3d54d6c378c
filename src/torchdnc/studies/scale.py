"""What do time and memory cost as the memory grows? A training step of every model against N, T and B."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from torchdnc.bench.fresh import KilledError, fresh
from torchdnc.bench.memory import MEGABYTE, growth, hand_back, held
from torchdnc.bench.plan import told
from torchdnc.bench.scaling import slope
from torchdnc.bench.sizes import SEED, Size, dnc, sequence, train
from torchdnc.bench.sparse import Going, sparse
from torchdnc.bench.text import NONE, exponent, number, prose, table
from torchdnc.bench.timing import Call, interleaved, seconds
from torchdnc.nn import NTM
from torchdnc.studies.drawing import MARKS
from torchdnc.studies.study import Found, Plan, Study
from torchdnc.training.figures import png

SLOTLESS = "LSTM"
MODELS = (SLOTLESS, "NTM", "DNC", "SAM", "SDNC")
FULL = {"SAM, full": "SAM", "SDNC, full": "SDNC"}
"""Sparse memories in which every slot is written to before the step: what the others cost in the long run."""
NAMES = {"N": "slots N", "T": "time steps T", "B": "batch B"}

BASE = Size(B=4, T=50, I=16, H=100, N=256, W=32, R=4)
SWEEPS: dict[str, tuple[int, ...]] = {
    "N": (16, 64, 256, 512, 1024, 2048, 4096, 16384, 65536, 262_144, 1_048_576),
    "T": (10, 20, 50, 100, 200, 500, 1000, 2000, 5000),
    "B": (1, 2, 4, 8, 16, 32, 64, 128, 256),
}
QUICK_BASE = BASE._replace(B=2, T=10)
QUICK_SWEEPS: dict[str, tuple[int, ...]] = {"N": (16, 64, 256, 1024, 16384), "T": (10, 30, 90), "B": (2, 8, 32)}

THREADS = 1
ROUNDS, QUICK_ROUNDS = 5, 3
SECONDS, QUICK_SECONDS = 10.0, 5.0
BYTES = 4e9
"""Of a training step: one that is expected to take more is not run."""
SECOND = 1e3
"""Milliseconds per time step at which a model has run out of time."""
LEVEL = 0.1
"""Slopes below it are those of a level line that is measured with noise."""
FARTHEST = 1e9
"""Where an estimate says no more than that a model does not run out at sizes that anyone has."""


def step(name: str, size: Size) -> Call:
    """A step of training of a new model, always with the same weights."""
    if name in FULL:
        return Going(sparse(size, FULL[name]), sequence(size))
    model, inputs = _model(name, size), sequence(size)
    return lambda: train(model, inputs)


def _model(name: str, size: Size) -> nn.Module:
    if name == "DNC":
        return dnc(size, "fused")
    if name in ("SAM", "SDNC"):
        return sparse(size, name)
    torch.manual_seed(SEED)
    if name == SLOTLESS:
        return nn.LSTM(size.I, size.H)
    return NTM(size.I, size.H, memory_size=size.N, word_size=size.W, read_heads=size.R)


def expected(values: Sequence[float], costs: Sequence[float], value: float) -> float:
    """The last cost continued to a greater value, at the slope that the costs have, or in proportion.

    Args:
        values: ascending.
        costs: of as many of them as were measured, at least one.
        value: beyond the last of these.
    """
    measured = values[: len(costs)]
    steepness = slope(measured, costs)
    return float(costs[-1] * (value / measured[-1]) ** (1 if steepness is None else max(steepness, 0)))


def reached(values: Sequence[float], costs: Sequence[float | None], bound: float) -> float | None:
    """Where the last cost, continued at the slope of the costs, passes a bound; None where it is level or unknown."""
    steepness = slope(values, costs)
    if steepness is None or steepness < LEVEL:
        return None
    value, cost = [(value, cost) for value, cost in zip(values, costs, strict=True) if cost is not None][-1]
    factor: float = (bound / cost) ** (1 / steepness)
    return min(FARTHEST, value * factor)


def measure(plan: Plan) -> Found:
    """Every sweep: first the memory of each model in a process of its own, then the times of all side by side."""
    base, sweeps = (QUICK_BASE, QUICK_SWEEPS) if plan.quick else (BASE, SWEEPS)
    rounds, most = (QUICK_ROUNDS, QUICK_SECONDS) if plan.quick else (ROUNDS, SECONDS)
    how = {
        "threads": THREADS,
        "rounds": rounds,
        "seconds": most,
        "bytes": BYTES,
        "ram": ram(),
        "load": os.getloadavg()[0],
    }
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    try:
        found = {letter: _sweep(letter, values, base, how, plan.tell) for letter, values in sweeps.items()}
    finally:
        torch.set_num_threads(before)
    return {"base": base._asdict(), **how, "sweeps": found}


def ram() -> int:
    """Bytes that this machine has."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _sweep(letter: str, values: Sequence[int], base: Size, how: Found, tell: Callable[[str], None]) -> Found:
    """Milliseconds per time step and megabytes of each model at each value; None where it was not run."""
    sizes = [base._replace(**{letter: value}) for value in values]
    names = (*MODELS, *FULL) if letter == "N" else MODELS
    killed: dict[str, str] = {}
    grown: dict[str, list[float]] = {}
    for name in told(names, tell, lambda name: f"{NAMES[letter]}, memory of {name}"):
        arguments = {"name": name, "letter": letter, "sizes": sizes, "seconds_most": how["seconds"]}
        try:
            grown[name] = fresh("scale", arguments, module=__name__)
        except KilledError as error:
            # This machine has too little memory free, which is a finding; where it was reached is not known.
            grown[name], killed[name] = [], str(error)
    times = []
    for place, size in enumerate(told(sizes, tell, lambda size: f"time at {letter} {getattr(size, letter):,}")):
        times.append(_milliseconds([name for name in names if len(grown[name]) > place], size, how["rounds"]))
    return {
        "values": [*values],
        "milliseconds": {name: [each.get(name) for each in times] for name in names},
        "megabytes": {name: grown[name] + [None] * (len(values) - len(grown[name])) for name in names},
        "killed": killed,
    }


def _milliseconds(names: Sequence[str], size: Size, rounds: int) -> dict[str, float]:
    """Of each model per time step: medians of the rounds, each of which calls all of them in turn."""
    times = interleaved({name: step(name, size) for name in names}, rounds)
    return {name: 1e3 * times.median(name) / size.T for name in names}


def child(name: str, letter: str, sizes: list[list[int]], seconds_most: float) -> list[float]:
    """Megabytes by which this process grows in a training step at each size, up to the first that is not affordable."""
    torch.set_num_threads(THREADS)
    measured = [Size(*size) for size in sizes]
    # Loads libraries and compiled code.
    step(name, measured[0])()
    values = [getattr(size, letter) for size in measured]
    bytes_grown, took = list[float](), list[float]()
    for value, size in zip(values, measured, strict=True):
        if took and (expected(values, took, value) > seconds_most or expected(values, bytes_grown, value) > BYTES):
            break
        time, grown = _cost(name, size)
        took.append(time)
        bytes_grown.append(grown)
    return [grown / MEGABYTE for grown in bytes_grown]


def _cost(name: str, size: Size) -> tuple[float, float]:
    """Seconds of a training step, and bytes by which this process grows with it and with what it holds before.

    What is held before are the parameters, and of a full memory the slots.
    """
    hand_back()
    before = held() or 0
    call, took = step(name, size), list[float]()
    hand_back()
    holds = (held() or 0) - before
    grown, _ = growth(lambda: took.append(seconds(call)))
    # A slope is one of logarithms.
    return took[0], max(holds + grown, 1)


CHILDREN: dict[str, Callable[..., Any]] = {"scale": child}
"""What runs in a process of its own."""


class Cost(NamedTuple):
    """What is measured, and in what."""

    what: str
    unit: str


TICKS = 7
"""Steps between labels on an axis, at most."""
COSTS = {"milliseconds": Cost("time", "ms per time step"), "megabytes": Cost("memory", "MB")}


def figure(found: Found) -> bytes:
    """Time in the upper row and memory in the lower one against N, T and B, logarithmic both ways."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(12, 7), layout="constrained")
    panels: Any = drawn.subplots(len(COSTS), len(found["sweeps"]), sharex="col", sharey="row", squeeze=False)
    for row, (cost, told_as) in zip(panels, COSTS.items(), strict=True):
        row[0].set_ylabel(", ".join(told_as))
        for panel, sweep in zip(row, found["sweeps"].values(), strict=True):
            _draw(panel, sweep["values"], sweep[cost])
    for panel, letter in zip(panels[-1], found["sweeps"], strict=True):
        panel.set_xlabel(NAMES[letter])
    handles, labels = panels[0][0].get_legend_handles_labels()
    drawn.legend(handles, labels, loc="outside right upper")
    return png(drawn)


def _draw(panel: Any, values: Sequence[int], costs: Mapping[str, Sequence[float | None]]) -> None:
    for name, of in costs.items():
        place, full = MODELS.index(FULL.get(name, name)), name in FULL
        looks = {"color": f"C{place}", "marker": MARKS[place], "linestyle": "--" if full else "-"}
        points = [(value, cost) for value, cost in zip(values, of, strict=True) if cost is not None]
        panel.plot(
            *(zip(*points, strict=True) if points else ([], [])), label=name, mfc="white" if full else None, **looks
        )
    panel.set(xscale="log", yscale="log")
    ticks = apart(values)
    panel.set_xticks(ticks, [short(value) for value in ticks])
    panel.set_xticks([], minor=True)
    panel.grid(alpha=0.3)


def apart(values: Sequence[int]) -> list[int]:
    """Of ascending values as many as have room for their labels on a logarithmic axis, the first among them."""
    least, kept = (values[-1] / values[0]) ** (1 / TICKS), [values[0]]
    for value in values[1:]:
        if value >= least * kept[-1]:
            kept.append(value)
    return kept


def short(value: int) -> str:
    """`64k` for 65536, `1M` for 1048576."""
    for unit, letter in ((2**20, "M"), (2**10, "k")):
        if value % unit == 0:
            return f"{value // unit}{letter}"
    return str(value)


def slopes(found: Found, letter: str, cost: str) -> dict[str, float | None]:
    """Of each model in one sweep."""
    sweep = found["sweeps"][letter]
    return {name: slope(sweep["values"], costs) for name, costs in sweep[cost].items()}


def runs_out(found: Found, letter: str) -> dict[str, dict[str, float]]:
    """Of each model the estimated values at which it takes a second per time step and all the RAM, if it ever does."""
    sweep, bounds = found["sweeps"][letter], {"milliseconds": SECOND, "megabytes": found["ram"] / MEGABYTE}
    return {
        name: {
            cost: place
            for cost, bound in bounds.items()
            if (place := reached(sweep["values"], sweep[cost][name], bound)) is not None
        }
        for name in sweep["milliseconds"]
    }


def about(place: float) -> str:
    """An estimate, to two digits."""
    if place >= FARTHEST:
        return "over 10⁹"
    return f"≈ {float(f'{place:.2g}'):,.0f}"


def _first(found: Found, letter: str, name: str) -> str:
    """Where a model runs out first, and of what."""
    places = runs_out(found, letter)[name]
    if not places:
        known = all(slopes(found, letter, cost)[name] is not None for cost in COSTS)
        return "at none, being level" if known else "not known"
    cost = min(places, key=lambda cost: places[cost])
    return about(places[cost]) if places[cost] >= FARTHEST else f"{about(places[cost])} ({COSTS[cost].what})"


def _listed(texts: Mapping[str, str]) -> str:
    return "; ".join(f"{name} {text}" for name, text in texts.items())


def _gigabytes(found: Found) -> str:
    return f"{found['ram'] / 1e9:.1f} GB"


def answer(found: Found) -> str:
    """In a paragraph."""
    sweep, slots = found["sweeps"]["N"], found["base"]["N"]
    base = sweep["values"].index(slots)
    costs = {
        name: f"{number(sweep['milliseconds'][name][base])} ms, {number(sweep['megabytes'][name][base])} MB"
        for name in MODELS
    }
    memory = slopes(found, "N", "megabytes")
    powers = {
        name: f"{exponent(of_time)} and {exponent(memory[name])}"
        for name, of_time in slopes(found, "N", "milliseconds").items()
        if name != SLOTLESS
    }
    longer = {name: exponent(power) for name, power in slopes(found, "T", "megabytes").items()}
    ends = {name: _first(found, "N", name) for name in powers}
    return (
        f"With {slots} slots training takes, for a time step and at its peak: {_listed(costs)}. With the slots, time "
        f"and memory grow to the powers: {_listed(powers)}. Going on so, a second for a time step or "
        f"{_gigabytes(found)} of RAM is reached at a number of slots that is estimated: {_listed(ends)}. With the time "
        f"steps, memory grows to the powers: {_listed(longer)}."
    )


ABOUT = """One size is changed at a time from {base}. {none} stands where a training step was expected to take more than
{seconds:g} s or {gigabytes:g} GB, as the points before it grow. The slope is the exponent a of cost ~ size^a over the
upper half of the points.
"""
LIMITS = """Training is forward and backward, float32, {threads} thread. DNC, SAM and SDNC run on the fused engine,
which `auto` takes here; NTM in plain PyTorch, so that its times are not those of a compiled one; LSTM is PyTorch's
own, and has no slots: what its line does over N is noise. SAM and SDNC begin with an empty memory, which costs what
is written to it, at most a slot in a time step; *full* is the same with every slot written before, all of which a
look-up compares. Times are medians of rounds ({rounds}), each of which calls every model in turn. Memory is the
growth of a process at its peak: parameters, slots and all that is kept for the gradients, without libraries and
compiled code. *level* is a slope below {level:g}. Where a slope still rises at the last point, as where a fixed cost
hides one that grows, the estimate lies too far. RAM is all that the machine has, {ram}, be it free or not. One
machine, whose load was {load:.1f} before: on another, or with other versions, the numbers are others.
"""


def lines(found: Found) -> Iterator[str]:
    """The tables, and what they do not say."""
    how = {"none": NONE, "seconds": found["seconds"], "gigabytes": found["bytes"] / 1e9}
    yield prose(ABOUT.format(base=Size(**found["base"]), **how))
    for letter, sweep in found["sweeps"].items():
        for cost, (what, unit) in COSTS.items():
            yield f"\n{what.capitalize()} of training against {NAMES[letter]}, {unit}:\n"
            of = slopes(found, letter, cost)
            rows = [[name, *map(number, costs), exponent(of[name])] for name, costs in sweep[cost].items()]
            yield table([letter, *sweep["values"], "slope"], rows)
        for name, error in sweep["killed"].items():
            yield f"\n{name}, {NAMES[letter]}: {error}; signal 9 is what a system short of memory sends."
    yield "\nWhere each runs out, estimated: where its last point, continued at its slope, would be there:\n"
    yield _ends(found)
    load = {"level": LEVEL, "ram": _gigabytes(found), "load": found["load"]}
    yield "\n" + prose(LIMITS.format(threads=found["threads"], rounds=found["rounds"], **load))


def _ends(found: Found) -> str:
    """The table of where a second per time step and all of the RAM are reached."""
    estimates = {letter: runs_out(found, letter) for letter in found["sweeps"]}
    head = ["model", *(f"{letter}: {what}" for letter in estimates for what in ("1 s a step", "all RAM"))]
    rows = [
        [name, *(_cell(found, letter, name, cost) for letter in estimates for cost in COSTS)]
        for name in found["sweeps"]["N"]["milliseconds"]
    ]
    return table(head, rows)


def _cell(found: Found, letter: str, name: str, cost: str) -> str:
    if slopes(found, letter, cost).get(name) is None:
        return NONE
    place = runs_out(found, letter)[name].get(cost)
    return "level" if place is None else about(place)


STUDY = Study("What do time and memory cost as the memory grows?", measure, figure, answer, lines)
