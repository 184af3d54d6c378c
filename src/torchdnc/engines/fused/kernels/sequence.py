"""A whole sequence, there and back, for some rows of a batch; `compiled` compiles `forward` and `backward`.

Rows never meet: threads share the batch and wait for each other only where it has fewer rows than there are threads.
"""

from numba import njit

from torchdnc.engines.fused.kernels.controller import (
    feedforward_row,
    feedforward_row_backward,
    lstm_row,
    lstm_row_backward,
)
from torchdnc.engines.fused.kernels.denormals import flush_denormals, restore_denormals
from torchdnc.engines.fused.kernels.interface import normalize, normalize_backward
from torchdnc.engines.fused.kernels.layout import interface_parts, tape_parts
from torchdnc.engines.fused.kernels.memory import step_row, write
from torchdnc.engines.fused.kernels.memory_backward import step_row_backward
from torchdnc.engines.fused.kernels.options import EXACT, INLINED
from torchdnc.engines.fused.kernels.product import add_product, add_product_back
from torchdnc.engines.fused.kernels.states import hand_out, hand_out_gradient, take_in, take_in_gradient
from torchdnc.engines.fused.kernels.team import in_parallel, part, take, wait
from torchdnc.engines.fused.kernels.vectors import add, clear, copy


def forward(team, sizes, weights, start, end, tape, scratch, features):
    """Fills the tape, the state after the last step and the features [T, B, layers·H + R·W]."""
    in_parallel(team, _forward, (team, sizes, weights, start, end, tape, scratch, features))


def backward(team, sizes, weights, tape, scratch, d_features, d_end, carried, found):
    """Turns the gradients of the state after the last step into those of the state before the first."""
    in_parallel(team, _backward, (team, sizes, weights, tape, scratch, d_features, d_end, carried, found))


@njit(**EXACT)
def _forward(thread, threads, team, sizes, weights, start, end, tape, scratch, features):
    N, W, R = sizes.N, sizes.W, sizes.R
    mine = take(thread, threads, sizes.B, team)
    flushed = flush_denormals()
    if mine.piece == 0:
        for b in range(mine.first, mine.last):
            _begin(b, sizes, start, tape)
    wait(mine)
    for t in range(sizes.T):
        before, now = (t, t + 1) if sizes.keep else (t % 2, (t + 1) % 2)
        if sizes.keep and t % sizes.every == 0 and mine.piece == 0:
            for b in range(mine.first, mine.last):
                copy(tape.memories[t // sizes.every, b], tape.memory[b], N * W)
                copy(tape.links[t // sizes.every, b], tape.link[b], tape.link.shape[1])
        _control(mine, t, before, now, sizes, weights, tape, scratch, features)
        for b in range(mine.first, mine.last):
            _remember(mine, b, t, before, now, sizes, weights, tape, scratch)
            if mine.piece == 0:
                copy(features[t, b, sizes.layers * sizes.H :], tape.reads[now, b], R * W)
        wait(mine)
    if mine.piece == 0:
        for b in range(mine.first, mine.last):
            hand_out(end, tape.rows[sizes.T if sizes.keep else sizes.T % 2, b], b, N, R, sizes.options)
    restore_denormals(flushed)


@njit(**EXACT)
def _backward(thread, threads, team, sizes, weights, tape, scratch, d_features, d_end, carried, found):
    N, W, R = sizes.N, sizes.W, sizes.R
    mine = take(thread, threads, sizes.B, team)
    flushed = flush_denormals()
    if mine.piece == 0:
        for b in range(mine.first, mine.last):
            take_in_gradient(carried.weightings[b], carried.memory, d_end, b, N, W, R, sizes.options)
    for t in range(sizes.T - 1, -1, -1):
        k = t % sizes.every
        for b in range(mine.first, mine.last):
            if k == sizes.every - 1 or t == sizes.T - 1:
                _replay(mine, b, t - k, t + 1, sizes, tape, scratch)
                wait(mine)
            _remember_backward(mine, b, t, k, sizes, weights, tape, scratch, d_features, carried, found)
        wait(mine)
        _control_backward(mine, t, sizes, weights, tape, scratch, carried, found)
        wait(mine)
    if mine.piece == 0:
        for b in range(mine.first, mine.last):
            hand_out_gradient(carried.memory, carried.weightings[b], b, N, R, sizes.options)
    restore_denormals(flushed)


@njit(**INLINED)
def _begin(b, sizes, start, tape):
    """What a row starts from; the controller's state and the words read are on the tape already."""
    N, W, R = sizes.N, sizes.W, sizes.R
    take_in(tape.rows[0, b], start, b, N, W, R, sizes.options)
    copy(tape.memory[b], start.memory[b], N * W)
    copy(tape.link[b], start.link[b], tape.link.shape[1])


@njit(**INLINED)
def _remember(mine, b, t, before, now, sizes, weights, tape, scratch):
    """One step of a row's memory."""
    N, W, R, place = sizes.N, sizes.W, sizes.R, t if sizes.keep else 0
    prev, row, order = tape.rows[before, b], tape.rows[now, b], tape.orders[place, b]
    memory, link, reads = tape.memory[b], tape.link[b], tape.reads[now, b]
    if mine.piece == 0:
        if not tape.alive[t, b]:
            copy(row, prev, row.shape[0])
            copy(reads, tape.reads[before, b], R * W)
        if tape.fresh[t, b]:
            clear(memory, N * W)
            clear(link, link.shape[0])
    if tape.fresh[t, b]:
        prev = scratch.nothing
    if tape.alive[t, b]:
        xi = tape.interfaces[place, b]
        if sizes.normed and mine.piece == 0:
            normalize(xi, tape.normals[place, b], weights.gain, weights.norm_bias, weights.epsilon, xi.shape[0])
        step_row(
            mine, prev, row, order, xi, memory, memory, link, link, reads, scratch.work, N, W, R, sizes.options,
        )  # fmt: skip


@njit(**INLINED)
def _columns(layer, sizes):
    """Columns of a layer's weight that meet the reads, its own h and the h of the layer below."""
    return sizes.R * sizes.W + sizes.H * sizes.recurrent + sizes.H * (layer > 0)


@njit(**INLINED)
def _control(mine, t, before, now, sizes, weights, tape, scratch, features):
    """h of every layer, into the features, and the raw interface."""
    H, outputs, start, rows = sizes.H, tape.gates.shape[3], sizes.I, mine.last - mine.first
    chi, width, wide = scratch.chi[mine.piece], weights.interface_bias.shape[0], sizes.layers * H
    first, last = part(mine, H)
    for layer in range(sizes.layers):
        columns = _columns(layer, sizes)
        for b in range(mine.first, mine.last):
            _see(b, t, layer, before, now, sizes, tape, chi[b])
        for unit in range(first, outputs, H):
            add_product(
                tape.gates[layer, t, mine.first, unit:], outputs, chi[mine.first], chi.shape[1],
                weights.controller[start + unit * (sizes.I + columns) :], sizes.I + columns, rows, columns,
                last - first,
            )  # fmt: skip
        start += outputs * (sizes.I + columns)
        for b in range(mine.first, mine.last):
            _squash(b, t, layer, before, now, first, last, sizes, tape, scratch)
            copy(features[t, b, layer * H + first :], tape.hidden[layer, now, b, first:], last - first)
        wait(mine)
    first, last = part(mine, width)
    interfaces = tape.interfaces[t if sizes.keep else 0]
    for b in range(mine.first, mine.last):
        copy(interfaces[b, first:], weights.interface_bias[first:], last - first)
        if sizes.beside:
            add(interfaces[b, first:], weights.beside[t, b, first:], last - first)
    add_product(
        interfaces[mine.first, first:], width, features[t, mine.first], features.shape[2],
        weights.interface[first * wide :], wide, rows, wide, last - first,
    )  # fmt: skip
    wait(mine)


@njit(**INLINED)
def _see(b, t, layer, before, now, sizes, tape, chi):
    """chi := what a layer sees besides the input: [r_{t−1}; h_{t−1}; h_t of the layer below]."""
    H, words = sizes.H, sizes.R * sizes.W
    own = H * sizes.recurrent
    if tape.fresh[t, b]:
        clear(chi, words + own)
    else:
        copy(chi, tape.reads[before, b], words)
        if sizes.recurrent:
            copy(chi[words:], tape.hidden[layer, before, b], H)
    if layer > 0:
        copy(chi[words + own :], tape.hidden[layer - 1, now, b], H)


@njit(**INLINED)
def _squash(b, t, layer, before, now, first, last, sizes, tape, scratch):
    """h_t of a layer's units `first` up to `last`, from their raw gates."""
    hidden, gates = tape.hidden[layer, now, b], tape.gates[layer, t, b]
    if not sizes.recurrent:
        if tape.alive[t, b]:
            feedforward_row(gates, hidden, first, last)
        else:
            clear(hidden[first:], last - first)
        return
    cell, cell_prev = tape.cells[layer, now, b], tape.cells[layer, before, b]
    if tape.alive[t, b]:
        if tape.fresh[t, b]:
            cell_prev = scratch.zeros
        squashed = tape.squashed[layer, t if sizes.keep else 0, b]
        lstm_row(gates, cell_prev, cell, squashed, hidden, first, last, sizes.H)
    else:
        copy(cell[first:], cell_prev[first:], last - first)
        copy(hidden[first:], tape.hidden[layer, before, b, first:], last - first)


@njit(**INLINED)
def _remember_backward(mine, b, t, k, sizes, weights, tape, scratch, d_features, carried, found):
    """Through one step of a row's memory; leaves the gradient of h that comes from the features in the scratch."""
    N, W, R = sizes.N, sizes.W, sizes.R
    wide = sizes.layers * sizes.H
    if not tape.alive[t, b]:
        if mine.piece == 0:
            clear(found.interfaces[t, b], found.interfaces.shape[2])
            if sizes.normed:
                clear(found.normals[t, b], found.normals.shape[2])
            clear(scratch.hidden[b], wide)
        return
    if mine.piece == 0:
        copy(scratch.hidden[b], d_features[t, b], wide)
        add(carried.reads[b], d_features[t, b, wide:], R * W)
    prev, memory_prev = tape.rows[t, b], scratch.memories[k, b]
    if tape.fresh[t, b]:
        prev, memory_prev = scratch.nothing, scratch.zeros
    first, link = _link_before(b, t, k, sizes, tape, scratch)
    step_row_backward(
        mine, prev, tape.rows[t + 1, b], tape.orders[t, b], tape.interfaces[t, b], found.interfaces[t, b],
        memory_prev, scratch.memories[k + 1, b], link, tape.rows, tape.alive, b, first, t, carried.memory.memory[b],
        carried.memory.link[b], carried.weightings[b], carried.reads[b], scratch.work, N, W, R, sizes.options,
    )  # fmt: skip
    if sizes.normed and mine.piece == 0:
        d_xi = found.interfaces[t, b]
        copy(found.normals[t, b], d_xi, d_xi.shape[0])
        normalize_backward(tape.normals[t, b], d_xi, weights.gain, d_xi.shape[0])
    if tape.fresh[t, b] and mine.piece == 0:
        clear(carried.memory.memory[b], N * W)
        clear(carried.memory.link[b], carried.memory.link.shape[1])
        clear(carried.weightings[b], carried.weightings.shape[1])


@njit(**INLINED)
def _replay(mine, b, first, last, sizes, tape, scratch):
    """memories[k] := what step first + k starts from, from the checkpoint; there is one more."""
    N, W, R = sizes.N, sizes.W, sizes.R
    slot, end = part(mine, N)
    start, size = slot * W, (end - slot) * W
    copy(scratch.memories[0, b, start:], tape.memories[first // sizes.every, b, start:], size)
    for t in range(first, last):
        memory_prev, memory = scratch.memories[t - first, b], scratch.memories[t - first + 1, b]
        if not tape.alive[t, b]:
            copy(memory[start:], memory_prev[start:], size)
            continue
        prev = tape.rows[t, b]
        if tape.fresh[t, b]:
            # memories[k] stays: it is also what the step before ended with.
            memory_prev, prev = scratch.zeros, scratch.nothing
        _, weights, _, lengths, _, _, _ = tape_parts(tape.rows[t + 1, b], N, R)
        _, _, _, lengths_prev, _, heads_prev, _ = tape_parts(prev, N, R)
        _, _, _, _, erase, vector, free_gates, _, _, _ = interface_parts(tape.interfaces[t, b], W, R, sizes.options)
        write(
            memory, memory_prev, lengths, lengths_prev, weights, erase, vector, heads_prev, free_gates, slot, end, N, W,
            R, sizes.options,
        )  # fmt: skip


@njit(**INLINED)
def _link_before(b, t, k, sizes, tape, scratch):
    """A step and the links before it, from which those before step t follow: the checkpoint, or the latest new start.

    A row that starts afresh has no links after that step either, as there is nothing that it was written after.
    """
    for s in range(t, t - k - 1, -1):
        if tape.fresh[s, b]:
            return min(s + 1, t), scratch.zeros
    return t - k, tape.links[t // sizes.every, b]


@njit(**INLINED)
def _control_backward(mine, t, sizes, weights, tape, scratch, carried, found):
    """From the gradient of h, by the interface and the features, to those of what the controller had seen."""
    H, words, wide, rows = sizes.H, sizes.R * sizes.W, sizes.layers * sizes.H, mine.last - mine.first
    outputs, width, start = tape.gates.shape[3], found.interfaces.shape[2], weights.controller.shape[0]
    word, last_word = part(mine, words)
    unit, last_unit = part(mine, H)
    for at in range(unit, wide, H):
        add_product_back(
            scratch.hidden[mine.first, at:], wide, found.interfaces[t, mine.first], width, weights.interface[at:], wide,
            rows, width, last_unit - unit,
        )  # fmt: skip
    for b in range(mine.first, mine.last):
        if tape.alive[t, b]:
            clear(carried.reads[b, word:], last_word - word)
    for layer in range(sizes.layers - 1, -1, -1):
        columns = _columns(layer, sizes)
        for b in range(mine.first, mine.last):
            _squash_backward(b, t, layer, unit, last_unit, sizes, tape, scratch, carried, found.gates[layer, t, b])
        wait(mine)
        start -= outputs * (sizes.I + columns)
        # It had seen words, its own h and the h of the layer below: a piece is a part of each.
        for segment in range(1 + (columns - words) // H):
            first, last = (word, last_word) if segment == 0 else (unit, last_unit)
            at = first if segment == 0 else words + (segment - 1) * H + first
            if segment == 0 or mine.pieces > 1:
                size = last - first if mine.pieces > 1 else columns
                for b in range(mine.first, mine.last):
                    clear(scratch.chi[0, b, at:], size)
                add_product_back(
                    scratch.chi[0, mine.first, at:], scratch.chi.shape[2], found.gates[layer, t, mine.first], outputs,
                    weights.controller[start + sizes.I + at :], sizes.I + columns, rows, outputs, size,
                )  # fmt: skip
            for b in range(mine.first, mine.last):
                if tape.alive[t, b]:
                    _see_backward(b, t, layer, segment, at, first, last, sizes, tape, scratch, carried)


@njit(**INLINED)
def _squash_backward(b, t, layer, first, last, sizes, tape, scratch, carried, d_gates):
    """d_gates := gradient of the raw gates of a layer's units `first` up to `last`."""
    H = sizes.H
    d_hidden, bound = scratch.hidden[b, layer * H :], tape.rows.dtype.type(sizes.bound)
    if not tape.alive[t, b]:
        for unit in range(first, d_gates.shape[0], H):
            clear(d_gates[unit:], last - first)
    elif sizes.recurrent:
        add(d_hidden[first:], carried.hidden[layer, b, first:], last - first)
        cell_prev = tape.cells[layer, t, b]
        if tape.fresh[t, b]:
            cell_prev = scratch.zeros
        lstm_row_backward(
            tape.gates[layer, t, b], d_gates, cell_prev, tape.squashed[layer, t, b], d_hidden, carried.cells[layer, b],
            bound, first, last, H,
        )  # fmt: skip
        if tape.fresh[t, b]:
            clear(carried.cells[layer, b, first:], last - first)
    else:
        feedforward_row_backward(d_gates, tape.hidden[layer, t + 1, b], d_hidden, bound, first, last)


@njit(**INLINED)
def _see_backward(b, t, layer, segment, at, first, last, sizes, tape, scratch, carried):
    """Adds the gradient of what a layer had seen to where that came from.

    segment: 0 the words read, then its own h if it is recurrent, then the h of the layer below; of each numbers `first`
    up to `last`, which lie from `at` on.
    """
    own = segment == 1 and sizes.recurrent
    d_chi, size = scratch.chi[0, b, at:], last - first
    if tape.fresh[t, b] and (segment == 0 or own):
        clear(d_chi, size)
    if segment == 0:
        add(carried.reads[b, first:], d_chi, size)
    elif own:
        copy(carried.hidden[layer, b, first:], d_chi, size)
    else:
        add(scratch.hidden[b, (layer - 1) * sizes.H + first :], d_chi, size)
