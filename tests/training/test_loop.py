"""A run is the plain loop: batches of the task, losses, gradients, updates."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch

from tests.training.runs import TINY, rows, tiny, uninterrupted
from torchdnc import DNC
from torchdnc.training import Optimizer, Reporter, train


def test_run_is_the_plain_loop(tmp_path: Path) -> None:
    """Twelve steps by hand: same weights, same rows."""
    torch.manual_seed(7)
    model = DNC(3, 8, 2, memory_size=4, word_size=4, read_heads=1, activation_gradient_clip=10.0)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses, norms = [], []
    for step in range(12):
        batch = TINY.task.sample(4, seed=7, step=step)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(
            model(batch.inputs)[0][batch.mask], batch.targets[batch.mask]
        )
        optimizer.zero_grad()
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), 0.05).item())
        optimizer.step()
        losses.append(loss.item())
    assert max(norms) > 0.05, "the limit must bind to be tested"

    run = uninterrupted(tmp_path / "run", seed=7, optimizer=Optimizer("adam", 1e-2, clip_norm=0.05))
    saved = safetensors.torch.load_file(run / "model.safetensors")
    for name, weight in model.state_dict().items():
        assert torch.equal(saved[name], weight), name
    written = [row for row in rows(run) if "loss" in row]
    assert [row["step"] for row in written] == [3, 6, 9, 12]
    for row in written:
        part = slice(row["step"] - 3, row["step"])
        assert row["loss"] == pytest.approx(sum(losses[part]) / 3)
        assert row["grad_norm"] == pytest.approx(sum(norms[part]) / 3)


def test_rows_come_at_their_steps(tmp_path: Path) -> None:
    run = uninterrupted(tmp_path / "run", steps=11)
    assert [(row["step"], "valid" in row) for row in rows(run)] == [
        (3, False),
        (5, True),
        (6, False),
        (9, False),
        (10, True),
        (11, False),
        (11, True),
    ]


def test_reporters_hear_everything_in_order(tmp_path: Path) -> None:
    heard: list[tuple[str, object]] = []

    class Ear(Reporter):
        def started(self, config, run_dir, progress):
            heard.append(("started", progress.step))

        def logged(self, row):
            heard.append(("logged", row["step"]))

        def ended(self, result):
            heard.append(("ended", result.step))

    train(tiny(steps=6), tmp_path / "run", Ear(), Ear())
    expected = [
        ("started", 0),
        ("logged", 3),
        ("logged", 5),
        ("logged", 6),
        ("logged", 6),
        ("ended", 6),
    ]
    assert heard == [event for event in expected for _ in range(2)]
