"""The interface vector and its squashing functions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from torchdnc.types import PAPER, UNUSED, Interface, MemoryOptions

# softplus switches to the identity above this: exp(40) fits float32, and what is dropped (exp(-40)) is below
# float64's resolution there; PyTorch's own threshold of 20 would be wrong by 2e-9.
SOFTPLUS_THRESHOLD = 40.0


def oneplus(x: Tensor) -> Tensor:
    """Maps any number into [1, inf): oneplus(x) = 1 + log(1 + e^x).

    Source: Graves et al. 2016, Methods, "Interface parameters".
    """
    return 1 + F.softplus(x, threshold=SOFTPLUS_THRESHOLD)


def _layout(W: int, R: int, options: MemoryOptions) -> dict[str, int]:
    """Widths of the parts of the interface vector, in their order: the paper's, and behind them those of options."""
    widths = {"read_keys": R * W, "read_strengths": R, "write_key": W, "write_strength": 1, "erase": W}
    # The two gates of one number each are cut and squashed as a pair.
    widths |= {"write_vector": W, "free_gates": R, "gates": 2}
    if options.links != "none":
        widths["read_modes"] = 3 * R
    if options.masking:
        widths |= {"read_masks": R * W, "write_mask": W}
    if options.sharpness:
        widths |= {"forward_sharpness": R, "backward_sharpness": R}
    return widths


def _mask(raw: Tensor, floor: float) -> Tensor:
    """floor + (1 − floor) σ(x)."""
    return floor + (1 - floor) * torch.sigmoid(raw)


def interface_size(word_size: int, read_heads: int, options: MemoryOptions = PAPER) -> int:
    """Width of the interface vector: W·R + 3W + 5R + 3.

    `links="none"` takes off 3R read modes, `masking` adds (R + 1)W, `sharpness` 2R.
    """
    return sum(_layout(word_size, read_heads, options).values())


def split_interface(interface: Tensor, word_size: int, read_heads: int, options: MemoryOptions = PAPER) -> Interface:
    """Cuts the interface vector into its parts, in the paper's order, and squashes each into its range.

    ξ = [k^{r,1..R}; β^{r,1..R}; k^w; β^w; e; v; f^{1..R}; g^a; g^w; π^{1..R}], strengths by oneplus, gates
    and erase by the logistic function, read modes by a softmax over the three, keys and write vector as they
    are. With `links="none"` there is no π. Behind these come, of options that are on:
    `masking`: [m^{r,1..R}; m^w], by the logistic function times (1 − floor), plus the floor;
    `sharpness`: [s_f^{1..R}; s_b^{1..R}], by oneplus.

    Args:
        interface: [..., interface_size(W, R, options)].
        word_size: W, at least 1.
        read_heads: R, at least 1.
        options: departures from the paper.
    Raises:
        ValueError: the last dimension is of another size.
    Source: Graves et al. 2016, Methods, "Interface parameters"; options: Csordás & Schmidhuber 2019, section 3.
    """
    W, R = word_size, read_heads
    widths = _layout(W, R, options)
    if interface.shape[-1] != sum(widths.values()):
        raise ValueError(
            f"interface must have {sum(widths.values())} features (with W={W}, R={R} and these options: "
            f"{' + '.join(f'{width} {name}' for name, width in widths.items())}), got {interface.shape[-1]}"
        )
    parts = dict(zip(widths, interface.split_with_sizes([*widths.values()], -1), strict=True))
    alloc_gate, write_gate = torch.sigmoid(parts["gates"]).unbind(-1)
    xi = Interface(
        read_keys=parts["read_keys"].unflatten(-1, (R, W)),
        read_strengths=oneplus(parts["read_strengths"]),
        write_key=parts["write_key"],
        write_strength=oneplus(parts["write_strength"]).squeeze(-1),
        erase=torch.sigmoid(parts["erase"]),
        write_vector=parts["write_vector"],
        free_gates=torch.sigmoid(parts["free_gates"]),
        alloc_gate=alloc_gate,
        write_gate=write_gate,
        read_modes=UNUSED,
    )
    if options.links != "none":
        xi = xi._replace(read_modes=torch.softmax(parts["read_modes"].unflatten(-1, (R, 3)), -1))
    if options.masking:
        read_masks = _mask(parts["read_masks"].unflatten(-1, (R, W)), options.mask_floor)
        xi = xi._replace(read_masks=read_masks, write_mask=_mask(parts["write_mask"], options.mask_floor))
    if options.sharpness:
        forward, backward = oneplus(parts["forward_sharpness"]), oneplus(parts["backward_sharpness"])
        xi = xi._replace(forward_sharpness=forward, backward_sharpness=backward)
    return xi
