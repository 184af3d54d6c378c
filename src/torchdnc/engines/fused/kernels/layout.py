"""Where things lie in the flat rows that kernels work on."""

from numba import njit

from torchdnc.engines.fused.kernels.arrays import Options
from torchdnc.engines.fused.kernels.options import EXACT


def tape_size(N: int, R: int, options: Options) -> int:
    """Numbers per row and step that are kept for the backward pass, besides the interface: see `tape_parts`, and
    `reclaim_parts` or `slots_place` behind them."""
    return 5 * N + 2 * R * N + 3 * N * options.reclaims + options.grows


def work_size(N: int, W: int, R: int, options: Options) -> int:
    """Numbers that the gradient of a step, which needs most, works with, rounded up to whole cache lines."""
    masking = (N * W + 2 * R * (W + N)) * options.masked
    return -(-((3 * R + 12) * N + 8 * R + N * W * (options.wipes or options.reclaims) + masking) // 16) * 16


@njit(**EXACT)
def tape_parts(row, N, R):
    """usage, write_weights, precedence, lengths of the slots, write content [N]; read_weights, read content [R N].

    Where look-ups skip slots that were never written, the length of such a slot is infinite.
    """
    return (
        row[:N],
        row[N : 2 * N],
        row[2 * N : 3 * N],
        row[3 * N : 4 * N],
        row[4 * N : 5 * N],
        row[5 * N : 5 * N + R * N],
        row[5 * N + R * N : 5 * N + 2 * R * N],
    )


@njit(**EXACT)
def reclaim_parts(row, N, R):
    """age, pinned and, of the step, released [N]: the end of a tape's row, where slots are reclaimed."""
    first = 5 * N + 2 * R * N
    return row[first : first + N], row[first + N : first + 2 * N], row[first + 2 * N : first + 3 * N]


@njit(**EXACT)
def slots_place(N, R):
    """Where a tape's row says how many slots the row has, where rows grow: behind all else."""
    return 5 * N + 2 * R * N


@njit(**EXACT)
def slots_of(row, N, R, options):
    """How many of the N slots the row has."""
    return int(row[slots_place(N, R)]) if options.grows else N


@njit(**EXACT)
def interface_parts(xi, W, R, options):
    """The parts of an interface row, in the paper's order; single numbers as arrays of one. Without links there are no
    modes."""
    strength = R * W + R + W
    free = strength + 1 + 2 * W
    return (
        xi[: R * W],
        xi[R * W : R * W + R],
        xi[R * W + R : strength],
        xi[strength : strength + 1],
        xi[strength + 1 : strength + 1 + W],
        xi[strength + 1 + W : free],
        xi[free : free + R],
        xi[free + R : free + R + 1],
        xi[free + R + 1 : free + R + 2],
        xi[free + R + 2 : free + R + 2 + 3 * R * options.linked],
    )


@njit(**EXACT)
def mask_parts(xi, W, R, options):
    """What lies behind the paper's interface, where it does: masks of the read keys [R W] and of the write key [W]."""
    first = (R * W + R + W) + 1 + 2 * W + (R + 2) + 3 * R * options.linked
    last = first + R * W * options.masked
    return xi[first:last], xi[last : last + W * options.masked]


@njit(**EXACT)
def masking_parts(work, N, W, R):
    """The end of a thread's room, where there are masks: the squares of a memory [N W]; those of the masks, masked keys
    [R W]; the slots' lengths, and what they shrink by [R N]; all for R heads or fewer."""
    room = work[work.shape[0] - N * W - 2 * R * (W + N) :]
    spare = room[N * W :]
    return (
        room[: N * W],
        spare[: R * W],
        spare[R * W : 2 * R * W],
        spare[2 * R * W : 2 * R * W + R * N],
        spare[2 * R * W + R * N :],
    )
