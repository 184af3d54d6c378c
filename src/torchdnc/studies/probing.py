"""Linear probes: what can be read from a controller's state by one linear map."""

from __future__ import annotations

import torch
from torch import Tensor

PENALTIES = (1e-6, 1e-4, 1e-2, 1.0)
"""Of the ridge regression, for each sample; the one that does best on samples held out is taken."""


class Probe:
    """Ridge regressions of the same features to one class or another.

    Half of the samples are fitted, a quarter chooses the penalty, and what is told is of the last quarter.

    Args:
        features: [S, F], samples in random order.
    """

    def __init__(self, features: Tensor) -> None:
        S = len(features)
        self.fit, self.choose, self.test = slice(0, S // 2), slice(S // 2, 3 * S // 4), slice(3 * S // 4, S)
        self.x = _scaled(features.double(), self.fit)
        fitted = self.x[self.fit]
        # XᵀX + λ I for every λ.
        unit = torch.eye(fitted.shape[1], dtype=fitted.dtype)
        self.grams = torch.linalg.cholesky(
            torch.stack([fitted.T @ fitted + penalty * len(fitted) * unit for penalty in PENALTIES])
        )

    def above_chance(self, targets: Tensor, classes: int) -> float:
        """How much more often a linear map of the features finds the class than naming the most frequent one does.

        Args:
            targets: [S] whole numbers from 0 up to, not including, `classes`.
            classes: how many there are.
        Returns:
            (found − chance) / (1 − chance): 1 where always, 0 where no more often, or where the class never varies.
        """
        y = torch.nn.functional.one_hot(targets, classes).double()
        maps = torch.cholesky_solve(self.x[self.fit].T @ y[self.fit], self.grams)
        best = max(maps, key=lambda found: self._right(found, targets, self.choose))
        common = torch.bincount(targets[self.fit], minlength=classes).argmax()
        chance = float((targets[self.test] == common).double().mean())
        return (self._right(best, targets, self.test) - chance) / (1 - chance) if chance < 1 else 0.0

    def _right(self, found: Tensor, targets: Tensor, part: slice) -> float:
        return float(((self.x[part] @ found).argmax(1) == targets[part]).double().mean())


def _scaled(features: Tensor, fit: slice) -> Tensor:
    """Features of mean 0 and variance 1 on what is fitted, those that never change left out; and a constant."""
    mean, deviation = features[fit].mean(0), features[fit].std(0)
    varying = deviation > 1e-12
    scaled = (features[:, varying] - mean[varying]) / deviation[varying]
    return torch.cat([scaled, scaled.new_ones(len(scaled), 1)], 1)
