"""The interface vector and its squashing functions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from torchdnc.types import Interface

# softplus switches to the identity above this: exp(40) fits float32, and what is dropped (exp(-40)) is below
# float64's resolution there; PyTorch's own threshold of 20 would be wrong by 2e-9.
SOFTPLUS_THRESHOLD = 40.0


def oneplus(x: Tensor) -> Tensor:
    """Maps any number into [1, inf): oneplus(x) = 1 + log(1 + e^x).

    Source: Graves et al. 2016, Methods, "Interface parameters".
    """
    return 1 + F.softplus(x, threshold=SOFTPLUS_THRESHOLD)


def interface_size(word_size: int, read_heads: int) -> int:
    """Width of the interface vector: W·R + 3W + 5R + 3."""
    return word_size * read_heads + 3 * word_size + 5 * read_heads + 3


def split_interface(interface: Tensor, word_size: int, read_heads: int) -> Interface:
    """Cuts the interface vector into its parts, in the paper's order, and squashes each into its range.

    ξ = [k^{r,1..R}; β^{r,1..R}; k^w; β^w; e; v; f^{1..R}; g^a; g^w; π^{1..R}], strengths by oneplus, gates
    and erase by the logistic function, read modes by a softmax over the three, keys and write vector as they
    are.

    Args:
        interface: [..., W·R + 3W + 5R + 3].
        word_size: W, at least 1.
        read_heads: R, at least 1.
    Raises:
        ValueError: the last dimension is not W·R + 3W + 5R + 3.
    Source: Graves et al. 2016, Methods, "Interface parameters".
    """
    W, R = word_size, read_heads
    if interface.shape[-1] != interface_size(W, R):
        raise ValueError(
            f"interface must have {interface_size(W, R)} features (W·R + 3W + 5R + 3 with W={W}, R={R}), "
            f"got {interface.shape[-1]}"
        )
    # The two gates of one number each are cut and squashed as a pair.
    sizes = [R * W, R, W, 1, W, W, R, 2, 3 * R]
    keys, strengths, write_key, write_strength, erase, vector, free, pair, modes = interface.split_with_sizes(sizes, -1)
    alloc_gate, write_gate = torch.sigmoid(pair).unbind(-1)
    return Interface(
        read_keys=keys.unflatten(-1, (R, W)),
        read_strengths=oneplus(strengths),
        write_key=write_key,
        write_strength=oneplus(write_strength).squeeze(-1),
        erase=torch.sigmoid(erase),
        write_vector=vector,
        free_gates=torch.sigmoid(free),
        alloc_gate=alloc_gate,
        write_gate=write_gate,
        read_modes=torch.softmax(modes.unflatten(-1, (R, 3)), -1),
    )
