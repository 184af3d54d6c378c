"""A row's state, and its gradient, in and out of a step or a sequence.

States are `MemoryState`s of arrays [B, ·], every row flat; what a state does not have is of no size.
"""

import math

from numba import njit

from torchdnc.engines.fused.kernels.layout import reclaim_parts, slots_place, tape_parts
from torchdnc.engines.fused.kernels.options import EXACT
from torchdnc.engines.fused.kernels.vectors import copy, length


@njit(**EXACT)
def take_in(row, state, b, N, W, R, options):
    """The tape's row of a state, but for the content weightings, which only the step that made it knows."""
    usage, write_weights, precedence, lengths, _, read_weights, _ = tape_parts(row, N, R)
    copy(usage, state.usage[b], N)
    copy(write_weights, state.write_weights[b], N)
    if options.linked:
        copy(precedence, state.precedence[b], N)
    copy(read_weights, state.read_weights[b], R * N)
    if options.reclaims:
        age, pinned, _ = reclaim_parts(row, N, R)
        copy(age, state.age[b], N)
        copy(pinned, state.pinned[b], N)
    if options.grows:
        row[slots_place(N, R)] = state.slots[b, 0]
    for i in range(N):
        lengths[i] = length(state.memory[b, i * W :], W)
        if options.skips and state.written[b, i] == 0:
            lengths[i] = math.inf


@njit(**EXACT)
def hand_out(state, row, b, N, R, options):
    """The state's weightings and what was written, from the tape's row."""
    usage, write_weights, precedence, lengths, _, read_weights, _ = tape_parts(row, N, R)
    copy(state.usage[b], usage, N)
    copy(state.write_weights[b], write_weights, N)
    if options.linked:
        copy(state.precedence[b], precedence, N)
    copy(state.read_weights[b], read_weights, R * N)
    if options.reclaims:
        age, pinned, _ = reclaim_parts(row, N, R)
        copy(state.age[b], age, N)
        copy(state.pinned[b], pinned, N)
    if options.grows:
        state.slots[b, 0] = row[slots_place(N, R)]
    if options.skips:
        for i in range(N):
            state.written[b, i] = lengths[i] < math.inf


@njit(**EXACT)
def take_in_gradient(weightings, d_before, d_after, b, N, W, R, options):
    """The gradient of the state after, where that of the state before is to be: the weightings in one row."""
    copy(d_before.memory[b], d_after.memory[b], N * W)
    copy(weightings, d_after.usage[b], N)
    copy(weightings[N:], d_after.write_weights[b], N)
    if options.linked:
        copy(d_before.link[b], d_after.link[b], N * N)
        copy(weightings[2 * N :], d_after.precedence[b], N)
    copy(weightings[3 * N :], d_after.read_weights[b], R * N)


@njit(**EXACT)
def hand_out_gradient(d_before, weightings, b, N, R, options):
    """The gradient of the weightings of the state before."""
    copy(d_before.usage[b], weightings, N)
    copy(d_before.write_weights[b], weightings[N:], N)
    if options.linked:
        copy(d_before.precedence[b], weightings[2 * N :], N)
    copy(d_before.read_weights[b], weightings[3 * N :], R * N)
