"""What the kernels of the sparse memory work on, by name."""

from typing import NamedTuple

from torchdnc.engines.fused.kernels.arrays import Array


class SparseSizes(NamedTuple):
    """Numbers of a call, those of the controller as in `Sizes`.

    N: slots that there may be; K: slots that a head reads; links: of a slot, in each direction; 0: there are none.
    """

    T: int
    B: int
    I: int
    H: int
    N: int
    W: int
    R: int
    K: int
    links: int
    X: int
    layers: int
    recurrent: bool
    bound: float
    normed: bool
    beside: bool
    keep: bool


class Rows(NamedTuple):
    """The slots that exist.

    content [B, C·W]; lengths [B, C]: of the words; accessed [B, C]: see `SparseSlots`; back_slots, back [B, C·K_L]:
    which slots a slot was written right after, and how much, as many as there are and then -1; ahead_slots, ahead:
    which were right after it. counts [B, 4]: slots that exist, the oldest, the newest, steps so far. older, newer
    [B, C]: the neighbours of a slot in the order of their last access, then of their number; -1 at the ends. places
    [B, C]: where a journal may hold a slot.
    """

    content: Array
    lengths: Array
    accessed: Array
    back_slots: Array
    back: Array
    ahead_slots: Array
    ahead: Array
    counts: Array
    older: Array
    newer: Array
    places: Array


class Journal(NamedTuple):
    """How slots were before a call came to them.

    slots [B, P]: their numbers, each once; held [B]: how many; the others as `Rows` has them, but with P slots.
    """

    slots: Array
    held: Array
    content: Array
    lengths: Array
    accessed: Array
    back_slots: Array
    back: Array
    ahead_slots: Array
    ahead: Array
    counts: Array


class SparseTape(NamedTuple):
    """What forward leaves for backward; the first part as in `Tape`. Slots are called by their places in the journal.

    read_places, read_weights [places, B, R·K]: what heads read, -1 and 0 for nothing; read_rows [steps, B, R·K·W]: the
    words there. found_places, found_weights, found_rows [steps, B, R·K (·W)]: the same of the look-ups by content.
    taken [steps, B]. forward, backward [steps, B, R·K·K]: L[i, j] and L[j, i] of what is read, i, and was before, j.
    """

    gates: Array
    hidden: Array
    cells: Array
    squashed: Array
    interfaces: Array
    normals: Array
    reads: Array
    read_places: Array
    read_weights: Array
    read_rows: Array
    found_places: Array
    found_weights: Array
    found_rows: Array
    taken: Array
    forward: Array
    backward: Array
    alive: Array
    fresh: Array


class SparseCarried(NamedTuple):
    """Gradients of the state after a step, turned into those of the state before it.

    rows [B, P·W]: of the words, by their places in the journal; weights [B, R·K]: of the read weights.
    """

    hidden: Array
    cells: Array
    reads: Array
    rows: Array
    weights: Array


class SparseScratch(NamedTuple):
    """Room to work in; chi, hidden, zeros as in `Scratch`.

    mix [threads, C]: zeros, a number per slot; numbers [threads, ·], slots [threads, ·]: see `scratch_parts`. recent
    [B, K_L], recent_slots: the precedence and its slots. none [R·K]: of -1, all that was read before a fresh start.
    proposals [B, R, P]: slots to look at for a key, of which there are `proposed` [B], 0 to look at all; changed
    [B, ·]: other slots to look at then, of which there are `stale` [B]; marks [threads, C]: zeros, one per slot.
    """

    chi: Array
    hidden: Array
    zeros: Array
    mix: Array
    numbers: Array
    slots: Array
    recent: Array
    recent_slots: Array
    none: Array
    proposals: Array
    proposed: Array
    changed: Array
    stale: Array
    marks: Array
