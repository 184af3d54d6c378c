"""A run that takes a second, and what two runs are compared by."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from torchdnc.tasks import Copy
from torchdnc.training import DNCModel, Optimizer, Reporter, RunConfig, train
from torchdnc.training.metrics import METRICS

TINY = RunConfig(
    task=Copy(bits=2, min_length=1, max_length=3),
    model=DNCModel(hidden_size=8, memory_size=4, word_size=4, read_heads=1, activation_gradient_clip=10.0),
    optimizer=Optimizer("adam", learning_rate=1e-2, clip_norm=10.0),
    batch_size=4,
    steps=12,
    log_every=3,
    eval_every=5,
    eval_sequences=6,
    checkpoint_every=4,
    threads=1,
)


def tiny(**changes: Any) -> RunConfig:
    return replace(TINY, **changes)


def rows(run: Path) -> list[dict[str, Any]]:
    """Metrics without the times; a last row that is still being written is left out."""
    lines = (run / METRICS).read_bytes().splitlines(keepends=True)
    written = [json.loads(line) for line in lines if line.endswith(b"\n")]
    return [{key: value for key, value in row.items() if key != "seconds"} for row in written]


def assert_same_run(run: Path, other: Path) -> None:
    """Fails unless weights, optimiser and metrics are the same, bit for bit."""
    assert rows(run) == rows(other)
    for name in ("model.safetensors", "training.safetensors"):
        ours, theirs = (safetensors.torch.load_file(folder / name) for folder in (run, other))
        assert ours.keys() == theirs.keys()
        for key, value in ours.items():
            assert torch.equal(value, theirs[key]), f"{key} differs in {name}"


class At(Reporter):
    """Does something when a step's row is logged."""

    def __init__(self, step: int, action: Callable[[], object]) -> None:
        self.step, self.action = step, action

    def logged(self, row: Any) -> None:
        if row["step"] == self.step:
            self.action()


def interrupt(number: int = signal.SIGINT) -> None:
    os.kill(os.getpid(), number)


def copied(run: Path, to: Path) -> Path:
    return Path(shutil.copytree(run, to))


def uninterrupted(folder: Path, **changes: Any) -> Path:
    train(tiny(**changes), folder)
    return folder
