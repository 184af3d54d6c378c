"""Where to read, and what is read."""

from __future__ import annotations

from torchdnc.types import BACKWARD, CONTENT, FORWARD, HeadWeights, HeadWords, Memory, ReadModes


def read_weights(
    backward: HeadWeights, content: HeadWeights, forward: HeadWeights, read_modes: ReadModes
) -> HeadWeights:
    """Mixes the three ways to address: w^r = π[backward] b + π[content] c + π[forward] f.

    Args:
        backward, content, forward: [B, R, N], each of sum at most 1.
        read_modes: [B, R, 3] on the simplex, in the paper's order: backward, content, forward.
    Returns:
        [B, R, N], of sum at most 1.
    Source: Graves et al. 2016, Methods, "Read weighting".
    """
    modes = read_modes.unsqueeze(-1).unbind(-2)
    return modes[BACKWARD] * backward + modes[CONTENT] * content + modes[FORWARD] * forward


def read_words(memory: Memory, read_weights: HeadWeights) -> HeadWords:
    """Reads one word per head: r = w^r M.

    Args:
        memory: [B, N, W].
        read_weights: [B, R, N].
    Returns:
        [B, R, W].
    Source: Graves et al. 2016, Methods, "Memory reading and writing".
    """
    return read_weights @ memory
