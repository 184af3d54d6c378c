"""Time per step of a DNC, against `nn.LSTM` with the same controller; writes results/steps.json.

Every round times each model once, one after the other, so that a machine whose speed drifts slows all of
them; the figures are medians over the rounds, the ratio the median of the rounds' ratios.
"""

from __future__ import annotations

import json
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
RESULT = pages.RESULTS / "steps.json"


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


def measure(size: Size, call: Callable[[nn.Module, Tensor], None]) -> dict[str, float]:
    """Milliseconds per time step of both models, and the ratio."""
    torch.manual_seed(0)
    memory = DNC(size.I, size.H, memory_size=size.N, word_size=size.W, read_heads=size.R, engine="reference")
    lstm = nn.LSTM(size.I, size.H)
    inputs = torch.randn(size.T, size.B, size.I)
    for model in (memory, lstm):
        call(model, inputs)
    rounds = [(seconds(call, memory, inputs), seconds(call, lstm, inputs)) for _ in range(ROUNDS)]
    return {
        "reference_ms": 1e3 * statistics.median(dnc for dnc, _ in rounds) / size.T,
        "lstm_ms": 1e3 * statistics.median(plain for _, plain in rounds) / size.T,
        "ratio": statistics.median(dnc / plain for dnc, plain in rounds),
    }


def main() -> None:
    """Measures, prints a table, writes the file."""
    rows = []
    print(f"{'size':16} {'what':8} {'reference':>12} {'nn.LSTM':>12} {'ratio':>8}")
    for name, size in SIZES.items():
        for call in (forward, train):
            row = measure(size, call)
            rows.append({"size": name, **size._asdict(), "what": call.__name__, **row})
            times = f"{row['reference_ms']:9.3f} ms {row['lstm_ms']:9.3f} ms {row['ratio']:8.1f}"
            print(f"{name:16} {call.__name__:8} {times}", flush=True)
    record = {
        "command": "make bench",
        "seed": 0,
        "commit": pages.commit(),
        "machine": machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "rounds": ROUNDS,
        "unit": "milliseconds per time step, median",
        "rows": rows,
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(record, indent=2) + "\n")
    pages.write()
    print(f"written to {RESULT}", file=sys.stderr)


if __name__ == "__main__":
    main()
