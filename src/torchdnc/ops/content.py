"""Content-based addressing."""

from __future__ import annotations

import torch
from torch import Tensor

from torchdnc.types import Memory

# Added to every squared length before its root: an empty row or key then scores 0 instead of 0/0, and the
# gradient of the root stays finite at zero.
COSINE_EPSILON = 1e-6


def _length(vectors: Tensor) -> Tensor:
    """sqrt(|v|² + ε) along the last dimension."""
    return ((vectors * vectors).sum(-1) + COSINE_EPSILON).sqrt()


def content_weights(memory: Memory, keys: Tensor, strengths: Tensor) -> Tensor:
    """Looks memory up by content: C(M, k, β)[i] = softmax_i(β · cos(k, M[i])).

    cos(u, v) = u·v / (sqrt(|u|² + ε) sqrt(|v|² + ε)) with ε = 1e-6, so an empty row or key scores 0.

    Args:
        memory: [B, N, W].
        keys: [B, R, W], or [B, W] for a single head.
        strengths: [B, R] or [B], in [1, inf).
    Returns:
        [B, R, N] or [B, N], each weighting non-negative and of sum 1.
    Source: Graves et al. 2016, Methods, "Content-based addressing".
    """
    if keys.dim() == memory.dim() - 1:
        return content_weights(memory, keys.unsqueeze(-2), strengths.unsqueeze(-1)).squeeze(-2)
    dots = keys @ memory.transpose(-1, -2)
    # Keys and strengths are scaled before the rows: two small products instead of one more of size R·N.
    scale = (strengths / _length(keys)).unsqueeze(-1)
    return torch.softmax(dots * scale / _length(memory).unsqueeze(-2), -1)
