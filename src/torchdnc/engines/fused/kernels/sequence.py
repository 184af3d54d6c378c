"""A whole sequence, there and back, for some rows of a batch; `compiled` compiles `forward` and `backward`.

Rows never meet: threads share the batch and wait for each other only where it has fewer rows than there are threads.
"""

from numba import njit

from torchdnc.engines.fused.kernels.control import control, control_backward
from torchdnc.engines.fused.kernels.denormals import flush_denormals, restore_denormals
from torchdnc.engines.fused.kernels.interface import normalize, normalize_backward
from torchdnc.engines.fused.kernels.layout import interface_parts, reclaim_parts, slots_place, tape_parts
from torchdnc.engines.fused.kernels.links_backward import link_rows
from torchdnc.engines.fused.kernels.memory import BLOCK, step_row, write
from torchdnc.engines.fused.kernels.memory_backward import step_row_backward
from torchdnc.engines.fused.kernels.options import EXACT, INLINED
from torchdnc.engines.fused.kernels.overflow import grown
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
        control(mine, t, before, now, sizes, weights, tape, scratch, features)
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
                if sizes.options.linked:
                    _replay_links(mine, b, t - k, t + 1, sizes, tape, scratch)
                wait(mine)
            _remember_backward(mine, b, t, k, sizes, weights, tape, scratch, d_features, carried, found)
        wait(mine)
        control_backward(mine, t, sizes, weights, tape, scratch, carried, found)
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
    if sizes.options.grows and mine.piece == 0 and tape.alive[t, b]:
        wanted = grown(prev, N, R, sizes.options)
        scratch.wanted[b] = max(scratch.wanted[b], wanted)
        # Without room for it the call is made again, with more.
        row[slots_place(N, R)] = min(wanted, N)
    if tape.alive[t, b]:
        xi = tape.interfaces[place, b]
        if sizes.normed and mine.piece == 0:
            normalize(xi, tape.normals[place, b], weights.gain, weights.norm_bias, weights.epsilon, xi.shape[0])
        step_row(
            mine, prev, row, order, xi, memory, memory, link, link, reads, scratch.work, N, W, R, sizes.options,
        )  # fmt: skip


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
    first, link = _link_before(b, t, t - k, k // sizes.again, sizes, tape, scratch)
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
            memory, memory_prev, lengths, lengths_prev, weights, erase, vector, heads_prev, free_gates,
            reclaim_parts(tape.rows[t + 1, b], N, R)[2], slot, end, N, W, R, sizes.options,
        )  # fmt: skip


@njit(**INLINED)
def _replay_links(mine, b, first, last, sizes, tape, scratch):
    """links[k] := what is before step first + (k + 1) again, from the checkpoint."""
    N = sizes.N
    slot, end = part(mine, N)
    for k in range((last - first - 1) // sizes.again):
        t, links = first + (k + 1) * sizes.again, scratch.links[k, b]
        since, links_prev = _link_before(b, t, first, k, sizes, tape, scratch)
        for i in range(slot, end, BLOCK):
            count = min(BLOCK, end - i)
            rows = link_rows(links[i * N :], links_prev, i, count, tape.rows, tape.alive, b, since, t, N)
            # Nothing may have changed, and they lie where they were.
            copy(links[i * N :], rows, count * N)


@njit(**INLINED)
def _link_before(b, t, first, k, sizes, tape, scratch):
    """A step and the links before it, from which those before step t follow: the latest new start, or else the k-th of
    those that were kept and made again since the checkpoint before step `first`.

    A row that starts afresh has no links after that step either, as there is nothing that it was written after.
    """
    since = first + k * sizes.again
    for s in range(t, since - 1, -1):
        if tape.fresh[s, b]:
            return min(s + 1, t), scratch.zeros
    return since, scratch.links[k - 1, b] if k > 0 else tape.links[first // sizes.every, b]
