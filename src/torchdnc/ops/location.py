"""Addressing by location, of the Neural Turing Machine (Graves, Wayne & Danihelka 2014, section 3.3)."""

from __future__ import annotations

import torch
from torch import Tensor

from torchdnc.types import HeadScalars, HeadWeights


def interpolate(content: HeadWeights, weights_prev: HeadWeights, gates: HeadScalars) -> HeadWeights:
    """Goes on from where the head was, or from what it looked up: w^g = g w^c + (1 − g) w_{t−1}.

    Args:
        content, weights_prev: [B, R, N], each of sum at most 1.
        gates: [B, R] in [0, 1].
    Returns:
        [B, R, N], of sum at most 1.
    Source: Graves et al. 2014, equation 7.
    """
    return torch.lerp(weights_prev, content, gates.unsqueeze(-1))


def shift(weights: HeadWeights, shifts: Tensor) -> HeadWeights:
    """Rotates by a distribution over distances: w̃[i] = Σ_k s[k] w[i − k], slots counted modulo N.

    Args:
        weights: [B, R, N].
        shifts: [B, R, S] on the simplex, S odd, for the distances k = −(S − 1)/2 to (S − 1)/2.
    Returns:
        [B, R, N], of the same sum as the weights.
    Source: Graves et al. 2014, equation 8.
    """
    half = shifts.shape[-1] // 2
    turned = [weights.roll(distance, -1) for distance in range(-half, half + 1)]
    return (torch.stack(turned, -1) * shifts.unsqueeze(-2)).sum(-1)


def sharpen(weights: HeadWeights, sharpness: HeadScalars) -> HeadWeights:
    """Undoes the blur of shifting: w[i] = w̃[i]^γ / Σ_j w̃[j]^γ.

    Args:
        weights: [B, R, N] in [0, 1], not all 0.
        sharpness: γ, [B, R], at least 1.
    Returns:
        [B, R, N], of sum 1.
    Source: Graves et al. 2014, equation 9.
    """
    # The largest is made 1: a weighting spread over many slots would vanish, raised to a large power. The factor is a
    # constant, as it cancels.
    largest = weights.detach().amax(-1, keepdim=True)
    powers = (weights / largest) ** sharpness.unsqueeze(-1)
    return powers / powers.sum(-1, keepdim=True)
