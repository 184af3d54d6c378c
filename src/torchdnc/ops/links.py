"""Temporal links: in which order slots were written."""

from __future__ import annotations

import torch

from torchdnc.ops.content import slot_softmax
from torchdnc.types import UNUSED, HeadScalars, HeadWeights, Link, Unused, Weights

# Added to a weighting before it is raised to a power: where links lead nowhere there would be 0/0, and wherever a
# weight is 0 the logarithm's gradient would be 1/0.
SHARPNESS_EPSILON = 1e-6


def precedence(precedence_prev: Weights, write_weights: Weights) -> Weights:
    """How much each slot was the last one written: p_t = (1 − Σ_i w^w_t[i]) p_{t−1} + w^w_t.

    Args:
        precedence_prev: [B, N], of sum at most 1.
        write_weights: [B, N].
    Returns:
        [B, N], of sum at most 1.
    Source: Graves et al. 2016, Methods, "Temporal memory linkage".
    """
    return (1 - write_weights.sum(-1, keepdim=True)) * precedence_prev + write_weights


def link(link_prev: Link, precedence_prev: Weights, write_weights: Weights) -> Link:
    """Which slot was written after which.

    L_t[i, j] = (1 − w[i] − w[j]) L_{t−1}[i, j] + w[i] p_{t−1}[j], L_t[i, i] = 0, with w = w^w_t.

    Args:
        link_prev: [B, N, N].
        precedence_prev: [B, N], of step t−1: not yet told of this write.
        write_weights: [B, N], of step t.
    Returns:
        [B, N, N], rows and columns of sum at most 1, zero diagonal.
    Source: Graves et al. 2016, Methods, "Temporal memory linkage".
    """
    after, before = write_weights.unsqueeze(-1), write_weights.unsqueeze(-2)
    # w[j] is negated while it is a vector: subtracted, its gradient would be negated as a matrix.
    linked = torch.addcmul(link_prev * (1 - after + -before), after, precedence_prev.unsqueeze(-2))
    linked.diagonal(dim1=-2, dim2=-1).zero_()
    return linked


def directional_weights(link: Link, read_weights_prev: HeadWeights) -> tuple[HeadWeights, HeadWeights]:
    """Moves every read head along the links: forward f = L w^r_{t−1}, backward b = Lᵀ w^r_{t−1}.

    Args:
        link: [B, N, N], of step t.
        read_weights_prev: [B, R, N], of step t−1.
    Returns:
        forward, backward: each [B, R, N], of sum at most 1.
    Source: Graves et al. 2016, Methods, "Temporal memory linkage".
    """
    return read_weights_prev @ link.transpose(-1, -2), read_weights_prev @ link


def sharpen_directional(
    weights: HeadWeights, sharpness: HeadScalars, written: Weights | Unused = UNUSED
) -> HeadWeights:
    """Undoes the blur of following links: S(d, s)[i] = (d[i] + ε)^s / Σ_j (d[j] + ε)^s, with ε = 1e-6.

    Computed as softmax_i(s log(d[i] + ε)), which is the same and overflows nowhere. A weighting of zeros comes out
    uniform.

    Args:
        weights: d, [B, R, N], forward or backward, of sum at most 1.
        sharpness: s, [B, R] in [1, inf).
        written: [B, N], 1 for slots that take part and 0 for others, which then stay at 0; () for all slots.
    Returns:
        [B, R, N], each weighting of sum 1, or 0 where no slot takes part.
    Source: Csordás & Schmidhuber 2019, section 3.3.
    """
    return slot_softmax(sharpness.unsqueeze(-1) * (weights + SHARPNESS_EPSILON).log(), written)
