"""Training on the fused engine is training on the reference: curves that overlap, models that answer alike."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from torchdnc.tasks import Batch
from torchdnc.tasks.copy import Copy
from torchdnc.training import find_recipe, load_recipe, train
from torchdnc.training.evaluate import load_run
from torchdnc.training.models import DNCModel
from torchdnc.types import PAPER, MemoryOptions

TASK = Copy(bits=3, max_length=4)
STEPS = 60
BANDS = {torch.float64: 1e-12, torch.float32: 1e-4}
"""How far curves may be apart, in parts of the loss. Training makes rounding grow: what begins with the last bit is
some ten times that after these steps, and as much as the loss itself after some hundreds."""


@cache
def curve(engine: Any, dtype: torch.dtype, seed: int, options: MemoryOptions = PAPER) -> Tensor:
    """The loss at every step."""
    torch.manual_seed(seed)
    settings = DNCModel(32, memory_size=8, word_size=8, read_heads=1, engine=engine, options=options)
    model = settings.build(TASK.spec).to(dtype)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for step in range(STEPS):
        batch = TASK.sample(8, seed=seed, step=step)
        loss = TASK.loss(model(batch.inputs.to(dtype))[0], batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return torch.tensor(losses, dtype=torch.float64)


def apart(one: Tensor, other: Tensor) -> float:
    return ((one - other) / other).abs().max().item()


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("dtype", BANDS, ids=str)
def test_curves_overlap(dtype: torch.dtype, seed: int) -> None:
    fused, reference = curve("fused", dtype, seed), curve("reference", dtype, seed)
    assert reference[-10:].mean() < 0.9 * reference[:10].mean()
    assert apart(fused, reference) <= BANDS[dtype]


@pytest.mark.parametrize("dtype", BANDS, ids=str)
def test_bands_see_a_gradient_that_lacks_a_part(dtype: torch.dtype) -> None:
    stopped = curve("fused", dtype, 0, MemoryOptions(usage_gradient=False))
    assert apart(stopped, curve("reference", dtype, 0)) > 3 * BANDS[dtype]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that learned to copy on the fused engine."""
    folder = tmp_path_factory.mktemp("copy") / "run"
    assert train(load_recipe(find_recipe("copy-demo")), folder).status == "solved"
    return folder


def batch_of(run: Path, length: int | None) -> Batch:
    task = load_run(run)[0].task
    task = task if length is None else task.with_length(length)
    return next(task.evaluation("test", batch_size=200, sequences=200, seed=0))


def outputs(run: Path, engine: str, batch: Batch, memory_size: int, dtype: torch.dtype) -> Tensor:
    model = load_run(run, memory_size=memory_size)[1].to(dtype)
    model.engine = engine  # type: ignore[assignment]
    with torch.no_grad():
        return model(batch.inputs.to(dtype))[0]  # type: ignore[no-any-return]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-2)], ids=str)
@pytest.mark.parametrize(("length", "memory_size"), [(None, 16), (20, 32)])
def test_a_trained_model_answers_alike(
    trained: Path, length: int | None, memory_size: int, dtype: torch.dtype, tolerance: float
) -> None:
    """Also on sequences twice as long as those it was trained on."""
    batch = batch_of(trained, length)
    fused, reference = (
        outputs(trained, engine, batch, memory_size, dtype)[batch.mask] for engine in ("fused", "reference")
    )
    assert ((fused - reference).abs() / (1 + reference.abs())).max() <= tolerance
    assert torch.equal(fused > 0, reference > 0)
    wrong = (fused > 0) != (batch.targets[batch.mask] > 0.5)
    assert wrong.double().mean() < 0.25
