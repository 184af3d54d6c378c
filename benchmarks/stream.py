"""A million steps through a sparse memory: python benchmarks/stream.py [--steps 1000000] [--slots 1024].

The same stream goes through a memory in RAM and through one on disk, in float64, call by call without gradients. Every
output of one is held against that of the other, which must be the same to the bit; now and then some steps are made
on dense tensors too, from the same state (`engine="reference"`). Most of the stream finds all slots written, so that
every step takes the oldest. Writes results/stream.json; ends with 1 where something differed.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pages
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from torchdnc import SparseDNC, SparseState
from torchdnc.bench.record import environment, write

CALL, DENSE_CALL = 1000, 50
"""Steps of a call, and of one on dense tensors."""
COMPARED = 20
"""How often the stream is compared with dense tensors."""
AGREE = 1e-9
"""Allowed between the engines, in float64."""
MODEL: dict[str, Any] = {"hidden_size": 100, "word_size": 32, "read_heads": 4, "dtype": torch.float64}
INPUTS = 8


class Stream:
    """The models, one set of weights, and how far they are."""

    def __init__(self, slots: int, folder: str) -> None:
        def model(**settings: Any) -> SparseDNC:
            torch.manual_seed(0)
            return SparseDNC(INPUTS, output_size=INPUTS, memory_size=slots, **MODEL, **settings)

        self.ram, self.disk, self.dense = model(), model(storage=Path(folder) / "memory"), model(engine="reference")
        self.ram_state: SparseState | None = None
        self.disk_state: SparseState | None = None
        self.differing = 0
        self.apart = 0.0

    def call(self, inputs: Tensor) -> None:
        """Some steps more."""
        in_ram, self.ram_state = self.ram(inputs, self.ram_state)
        on_disk, self.disk_state = self.disk(inputs, self.disk_state)
        self.disk_state.flush()
        self.differing += int((in_ram != on_disk).any(-1).sum())

    def compare(self, inputs: Tensor) -> None:
        """The same steps on dense tensors; the stream does not go on by them."""
        wanted, _ = self.dense(inputs, self.ram_state)
        got, _ = self.ram(inputs, self.ram_state)
        # A NaN stays one.
        self.apart = float(torch.maximum(torch.tensor(self.apart), (got - wanted).abs().max()))


@torch.no_grad()
def stream(steps: int, slots: int) -> dict[str, Any]:
    """What it came to."""
    calls = steps // CALL
    generator = torch.Generator().manual_seed(0)
    sizes: list[int] = []
    started = time.perf_counter()
    with TemporaryDirectory() as folder:
        made = Stream(slots, folder)
        for number in track(range(calls), "stream", console=Console(stderr=True)):
            inputs = torch.randn(CALL, 1, INPUTS, generator=generator, dtype=torch.float64)
            made.call(inputs)
            if (number + 1) % max(1, calls // COMPARED) == 0:
                made.compare(inputs[:DENSE_CALL])
            sizes.append(resident())
        seconds = time.perf_counter() - started
        return {
            "steps": calls * CALL,
            "slots": slots,
            "seconds": round(seconds, 1),
            "steps that differ on disk": made.differing,
            "largest difference from dense tensors": made.apart,
            "resident MiB": {
                "after a tenth": sizes[calls // 10] / 2**20,
                "most": max(sizes) / 2**20,
                "at the end": sizes[-1] / 2**20,
            },
        }


def resident() -> int:
    """Bytes of this process that are in RAM."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> int:
    """The stream and its record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1_000_000, help=f"at least {CALL} (1000000)")
    parser.add_argument("--slots", type=int, default=1024, help="of the memory (1024)")
    given = parser.parse_args()
    if given.steps < CALL:
        parser.error(f"--steps must be at least {CALL}, got {given.steps}")
    if given.slots < 1:
        parser.error(f"--slots must be at least 1, got {given.slots}")
    # Before the result is written: a result in a checkout of a commit makes the rest of it no other.
    where = environment()
    found = stream(given.steps, given.slots)
    command = f"python benchmarks/stream.py --steps {given.steps} --slots {given.slots}"
    path = pages.RESULTS / "stream.json"
    write(path, {"command": command, **where, "stream": found})
    print(f"{found}; written to {path}", file=sys.stderr)
    sound = found["steps that differ on disk"] == 0 and found["largest difference from dense tensors"] <= AGREE
    return int(not sound)


if __name__ == "__main__":
    sys.exit(main())
