"""Time per step of a DNC on each engine, and of `nn.LSTM` of the controller's size; writes results/steps.json.

Every round times each model once, one after the other, so that a machine whose speed drifts slows all of them; the
figures are medians over the rounds, the ratios medians of the rounds' ratios.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import pages
import torch
from torch import Tensor, nn

from torchdnc import DNC
from torchdnc.training.environment import machine

ROUNDS = 11


class Size(NamedTuple):
    """Batch, steps, inputs, controller units, slots, word size, read heads."""

    B: int
    T: int
    I: int
    H: int
    N: int
    W: int
    R: int


SIZES = {
    "S": Size(B=16, T=40, I=8, H=100, N=64, W=20, R=1),
    "M": Size(B=16, T=100, I=64, H=256, N=256, W=64, R=4),
    "M, batch of one": Size(B=1, T=100, I=64, H=256, N=256, W=64, R=4),
}


def forward(model: nn.Module, inputs: Tensor) -> None:
    """Outputs only."""
    with torch.no_grad():
        model(inputs)


def train(model: nn.Module, inputs: Tensor) -> None:
    """Outputs and every gradient."""
    model.zero_grad()
    model(inputs)[0].square().mean().backward()


def seconds(call: Callable[[nn.Module, Tensor], None], model: nn.Module, inputs: Tensor) -> float:
    """Wall time of one call."""
    began = time.perf_counter()
    call(model, inputs)
    return time.perf_counter() - began


def models(size: Size) -> dict[str, nn.Module]:
    """What is timed: the same DNC on each engine, and the LSTM."""
    torch.manual_seed(0)
    dncs = {
        engine: DNC(size.I, size.H, memory_size=size.N, word_size=size.W, read_heads=size.R, engine=engine)
        for engine in ("reference", "fused")
    }
    return {**dncs, "nn.LSTM": nn.LSTM(size.I, size.H)}


def measure(size: Size, call: Callable[[nn.Module, Tensor], None]) -> dict[str, float]:
    """Milliseconds per time step of each model, and the ratios."""
    timed = models(size)
    inputs = torch.randn(size.T, size.B, size.I)
    for model in timed.values():
        call(model, inputs)
    rounds = [{name: seconds(call, model, inputs) for name, model in timed.items()} for _ in range(ROUNDS)]
    medians = {name: 1e3 * statistics.median(each[name] for each in rounds) / size.T for name in timed}
    return medians | {
        "reference / fused": statistics.median(each["reference"] / each["fused"] for each in rounds),
        "fused / nn.LSTM": statistics.median(each["fused"] / each["nn.LSTM"] for each in rounds),
    }


def main() -> None:
    """Measures, prints a table, writes results/steps.json and the page."""
    commit, rows = pages.commit(), []
    for name, size in SIZES.items():
        for call in (forward, train):
            found = measure(size, call)
            rows.append({"size": name, "what": call.__name__, **found})
            print(f"{name:16} {call.__name__:8}", *(f"{key} {value:.3f} " for key, value in found.items()), flush=True)
    record = {
        "command": "make bench",
        "seed": 0,
        "commit": commit,
        "machine": machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "rounds": ROUNDS,
        "unit": "milliseconds per time step, medians",
        "sizes": {name: size._asdict() for name, size in SIZES.items()},
        "rows": rows,
    }
    pages.publish("steps", record)
    print(f"written to {pages.RESULTS / 'steps.json'}", file=sys.stderr)


if __name__ == "__main__":
    main()
