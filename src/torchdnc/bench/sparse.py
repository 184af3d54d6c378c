"""The sparse memory: time per step whatever its size, what it costs when it is full, and against the dense one.

The sizes are those of Rae et al. 2016, section 4.1: LSTM of 100 units, words of 32 numbers, 4 heads that read 4 slots
each; batches of 8 for times, of 1 for memory.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from torchdnc.bench.fresh import fresh
from torchdnc.bench.goals import Goal
from torchdnc.bench.memory import growth
from torchdnc.bench.plan import Found, Plan, Tell
from torchdnc.bench.sizes import SEED, Size, dnc, sequence, train
from torchdnc.bench.text import GOAL_COLUMNS, judged, number, prose, table
from torchdnc.bench.timing import interleaved
from torchdnc.engines.sparse.pages import CLOCK, EXISTING, Layout, Pages, Version
from torchdnc.engines.sparse.states import SparseState
from torchdnc.nn import SparseDNC
from torchdnc.ops.content import COSINE_EPSILON

SIZE = Size(B=8, T=100, I=8, H=100, N=1_000_000, W=32, R=4)
SMALL, FULL, DENSE = 1000, 65536, 2048
"""Slots: of the small memory, of the full one whose growth is measured, and of the comparison with the dense memory."""
KINDS = {"SAM": False, "SDNC": True}
"""Whether they have links."""
DENSE_STEPS, WRITTEN_STEPS = 10, 10
MEBIBYTE = 2**20

GOALS = {
    "1M slots, few written": Goal(0.3, 7),
    "1M slots, all written": Goal(2, 7),
    "1M slots / 1k slots": Goal(1.05, 2),
    "growth": Goal(4, 7.8),
    "time": Goal(440, 400),
    "memory": Goal(240, 200),
}
"""The goal, and as a bound what Rae et al. report: 7 ms and 7.8 MiB; a time that grows as log N; over 400 times."""
ABOUT = """Milliseconds per step of training, medians of the rounds, for batches of 8 and 100 steps; of a memory in
which all slots are written, for 10 steps. Growth is of a process in a step of training of 100 time steps with a batch
of 1, in MiB, beyond a memory of 65,536 written slots. The dense memory is the DNC on the reference engine, with
2,048 slots and 10 time steps: how many times longer it takes than SDNC with batches of 8, and by how many times
more a process grows with a batch of 1.
"""


def measure(plan: Plan, rounds: int, tell: Tell) -> Found:
    """All of it; quick: without the written million."""
    return {
        "size": SIZE._asdict(),
        "rows": [row for kind in KINDS for row in _kind(kind, plan, rounds, tell)] + _against_dense(plan, rounds, tell),
    }


def _kind(kind: str, plan: Plan, rounds: int, tell: Tell) -> Iterator[Found]:
    """The rows of SAM or SDNC."""
    tell(f"{kind}, {SMALL:,} and {SIZE.N:,} slots")
    inputs = sequence(SIZE)
    models = {str(slots): sparse(SIZE._replace(N=slots), kind) for slots in (SMALL, SIZE.N)}
    times = interleaved({name: partial(train, model, inputs) for name, model in models.items()}, rounds)
    yield _row(kind, "1k slots, few written", "ms", 1e3 * times.median(str(SMALL)) / SIZE.T)
    yield _row(kind, "1M slots, few written", "ms", 1e3 * times.median(str(SIZE.N)) / SIZE.T)
    yield _row(kind, "1M slots / 1k slots", "", times.ratio(str(SIZE.N), str(SMALL)).median)
    if not plan.quick:
        tell(f"{kind}, {SIZE.N:,} slots, all of them written")
        call = Going(sparse(SIZE, kind), sequence(SIZE._replace(T=WRITTEN_STEPS)))
        times = interleaved({"written": call}, min(rounds, 3))
        yield _row(kind, "1M slots, all written", "ms", 1e3 * times.median("written") / WRITTEN_STEPS)
    tell(f"{kind}, growth at {FULL:,} slots")
    grown = [fresh("sparse", {"kind": kind, "threads": plan.threads}) for _ in range(1 if plan.quick else 3)]
    yield _row(kind, "growth", "MiB", statistics.median(grown) / MEBIBYTE)


def _against_dense(plan: Plan, rounds: int, tell: Tell) -> list[Found]:
    """SDNC and the DNC on the reference engine."""
    tell(f"SDNC against the dense memory, {DENSE:,} slots")
    size = SIZE._replace(N=DENSE, T=DENSE_STEPS)
    calls = {kind: partial(train, model(size, kind), sequence(size)) for kind in ("SDNC", "DNC")}
    times = interleaved(calls, min(rounds, 3))
    grown = {kind: fresh("against_dense", {"kind": kind, "threads": plan.threads}) for kind in calls}
    return [
        _row("DNC / SDNC", "time", "", times.ratio("DNC", "SDNC").median),
        _row("DNC / SDNC", "memory", "", grown["DNC"] / grown["SDNC"]),
    ]


def _row(kind: str, what: str, unit: str, value: float) -> Found:
    return {"kind": kind, "what": what, "unit": unit, "value": value, "goal": GOALS.get(what)}


def sparse(size: Size, kind: str) -> SparseDNC:
    """A sparse memory in float32, with the same weights at every call."""
    torch.manual_seed(SEED)
    return SparseDNC(
        size.I,
        size.H,
        memory_size=size.N,
        word_size=size.W,
        read_heads=size.R,
        links=KINDS[kind],
        engine="fused",
        dtype=torch.float32,
    )


def model(size: Size, kind: str) -> nn.Module:
    """SAM, SDNC or the DNC on the reference engine."""
    return dnc(size, "reference") if kind == "DNC" else sparse(size, kind)


class Going:
    """Steps of training that go on with one memory, every slot of which is written to before the first."""

    def __init__(self, model: SparseDNC, inputs: Tensor) -> None:
        self.model, self.inputs = model, inputs
        self.state = written(model, inputs.shape[1])

    def __call__(self) -> None:
        self.model.zero_grad()
        outputs, state = self.model(self.inputs, self.state)
        outputs.square().mean().backward()
        self.state = state.detach()


def written(model: SparseDNC, batch_size: int) -> SparseState:
    """A state in which every slot holds random numbers, and was accessed in their order."""
    state: SparseState = model.initial_state(batch_size)
    layout: Layout = state.memory.version.layout
    N, W = layout.memory_size, layout.word_size
    pages = Pages(layout, N)
    random: Any = np.random.default_rng(SEED)
    for b in range(batch_size):
        words = random.standard_normal((N, W), np.float32)
        pages.tables["content"][b] = words.reshape(-1)
        pages.tables["lengths"][b] = np.sqrt(np.square(words).sum(-1) + COSINE_EPSILON)
        pages.tables["accessed"][b] = np.arange(1, N + 1)
        pages.counts[b, EXISTING], pages.counts[b, CLOCK] = N, N
    for name in ("back_slots", "ahead_slots"):
        pages.tables[name][:] = -1
    for zeros in (pages.tables["back"], pages.tables["ahead"], pages.places):
        # The system makes the memory of zeros when it is first written to; it is to be there before.
        zeros[:] = 0
    pages.grow(0)
    pages.relink()
    return state._replace(memory=replace(state.memory, version=Version(layout, pages)))


def child(kind: str, threads: int) -> int:
    """Bytes by which this process grows in a training step beyond a memory that is full."""
    torch.set_num_threads(threads)
    size = SIZE._replace(B=1, N=FULL)
    made = sparse(size, kind)
    going = Going(made, sequence(size))
    inputs, going.inputs = going.inputs, going.inputs[:1]
    going()
    going.inputs = inputs
    return growth(going)[0]


def child_against_dense(kind: str, threads: int) -> int:
    """Bytes by which this process grows in a training step of an empty memory."""
    torch.set_num_threads(threads)
    size = SIZE._replace(B=1, N=DENSE, T=DENSE_STEPS)
    made, inputs = model(size, kind), sequence(size)
    train(made, inputs[:1])
    made.zero_grad()
    return growth(partial(train, made, inputs))[0]


def lines(found: Found) -> Iterator[str]:
    """What was found, for a reader."""
    yield f"{prose(ABOUT)}\n"
    head = ["memory", "what", "value", *GOAL_COLUMNS]
    yield table(head, (_cells(row) for row in found["rows"]))


def _cells(row: Found) -> list[str]:
    value = f"{number(row['value'])} {row['unit']}".strip()
    return [row["kind"], row["what"], value, *judged(row["value"], row["goal"])]


CHILDREN: dict[str, Callable[..., int]] = {"sparse": child, "against_dense": child_against_dense}
"""What runs in a process of its own."""
