"""Linear probes: what can be read from a controller's state by one linear map."""

from __future__ import annotations

import torch
from torch import Tensor

PENALTIES = (1e-4, 1e-2, 1.0, 100.0)
"""Of the ridge regression; the one that does best on samples held out is taken."""


def probe(features: Tensor, targets: Tensor, classes: int) -> tuple[float, float]:
    """How often a linear map of the features finds the class, and how often the most frequent class would.

    The map is a ridge regression to one-hot classes, fitted on half of the samples; a quarter chooses the penalty and
    the last quarter is what the shares are of.

    Args:
        features: [S, F], samples in random order.
        targets: [S] whole numbers from 0 up to, not including, `classes`.
        classes: how many there are.
    Returns:
        the share found, and the share of chance.
    """
    S = len(features)
    fit, choose, test = (slice(0, S // 2), slice(S // 2, 3 * S // 4), slice(3 * S // 4, S))
    x = _scaled(features.double(), fit)
    y = torch.nn.functional.one_hot(targets, classes).double()
    maps = [_ridge(x[fit], y[fit], penalty) for penalty in PENALTIES]
    best = max(maps, key=lambda found: _right(x[choose] @ found, targets[choose]))
    common = int(torch.bincount(targets[fit], minlength=classes).argmax())
    return _right(x[test] @ best, targets[test]), float((targets[test] == common).double().mean())


def _scaled(features: Tensor, fit: slice) -> Tensor:
    """Features of mean 0 and variance 1 on what is fitted, those that never change left out; and a constant."""
    mean, deviation = features[fit].mean(0), features[fit].std(0)
    varying = deviation > 1e-12
    scaled = (features[:, varying] - mean[varying]) / deviation[varying]
    return torch.cat([scaled, scaled.new_ones(len(scaled), 1)], 1)


def _ridge(x: Tensor, y: Tensor, penalty: float) -> Tensor:
    """(XᵀX + λ I)⁻¹ Xᵀ Y."""
    gram = x.T @ x + penalty * torch.eye(x.shape[1], dtype=x.dtype)
    return torch.linalg.solve(gram, x.T @ y)


def _right(scores: Tensor, targets: Tensor) -> float:
    return float((scores.argmax(1) == targets).double().mean())
