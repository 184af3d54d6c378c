"""What a full memory does: `torchdnc.ops.overflow`, of one row."""

import math

from numba import njit

from torchdnc.engines.fused.kernels.layout import reclaim_parts, slots_place, tape_parts
from torchdnc.engines.fused.kernels.options import EXACT
from torchdnc.ops.overflow import IN_USE


@njit(**EXACT)
def reclaim(row, prev, N, R, options):
    """Releases slots of the row, those longest without an access, where too many are in use; says which."""
    usage = tape_parts(row, N, R)[0]
    _, pinned, released = reclaim_parts(row, N, R)
    age_prev, pinned_prev, _ = reclaim_parts(prev, N, R)
    used, most, least = 0, math.floor(options.high * N), math.floor(options.low * N)
    for i in range(N):
        pinned[i] = pinned_prev[i]
        released[i] = 0
        used += usage[i] > IN_USE
    if used <= most:
        return
    while used > least:
        oldest = -1
        for i in range(N):
            if usage[i] > IN_USE and pinned[i] == 0 and (oldest < 0 or age_prev[i] > age_prev[oldest]):
                oldest = i
        if oldest < 0:
            return
        released[oldest], usage[oldest] = 1, 0
        used -= 1


@njit(**EXACT)
def grow_older(row, prev, N, R):
    """n := (n + 1) (1 − w^w) Π_r (1 − w^r)."""
    _, write_weights, _, _, _, read_weights, _ = tape_parts(row, N, R)
    age, age_prev = reclaim_parts(row, N, R)[0], reclaim_parts(prev, N, R)[0]
    one = age.dtype.type(1)
    for i in range(N):
        missed = (age_prev[i] + one) * (one - write_weights[i])
        for r in range(R):
            missed *= one - read_weights[r * N + i]
        age[i] = missed


@njit(**EXACT)
def release_backward(d_usage, row, N, R):
    """What was released has no gradient."""
    released = reclaim_parts(row, N, R)[2]
    for i in range(N):
        if released[i] != 0:
            d_usage[i] = 0


@njit(**EXACT)
def grown(prev, N, R, options):
    """How many slots a row has in the step after `prev`: twice as many as before if these are crowded."""
    usage, write_weights, _, _, _, _, _ = tape_parts(prev, N, R)
    one, n = usage.dtype.type(1), int(prev[slots_place(N, R)])
    for i in range(n):
        if not one - (one - usage[i]) * (one - write_weights[i]) > usage.dtype.type(options.above):
            return n
    return max(n, min(2 * n, options.most))
