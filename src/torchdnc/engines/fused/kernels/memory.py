"""One step of one row's memory: the functions of `torchdnc.ops`, composed as `ops.access` composes them."""

import numpy as np
from numba import njit

from torchdnc.engines.fused.kernels.interface import squash
from torchdnc.engines.fused.kernels.layout import interface_parts, part, tape_parts
from torchdnc.engines.fused.kernels.options import EXACT
from torchdnc.engines.fused.kernels.vectors import add_scaled, dot, length, softmax_in_place, total

# An insertion sort that moves more than this many slots per slot gives up for a merge sort.
MOVES_PER_SLOT = 16


@njit(**EXACT)
def sort_free_list(order, usage):
    """order := slots by ascending usage, ties to the lowest slot; cheap if it was nearly so before."""
    moves = 0
    for i in range(1, order.shape[0]):
        slot = order[i]
        value = usage[slot]
        j = i - 1
        while j >= 0 and (usage[order[j]] > value or (usage[order[j]] == value and order[j] > slot)):
            order[j + 1] = order[j]
            j -= 1
        order[j + 1] = slot
        moves += i - 1 - j
        if moves > MOVES_PER_SLOT * order.shape[0]:
            order[:] = np.argsort(usage, kind="mergesort").astype(np.int32)
            return


@njit(**EXACT)
def write(memory, weights, erase, vector, N, W):
    """M := M ∘ (1 − w eᵀ) + w vᵀ."""
    one = memory.dtype.type(1)
    for i in range(N):
        slot, weight = part(memory, i, W), weights[i]
        for k in range(W):
            slot[k] = slot[k] * (one - weight * erase[k]) + weight * vector[k]


@njit(**EXACT)
def link_row(row, row_prev, i, weights, precedence_prev):
    """The i-th row of L = (1 − w[i] − w[j]) L_{t−1} + w[i] p[j], with no link to itself; may be done in place."""
    weight = weights[i]
    keep = row.dtype.type(1) - weight
    for j in range(row.shape[0]):
        row[j] = (keep - weights[j]) * row_prev[j] + weight * precedence_prev[j]
    row[i] = 0


@njit(**EXACT)
def relink(link, weights, precedence_prev, N):
    """The link update alone."""
    for i in range(N):
        row = part(link, i, N)
        link_row(row, row, i, weights, precedence_prev)


@njit(**EXACT)
def link_and_follow(link, weights, precedence_prev, read_weights_prev, forward, backward, N, R):
    """The link update, and f = L w^r and b = Lᵀ w^r of every head while a row is at hand."""
    backward[:] = 0
    for i in range(N):
        row = part(link, i, N)
        link_row(row, row, i, weights, precedence_prev)
        for r in range(R):
            head = part(read_weights_prev, r, N)
            forward[r * N + i] = dot(row, head)
            add_scaled(part(backward, r, N), row, head[i])


@njit(**EXACT)
def count_usage(usage, usage_prev, write_weights_prev, read_weights_prev, free_gates, N, R):
    """u := (1 − (1 − u)(1 − w^w)) Π_r (1 − f^r w^r)."""
    one = usage.dtype.type(1)
    for i in range(N):
        usage[i] = one - (one - usage_prev[i]) * (one - write_weights_prev[i])
    for r in range(R):
        head, gate = part(read_weights_prev, r, N), free_gates[r]
        for i in range(N):
            usage[i] *= one - gate * head[i]


@njit(**EXACT)
def choose_write(weights, content, usage, order, alloc_gate, write_gate, N):
    """w^w := g^w (g^a a + (1 − g^a) c), the allocation a taken along the free list."""
    one = weights.dtype.type(1)
    fresh, found, used_before = write_gate * alloc_gate, write_gate * (one - alloc_gate), one
    for j in range(N):
        slot = order[j]
        weights[slot] = fresh * (one - usage[slot]) * used_before + found * content[slot]
        used_before *= usage[slot]


@njit(**EXACT)
def look_up(memory, lengths, keys, strengths, content, bits, N, W, R):
    """content := C(M, k, β) of every key, from the slots and their lengths."""
    for r in range(R):
        key, weights = part(keys, r, W), part(content, r, N)
        scale = strengths[r] / length(key)
        for i in range(N):
            weights[i] = dot(part(memory, i, W), key) * scale / lengths[i]
        softmax_in_place(weights, bits)


@njit(**EXACT)
def step_row(prev, row, order, xi, memory, link, reads, work, bits, N, W, R):
    """One step of one row.

    prev, row: what the tape holds of step t−1 and will hold of step t; order: the free list, from that of t−1;
    xi: the raw interface, squashed on return; memory, link: of t−1, of t on return; reads: the words read.
    """
    squash(xi, W, R)
    keys, strengths, write_key, write_strength, erase, vector, free_gates, alloc_gate, write_gate, modes = (
        interface_parts(xi, W, R)
    )
    usage, write_weights, precedence, lengths, write_content, read_weights, content = tape_parts(row, N, R)
    usage_prev, write_weights_prev, precedence_prev, lengths_prev, _, read_weights_prev, _ = tape_parts(prev, N, R)
    forward, backward = work[: R * N], work[R * N : 2 * R * N]
    one = memory.dtype.type(1)

    count_usage(usage, usage_prev, write_weights_prev, read_weights_prev, free_gates, N, R)
    look_up(memory, lengths_prev, write_key, write_strength, write_content, bits, N, W, 1)
    sort_free_list(order, usage)
    choose_write(write_weights, write_content, usage, order, alloc_gate[0], write_gate[0], N)
    write(memory, write_weights, erase, vector, N, W)

    link_and_follow(link, write_weights, precedence_prev, read_weights_prev, forward, backward, N, R)
    stays = one - total(write_weights)
    for i in range(N):
        precedence[i] = stays * precedence_prev[i] + write_weights[i]

    for i in range(N):
        lengths[i] = length(part(memory, i, W))
    look_up(memory, lengths, keys, strengths, content, bits, N, W, R)
    reads[:] = 0
    for r in range(R):
        mode, head, words = part(modes, r, 3), part(read_weights, r, N), part(reads, r, W)
        for i in range(N):
            k = r * N + i
            head[i] = mode[0] * backward[k] + mode[1] * content[k] + mode[2] * forward[k]
            add_scaled(words, part(memory, i, W), head[i])
