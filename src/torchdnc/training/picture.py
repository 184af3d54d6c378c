"""The memory at work, as text."""

from collections.abc import Sequence

import torch
from torch import Tensor

from torchdnc.nn import DNC
from torchdnc.types import DNCState

SHADES = " .:+*#@"
"""From weight 0 to weight 1."""


@torch.no_grad()
def weightings(model: DNC, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """The weightings of every step of one sequence.

    Args:
        model: a DNC.
        inputs: [T, I].
    Returns:
        write weightings [T, N] and read weightings [T, R, N], each weighting of sum at most 1.
    """
    return weightings_of(model.trace(inputs)[1])


def weightings_of(states: Sequence[DNCState]) -> tuple[Tensor, Tensor]:
    """The same of the states of such a sequence."""
    memories = [state.memory for state in states]
    return torch.stack([m.write_weights for m in memories]), torch.stack([m.read_weights for m in memories])


def picture(writes: Tensor, reads: Tensor) -> str:
    """Each head's weightings: a line per slot, a column per step, the darker the larger the weight.

    Args:
        writes: [T, N] in [0, 1].
        reads: [T, R, N] in [0, 1].
    """
    heads = [("write", writes)] + [(f"read {head + 1}", reads[:, head]) for head in range(reads.shape[1])]
    return "\n\n".join(_head(name, weights) for name, weights in heads)


def _head(name: str, weights: Tensor) -> str:
    steps, slots = weights.shape
    ruler = "".join(str(step % 10) for step in range(steps))
    lines = [f"{name:>8} {ruler}"]
    lines += [f"{slot:>8} {_shades(weights[:, slot])}".rstrip() for slot in range(slots)]
    return "\n".join(lines)


def _shades(weights: Tensor) -> str:
    return "".join(SHADES[round(weight * (len(SHADES) - 1))] for weight in weights.clamp(0, 1).tolist())
