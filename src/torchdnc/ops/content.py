"""Content-based addressing."""

from __future__ import annotations

import torch
from torch import Tensor

from torchdnc.types import UNUSED, HeadWeights, Memory, Unused, Weights

# Added to every squared length before its root: an empty row or key then scores 0 instead of 0/0, and the
# gradient of the root stays finite at zero.
COSINE_EPSILON = 1e-6


def word_lengths(vectors: Tensor) -> Tensor:
    """sqrt(|v|² + ε) along the last dimension."""
    return ((vectors * vectors).sum(-1) + COSINE_EPSILON).sqrt()


def slot_softmax(scores: HeadWeights, written: Weights | Unused = UNUSED) -> HeadWeights:
    """Softmax over the slots, or over those that were ever written to, and zero where none was.

    Args:
        scores: [B, R, N], finite.
        written: [B, N], 0 or 1; () for all slots.
    Returns:
        [B, R, N], each weighting non-negative and of sum 1, or 0 where there is no slot to weight.
    """
    if not isinstance(written, Tensor):
        return torch.softmax(scores, -1)
    never = (written == 0).unsqueeze(-2)
    # With -inf a look-up among no slots at all would be 0/0, and so would its gradient.
    weights = torch.softmax(scores.masked_fill(never, torch.finfo(scores.dtype).min), -1)
    return weights.masked_fill(never, 0)


def content_weights(
    memory: Memory,
    keys: Tensor,
    strengths: Tensor,
    written: Weights | Unused = UNUSED,
    masks: Tensor | Unused = UNUSED,
) -> Tensor:
    """Looks memory up by content: C(M, k, β, m)[i] = softmax_i(β · cos(k ∘ m, M[i] ∘ m)).

    cos(u, v) = u·v / (sqrt(|u|² + ε) sqrt(|v|² + ε)) with ε = 1e-6, so an empty row or key scores 0.

    Args:
        memory: [B, N, W].
        keys: [B, R, W], or [B, W] for a single head.
        strengths: [B, R] or [B], in [1, inf).
        written: [B, N], 1 for slots to look at and 0 for slots to pass over; () for all slots. Slots never written to
            score 0 each, and by their number alone outweigh what is sought.
        masks: [B, R, W] or [B, W], in [0, 1], of which parts of a word are compared; () for all of it.
    Returns:
        [B, R, N] or [B, N], each weighting non-negative and of sum 1, or 0 where every slot is passed over.
    Source: Graves et al. 2016, Methods, "Content-based addressing"; masks: Csordás & Schmidhuber 2019, section 3.1.
    """
    if keys.dim() == memory.dim() - 1:
        masks = masks.unsqueeze(-2) if isinstance(masks, Tensor) else masks
        return content_weights(memory, keys.unsqueeze(-2), strengths.unsqueeze(-1), written, masks).squeeze(-2)
    if isinstance(masks, Tensor):
        # The memory is masked by every head; it need not be held once for each, as products of squares do the same.
        squares = masks * masks
        lengths = (squares @ (memory * memory).transpose(-1, -2) + COSINE_EPSILON).sqrt()
        dots, key_lengths = (keys * squares) @ memory.transpose(-1, -2), word_lengths(keys * masks)
    else:
        lengths = word_lengths(memory).unsqueeze(-2)
        dots, key_lengths = keys @ memory.transpose(-1, -2), word_lengths(keys)
    # Keys and strengths are scaled before the rows: two small products instead of one more of size R·N.
    scale = (strengths / key_lengths).unsqueeze(-1)
    return slot_softmax(dots * scale / lengths, written)
