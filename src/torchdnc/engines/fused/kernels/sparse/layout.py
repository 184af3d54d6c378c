"""Where things lie in the flat rows that the kernels of the sparse memory work on."""

from numba import njit

from torchdnc.engines.fused.kernels.options import EXACT

# Slots whose similarity to the keys is found at a time.
BLOCK = 32


def most_written(R: int, K: int) -> int:
    """Slots that a step writes to at most: those read before, and the one taken."""
    return R * K + 1


def most_touched(R: int, K: int, links: int) -> int:
    """Slots that a step comes to at most: written, found, read, and what is linked to them."""
    written = most_written(R, K)
    return written + 2 * R * K + (written * 2 * links + 4 * links if links else 0)


def numbers_size(R: int, K: int, links: int) -> int:
    """Numbers that a thread works with: see `number_parts`."""
    written = most_written(R, K)
    return R * BLOCK + R * K + written + (2 * links + written) + links * written


def slots_size(R: int, K: int, links: int) -> int:
    """Slots that a thread works with: see `slot_parts`."""
    written = most_written(R, K)
    return 2 * R * K + written + 2 * (2 * links + written) + _most_mixed(R, K, links)


def _most_mixed(R: int, K: int, links: int) -> int:
    return 2 * most_written(R, K) + K * (2 * links + 1)


@njit(**EXACT)
def number_parts(room, R, K, links):
    """dots [R BLOCK]; similarity of what is found [R K]; write weights; candidates; pending links."""
    written = R * K + 1
    found = R * BLOCK
    weights = found + R * K
    candidates = weights + written
    pending = candidates + 2 * links + written
    return room[:found], room[found:weights], room[weights:candidates], room[candidates:pending], room[pending:]


@njit(**EXACT)
def slot_parts(room, R, K, links):
    """What is found and what is read along links [R K]; written; candidates; where these come from; mixed."""
    written = 2 * R * K
    candidates = written + R * K + 1
    origins = candidates + 2 * links + R * K + 1
    mixed = origins + 2 * links + R * K + 1
    return (
        room[: R * K],
        room[R * K : written],
        room[written:candidates],
        room[candidates:origins],
        room[origins:mixed],
        room[mixed:],
    )


@njit(**EXACT)
def sparse_interface_parts(xi, W, R, links):
    """The parts of an interface row: keys, strengths, write vector, write gate, again gate, read modes."""
    vector = R * W + R
    gates = vector + W
    return (
        xi[: R * W],
        xi[R * W : vector],
        xi[vector:gates],
        xi[gates : gates + 1],
        xi[gates + 1 : gates + 2],
        xi[gates + 2 : gates + 2 + 3 * R * (links > 0)],
    )
