"""The controller and the interface of a step, there and back, for the rows of a thread's share."""

from numba import njit

from torchdnc.engines.fused.kernels.controller import (
    feedforward_row,
    feedforward_row_backward,
    lstm_row,
    lstm_row_backward,
)
from torchdnc.engines.fused.kernels.options import INLINED
from torchdnc.engines.fused.kernels.product import add_product, add_product_back
from torchdnc.engines.fused.kernels.team import part, wait
from torchdnc.engines.fused.kernels.vectors import add, clear, copy


@njit(**INLINED)
def _columns(layer, sizes):
    """Columns of a layer's weight that meet the reads, its own h and the h of the layer below."""
    return sizes.R * sizes.W + sizes.H * sizes.recurrent + sizes.H * (layer > 0)


@njit(**INLINED)
def control(mine, t, before, now, sizes, weights, tape, scratch, features):
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
def control_backward(mine, t, sizes, weights, tape, scratch, carried, found):
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
    d_hidden, bound = scratch.hidden[b, layer * H :], tape.reads.dtype.type(sizes.bound)
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
