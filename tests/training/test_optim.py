"""Optimisers against the published equations in NumPy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.conftest import assert_close
from tests.training.runs import At, assert_same_run, interrupt, rows, tiny, uninterrupted
from torchdnc.training import Optimizer, resume, train

GRADIENTS = np.random.default_rng(0).normal(size=(6, 5)) * np.array([1e-6, 1e-3, 1, 30, 0])
START = np.linspace(-1, 1, 5)


def updated(optimizer: Optimizer, gradients: np.ndarray) -> Tensor:
    parameter = nn.Parameter(torch.tensor(START))
    built = optimizer.build([parameter])
    for gradient in gradients:
        parameter.grad = torch.tensor(gradient)
        built.step()
    return parameter.detach()


def graves(gradients: np.ndarray, rate: float, momentum: float, decay: float, damping: float) -> np.ndarray:
    """Equations 38 to 45 of Graves 2013, written as there."""
    w, n, g, delta = START.copy(), np.zeros(5), np.zeros(5), np.zeros(5)
    for epsilon in gradients:
        n = decay * n + (1 - decay) * epsilon**2
        g = decay * g + (1 - decay) * epsilon
        delta = momentum * delta - rate * epsilon / np.sqrt(n - g**2 + damping)
        w = w + delta
    return w


def adam(gradients: np.ndarray, rate: float, epsilon: float) -> np.ndarray:
    """Kingma & Ba 2015, algorithm 1."""
    w, m, v = START.copy(), np.zeros(5), np.zeros(5)
    for t, g in enumerate(gradients, 1):
        m = 0.9 * m + 0.1 * g
        v = 0.999 * v + 0.001 * g**2
        w = w - rate * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + epsilon)
    return w


def test_rmsprop_is_that_of_the_papers() -> None:
    assert_close(updated(Optimizer("rmsprop", 1e-2), GRADIENTS), graves(GRADIENTS, 1e-2, 0.9, 0.95, 1e-4))
    other = Optimizer("rmsprop", 1e-2, momentum=0.5, decay=0.7, epsilon=1e-2)
    assert_close(updated(other, GRADIENTS), graves(GRADIENTS, 1e-2, 0.5, 0.7, 1e-2))
    with pytest.raises(AssertionError, match="off by"):
        assert_close(updated(other, GRADIENTS), graves(GRADIENTS, 1e-2, 0.5, 0.7, 1e-4))


def test_rmsprop_of_a_constant_gradient_is_finite() -> None:
    """The variance tends to 0 from both sides in float32; without a floor its root is NaN."""
    parameter = nn.Parameter(torch.zeros(100))
    built = Optimizer("rmsprop", 1e-6, epsilon=1e-30).build([parameter])
    for _ in range(300):
        parameter.grad = torch.linspace(1, 3, 100)
        built.step()
    assert parameter.isfinite().all()
    assert (parameter < 0).all()


def test_adam() -> None:
    assert_close(updated(Optimizer("adam", 1e-2), GRADIENTS), adam(GRADIENTS, 1e-2, 1e-8))
    assert_close(updated(Optimizer("adam", 1e-2, epsilon=0.1), GRADIENTS), adam(GRADIENTS, 1e-2, 0.1))


@pytest.mark.parametrize("name", ["none", "norm", "value"])
def test_clipping(name: str) -> None:
    first, second = np.array([3.0, -4.0]), np.array([[12.0]])
    expected = {
        "none": (first, second),
        # The norm of all is sqrt(9 + 16 + 144) = 13.
        "norm": (first * 6.5 / 13, second * 6.5 / 13),
        "value": (first.clip(-3.5, 3.5), second.clip(-3.5, 3.5)),
    }
    settings = {
        "none": Optimizer(),
        "norm": Optimizer(clip_norm=6.5),
        "value": Optimizer(clip_value=3.5),
    }
    parameters = [nn.Parameter(torch.zeros(x.shape, dtype=torch.float64)) for x in (first, second)]
    for parameter, gradient in zip(parameters, (first, second), strict=True):
        parameter.grad = torch.tensor(gradient)
    assert settings[name].clip(parameters).item() == pytest.approx(13)
    for parameter, gradient in zip(parameters, expected[name], strict=True):
        assert parameter.grad is not None
        # PyTorch divides by the norm plus 1e-6.
        assert_close(parameter.grad, gradient, tolerance=1e-6)


def test_a_rate_falls_in_a_line_to_nothing() -> None:
    steps = 8
    settings = Optimizer("adam", 0.4, anneal_from=0.5)
    built = settings.build([nn.Parameter(torch.zeros(1))])
    rates = []
    for step in range(steps):
        settings.set_rate(built, step / steps)
        rates += [group["lr"] for group in built.param_groups]
    assert rates == pytest.approx([0.4, 0.4, 0.4, 0.4, 0.4, 0.3, 0.2, 0.1])
    Optimizer("adam", 0.4).set_rate(built, 0.9)
    assert built.param_groups[0]["lr"] == 0.4


@pytest.mark.parametrize("share", [1.0, -0.1])
def test_where_it_begins_to_fall_is_a_share(share: float) -> None:
    with pytest.raises(ValueError, match=r"optimizer.anneal_from must be at least 0 and less than 1"):
        Optimizer(anneal_from=share)


def test_a_falling_rate_goes_on_where_it_was(tmp_path: Path) -> None:
    falling = Optimizer("adam", 1e-2, anneal_from=0.25)
    train(tiny(optimizer=falling), tmp_path / "run", At(6, interrupt))
    resume(tmp_path / "run")
    whole = uninterrupted(tmp_path / "whole", optimizer=falling)
    assert_same_run(tmp_path / "run", whole)
    assert rows(whole) != rows(uninterrupted(tmp_path / "steady", optimizer=replace(falling, anneal_from=None)))
