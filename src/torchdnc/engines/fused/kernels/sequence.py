"""A whole sequence, there and back, for some rows of a batch; `compiled` compiles `forward` and `backward`.

Rows never meet, so that threads share the batch and never wait for each other.
"""

from numba import njit

from torchdnc.engines.fused.kernels.controller import (
    feedforward_row,
    feedforward_row_backward,
    lstm_row,
    lstm_row_backward,
)
from torchdnc.engines.fused.kernels.layout import interface_parts, tape_parts
from torchdnc.engines.fused.kernels.memory import step_row, write
from torchdnc.engines.fused.kernels.memory_backward import step_row_backward
from torchdnc.engines.fused.kernels.options import INLINED
from torchdnc.engines.fused.kernels.product import add_product, add_product_back
from torchdnc.engines.fused.kernels.simd import flush_denormals, restore_denormals
from torchdnc.engines.fused.kernels.vectors import add, clear, copy


def forward(share, sizes, weights, tape, scratch, features):
    """Fills the tape and the features [T, B, layers·H + R·W], for one of `sizes.shares` shares of the batch."""
    first, last = share * sizes.B // sizes.shares, (share + 1) * sizes.B // sizes.shares
    before_this = flush_denormals()
    for t in range(sizes.T):
        before, now = (t, t + 1) if sizes.keep else (t % 2, (t + 1) % 2)
        if sizes.keep and t % sizes.every == 0:
            for b in range(first, last):
                copy(tape.memories[t // sizes.every, b], tape.memory[b], sizes.N * sizes.W)
                copy(tape.links[t // sizes.every, b], tape.link[b], sizes.N * sizes.N)
        _control(first, last, t, before, now, sizes, weights, tape, scratch, features)
        for b in range(first, last):
            _remember(b, t, before, now, sizes, tape, scratch, scratch.work[share])
            copy(features[t, b, sizes.layers * sizes.H :], tape.reads[now, b], sizes.R * sizes.W)
    restore_denormals(before_this)


def backward(share, sizes, weights, tape, scratch, d_features, carried, found):
    """Turns the carried gradients into those of the state before the first step, and leaves those found."""
    first, last = share * sizes.B // sizes.shares, (share + 1) * sizes.B // sizes.shares
    wide, width = sizes.layers * sizes.H, found.interfaces.shape[2]
    before_this = flush_denormals()
    for t in range(sizes.T - 1, -1, -1):
        k = t % sizes.every
        for b in range(first, last):
            if k == sizes.every - 1 or t == sizes.T - 1:
                _replay(b, t - k, t + 1, sizes, tape, scratch)
            _remember_backward(b, t, k, sizes, tape, scratch, scratch.work[share], d_features, carried, found)
        add_product_back(
            scratch.hidden[first], wide, found.interfaces[t, first], width, weights.interface, wide, last - first,
            width, wide,
        )  # fmt: skip
        _control_backward(first, last, t, sizes, weights, tape, scratch, carried, found)
    restore_denormals(before_this)


@njit(**INLINED)
def _remember(b, t, before, now, sizes, tape, scratch, work):
    """One step of a row's memory."""
    N, W, R = sizes.N, sizes.W, sizes.R
    prev, row = tape.rows[before, b], tape.rows[now, b]
    order, order_prev = tape.orders[now, b], tape.orders[before, b]
    for i in range(N):
        order[i] = order_prev[i]
    if not tape.alive[t, b]:
        copy(row, prev, row.shape[0])
        copy(tape.reads[now, b], tape.reads[before, b], R * W)
        return
    if tape.fresh[t, b]:
        clear(tape.memory[b], N * W)
        clear(tape.link[b], N * N)
        prev = scratch.nothing
    step_row(prev, row, order, tape.interfaces[t, b], tape.memory[b], tape.link[b], tape.reads[now, b], work, N, W, R)


@njit(**INLINED)
def _columns(layer, sizes):
    """Columns of a layer's weight that meet the reads, its own h and the h of the layer below."""
    return sizes.R * sizes.W + sizes.H * sizes.recurrent + sizes.H * (layer > 0)


@njit(**INLINED)
def _control(first, last, t, before, now, sizes, weights, tape, scratch, features):
    """h of every layer, into the features, and the raw interface."""
    H, outputs, start = sizes.H, tape.gates.shape[3], sizes.I
    for layer in range(sizes.layers):
        columns = _columns(layer, sizes)
        for b in range(first, last):
            _see(b, t, layer, before, now, sizes, tape, scratch.chi[b])
        add_product(
            tape.gates[layer, t, first], outputs, scratch.chi[first], scratch.chi.shape[1], weights.controller[start:],
            sizes.I + columns, last - first, columns, outputs,
        )  # fmt: skip
        start += outputs * (sizes.I + columns)
        for b in range(first, last):
            _squash(b, t, layer, before, now, sizes, tape, scratch)
            copy(features[t, b, layer * H :], tape.hidden[layer, now, b], H)
    width = weights.interface_bias.shape[0]
    for b in range(first, last):
        copy(tape.interfaces[t, b], weights.interface_bias, width)
    add_product(
        tape.interfaces[t, first], width, features[t, first], features.shape[2], weights.interface, sizes.layers * H,
        last - first, sizes.layers * H, width,
    )  # fmt: skip


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
def _squash(b, t, layer, before, now, sizes, tape, scratch):
    """h_t of a layer, from its raw gates."""
    H, hidden = sizes.H, tape.hidden[layer, now, b]
    if not sizes.recurrent:
        if tape.alive[t, b]:
            feedforward_row(tape.gates[layer, t, b], hidden, H)
        else:
            clear(hidden, H)
        return
    cell, cell_prev = tape.cells[layer, now, b], tape.cells[layer, before, b]
    if tape.alive[t, b]:
        if tape.fresh[t, b]:
            cell_prev = scratch.zeros
        lstm_row(tape.gates[layer, t, b], cell_prev, cell, tape.squashed[layer, t if sizes.keep else 0, b], hidden, H)
    else:
        copy(cell, cell_prev, H)
        copy(hidden, tape.hidden[layer, before, b], H)


@njit(**INLINED)
def _remember_backward(b, t, k, sizes, tape, scratch, work, d_features, carried, found):
    """Through one step of a row's memory; leaves the gradient of h that comes from the features in the scratch."""
    N, W, R = sizes.N, sizes.W, sizes.R
    wide = sizes.layers * sizes.H
    if not tape.alive[t, b]:
        clear(found.interfaces[t, b], found.interfaces.shape[2])
        clear(scratch.hidden[b], wide)
        return
    copy(scratch.hidden[b], d_features[t, b], wide)
    add(carried.reads[b], d_features[t, b, wide:], R * W)
    prev, memory_prev = tape.rows[t, b], scratch.memories[k, b]
    if tape.fresh[t, b]:
        prev, memory_prev = scratch.nothing, scratch.zeros
    first, link = _link_before(b, t, k, sizes, tape, scratch)
    step_row_backward(
        prev, tape.rows[t + 1, b], tape.orders[t + 1, b], tape.interfaces[t, b], found.interfaces[t, b], memory_prev,
        scratch.memories[k + 1, b], link, tape.rows, tape.alive, b, first, t, carried.memory[b], carried.link[b],
        carried.state[b], carried.reads[b], work, N, W, R, sizes.through_writes,
    )  # fmt: skip
    if tape.fresh[t, b]:
        clear(carried.memory[b], N * W)
        clear(carried.link[b], N * N)
        clear(carried.state[b], carried.state.shape[1])


@njit(**INLINED)
def _replay(b, first, last, sizes, tape, scratch):
    """memories[k] := what step first + k starts from, from the checkpoint; there is one more."""
    N, W, R = sizes.N, sizes.W, sizes.R
    copy(scratch.memories[0, b], tape.memories[first // sizes.every, b], N * W)
    for t in range(first, last):
        memory_prev, memory = scratch.memories[t - first, b], scratch.memories[t - first + 1, b]
        if not tape.alive[t, b]:
            copy(memory, memory_prev, N * W)
            continue
        if tape.fresh[t, b]:
            # memories[k] stays: it is also what the step before ended with.
            memory_prev = scratch.zeros
        _, weights, _, lengths, _, _, _ = tape_parts(tape.rows[t + 1, b], N, R)
        _, _, _, _, erase, vector, _, _, _, _ = interface_parts(tape.interfaces[t, b], W, R)
        write(memory, memory_prev, lengths, weights, erase, vector, N, W)


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
def _control_backward(first, last, t, sizes, weights, tape, scratch, carried, found):
    """From the gradient of h, by the interface and the features, to those of what the controller had seen."""
    words, outputs, start = sizes.R * sizes.W, tape.gates.shape[3], weights.controller.shape[0]
    for b in range(first, last):
        if tape.alive[t, b]:
            clear(carried.reads[b], words)
    for layer in range(sizes.layers - 1, -1, -1):
        columns = _columns(layer, sizes)
        for b in range(first, last):
            _squash_backward(b, t, layer, sizes, tape, scratch, carried, found.gates[layer, t, b])
            clear(scratch.chi[b], columns)
        start -= outputs * (sizes.I + columns)
        add_product_back(
            scratch.chi[first], scratch.chi.shape[1], found.gates[layer, t, first], outputs,
            weights.controller[start + sizes.I :], sizes.I + columns, last - first, outputs, columns,
        )  # fmt: skip
        for b in range(first, last):
            if tape.alive[t, b]:
                _see_backward(b, t, layer, sizes, tape, scratch, carried)


@njit(**INLINED)
def _squash_backward(b, t, layer, sizes, tape, scratch, carried, d_gates):
    """d_gates := gradient of a layer's raw gates."""
    H = sizes.H
    d_hidden, bound = scratch.hidden[b, layer * H :], tape.rows.dtype.type(sizes.bound)
    if not tape.alive[t, b]:
        clear(d_gates, d_gates.shape[0])
    elif sizes.recurrent:
        add(d_hidden, carried.hidden[layer, b], H)
        cell_prev = tape.cells[layer, t, b]
        if tape.fresh[t, b]:
            cell_prev = scratch.zeros
        lstm_row_backward(
            tape.gates[layer, t, b], d_gates, cell_prev, tape.squashed[layer, t, b], d_hidden, carried.cells[layer, b],
            bound, H,
        )  # fmt: skip
        if tape.fresh[t, b]:
            clear(carried.cells[layer, b], H)
    else:
        feedforward_row_backward(d_gates, tape.hidden[layer, t + 1, b], d_hidden, bound, H)


@njit(**INLINED)
def _see_backward(b, t, layer, sizes, tape, scratch, carried):
    """Shares the gradient of what a layer had seen out to where that came from."""
    H, words = sizes.H, sizes.R * sizes.W
    own = H * sizes.recurrent
    d_chi = scratch.chi[b]
    if tape.fresh[t, b]:
        clear(d_chi, words + own)
    add(carried.reads[b], d_chi, words)
    if sizes.recurrent:
        copy(carried.hidden[layer, b], d_chi[words:], H)
    if layer > 0:
        add(scratch.hidden[b, (layer - 1) * H :], d_chi[words + own :], H)
