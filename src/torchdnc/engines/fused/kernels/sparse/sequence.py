"""A whole sequence of the sparse memory, there and back; `compiled` compiles both functions.

Rows of the batch never meet. Where there are fewer than threads, these share the controller, and each row's memory is
the work of one of them.
"""

from numba import njit

from torchdnc.engines.fused.kernels.control import control, control_backward
from torchdnc.engines.fused.kernels.denormals import flush_denormals, restore_denormals
from torchdnc.engines.fused.kernels.interface import normalize, normalize_backward
from torchdnc.engines.fused.kernels.options import EXACT, INLINED
from torchdnc.engines.fused.kernels.sparse.memory import squash, step_row
from torchdnc.engines.fused.kernels.sparse.memory_backward import step_row_backward
from torchdnc.engines.fused.kernels.sparse.rows import start_afresh, touch
from torchdnc.engines.fused.kernels.team import in_parallel, take, wait
from torchdnc.engines.fused.kernels.vectors import add, clear, copy


def sparse_forward(team, sizes, weights, slots, rows, journal, tape, scratch, features, first, last):
    """Changes the rows, and fills the journal, the tape and the features [T, B, layers·H + R·W].

    slots [B, R·K]: what the step before the first read; the read weights of it are on the tape. On return what the last
    one read.
    first, last: half steps to do, all in order: the controller and the interface of step t are number 2t, the memory
    2t + 1. Between the two halves of a step someone may propose slots to look at.
    """
    in_parallel(team, _forward, (team, sizes, weights, slots, rows, journal, tape, scratch, features, first, last))


def sparse_backward(team, sizes, weights, tape, scratch, d_features, carried, found):
    """Turns the gradients of the state after the last step into those of the state before the first."""
    in_parallel(team, _backward, (team, sizes, weights, tape, scratch, d_features, carried, found))


@njit(**EXACT)
def _forward(thread, threads, team, sizes, weights, slots, rows, journal, tape, scratch, features, first, last):
    mine = take(thread, threads, sizes.B, team)
    flushed = flush_denormals()
    if first == 0:
        for b in range(mine.first + mine.piece, mine.last, mine.pieces):
            _begin(b, sizes, slots, rows, journal, tape)
    wait(mine)
    for half in range(first, last):
        t = half // 2
        before, now = (t, t + 1) if sizes.keep else (t % 2, (t + 1) % 2)
        if half % 2 == 0:
            control(mine, t, before, now, sizes, weights, tape, scratch, features)
            for b in range(mine.first + mine.piece, mine.last, mine.pieces):
                _prepare(b, t, sizes, weights, tape)
        else:
            for b in range(mine.first + mine.piece, mine.last, mine.pieces):
                _remember(mine.thread, b, t, before, now, sizes, rows, journal, tape, scratch)
                copy(features[t, b, sizes.layers * sizes.H :], tape.reads[now, b], sizes.R * sizes.W)
        wait(mine)
    if last == 2 * sizes.T:
        for b in range(mine.first + mine.piece, mine.last, mine.pieces):
            places = tape.read_places[sizes.T if sizes.keep else sizes.T % 2, b]
            for k in range(sizes.R * sizes.K):
                slots[b, k] = journal.slots[b, places[k]] if places[k] >= 0 else -1
    restore_denormals(flushed)


@njit(**EXACT)
def _backward(thread, threads, team, sizes, weights, tape, scratch, d_features, carried, found):
    mine = take(thread, threads, sizes.B, team)
    flushed = flush_denormals()
    for t in range(sizes.T - 1, -1, -1):
        for b in range(mine.first + mine.piece, mine.last, mine.pieces):
            _remember_backward(mine.thread, b, t, sizes, weights, tape, scratch, d_features, carried, found)
        wait(mine)
        control_backward(mine, t, sizes, weights, tape, scratch, carried, found)
        wait(mine)
    restore_denormals(flushed)


@njit(**INLINED)
def _begin(b, sizes, slots, rows, journal, tape):
    """Notes how the row starts, and where what was read before is noted."""
    journal.held[b] = 0
    for k in range(4):
        journal.counts[b, k] = rows.counts[b, k]
    for k in range(sizes.R * sizes.K):
        place = -1
        if slots[b, k] >= 0:
            place = touch(rows, journal, b, slots[b, k], sizes.W, sizes.links)
        tape.read_places[0, b, k] = place


@njit(**INLINED)
def _prepare(b, t, sizes, weights, tape):
    """The interface of a row, from the raw one."""
    if tape.alive[t, b]:
        place = t if sizes.keep else 0
        xi = tape.interfaces[place, b]
        if sizes.normed:
            normalize(xi, tape.normals[place, b], weights.gain, weights.norm_bias, weights.epsilon, xi.shape[0])
        squash(xi, sizes.W, sizes.R, sizes.links)


@njit(**INLINED)
def _remember(thread, b, t, before, now, sizes, rows, journal, tape, scratch):
    """One step of a row's memory."""
    place, RK = t if sizes.keep else 0, sizes.R * sizes.K
    places_prev, reads_prev = tape.read_places[before, b], tape.read_weights[before, b]
    if tape.fresh[t, b]:
        places_prev = scratch.none
        start_afresh(rows, b)
        for q in range(sizes.links):
            scratch.recent_slots[b, q], scratch.recent[b, q] = -1, 0
    if tape.alive[t, b]:
        step_row(thread, b, place, now, places_prev, reads_prev, rows, journal, sizes, tape, scratch)
    else:
        copy(tape.reads[now, b], tape.reads[before, b], sizes.R * sizes.W)
        for k in range(RK):
            tape.read_places[now, b, k], tape.read_weights[now, b, k] = places_prev[k], reads_prev[k]


@njit(**INLINED)
def _remember_backward(thread, b, t, sizes, weights, tape, scratch, d_features, carried, found):
    """Through one step of a row's memory; leaves the gradient of h that comes from the features in the scratch."""
    wide = sizes.layers * sizes.H
    d_xi = found.interfaces[t, b]
    if not tape.alive[t, b]:
        clear(d_xi, d_xi.shape[0])
        if sizes.normed:
            clear(found.normals[t, b], d_xi.shape[0])
        clear(scratch.hidden[b], wide)
        return
    copy(scratch.hidden[b], d_features[t, b], wide)
    add(carried.reads[b], d_features[t, b, wide:], sizes.R * sizes.W)
    places_prev = tape.read_places[t, b]
    if tape.fresh[t, b]:
        places_prev = scratch.none
    step_row_backward(thread, b, t, places_prev, tape.read_weights[t, b], d_xi, sizes, tape, carried, scratch)
    if sizes.normed:
        copy(found.normals[t, b], d_xi, d_xi.shape[0])
        normalize_backward(tape.normals[t, b], d_xi, weights.gain, d_xi.shape[0])
    if tape.fresh[t, b]:
        clear(carried.rows[b], carried.rows.shape[1])
        clear(carried.weights[b], sizes.R * sizes.K)
