"""One step of one row's sparse memory: the functions of `torchdnc.ops.sparse`, composed as `sparse_access` does."""

import math

from numba import njit

from torchdnc.engines.fused.kernels.interface import squash_modes
from torchdnc.engines.fused.kernels.options import EXACT
from torchdnc.engines.fused.kernels.product import add_product
from torchdnc.engines.fused.kernels.simd import fma, lanes, load, spread, store
from torchdnc.engines.fused.kernels.sparse.layout import BLOCK, number_parts, slot_parts, sparse_interface_parts
from torchdnc.engines.fused.kernels.sparse.links import find, link_written, precede, remove, unlink
from torchdnc.engines.fused.kernels.sparse.rows import (
    access,
    create,
    empty,
    mix,
    oldest,
    sort_slots,
    touch,
)
from torchdnc.engines.fused.kernels.vectors import clear, copy, dot, length, oneplus, sigmoid_in_place
from torchdnc.engines.sparse.pages import CLOCK, EXISTING
from torchdnc.ops.sparse import ACCESSED


@njit(**EXACT)
def add_scaled(out, a, scale, size):
    """out += scale a."""
    by = spread(out.dtype.type(scale))
    for k in range(0, size, lanes(out)):
        store(out, k, fma(by, load(a, k, size - k), load(out, k, size - k)), size - k)


@njit(**EXACT)
def squash(xi, W, R, links):
    """Squashes every part of an interface row into its range, in place."""
    _, strengths, _, write_gate, again_gate, modes = sparse_interface_parts(xi, W, R, links)
    for gates in (write_gate, again_gate):
        sigmoid_in_place(gates, 1)
    for r in range(R):
        strengths[r] = oneplus(strengths[r])
    squash_modes(modes)


@njit(**EXACT)
def choose_writes(slots, weights, amounts, journal, b, taken, places_prev, reads_prev, alpha, gamma, R, K):
    """w^w := α (γ w̄^r + (1 − γ) e), as slots in ascending order; how many these are."""
    one, count = weights.dtype.type(1), 0
    share = alpha * gamma / weights.dtype.type(R)
    for k in range(R * K):
        if places_prev[k] >= 0:
            slot = journal.slots[b, places_prev[k]]
            count = mix(amounts, slots, count, slot, share * reads_prev[k])
    count = mix(amounts, slots, count, taken, alpha * (one - gamma))
    sort_slots(slots, count)
    for a in range(count):
        weights[a], amounts[slots[a]] = amounts[slots[a]], 0
    return count


@njit(**EXACT)
def write(rows, journal, b, slots, weights, count, vector, taken, W, links):
    """M := (1 − e) M + w^w vᵀ, and the lengths."""
    empty(rows, b, taken, W)
    rows.lengths[b, taken] = length(rows.content[b, taken * W :], W)
    for a in range(count):
        touch(rows, journal, b, slots[a], W, links)
        word = rows.content[b, slots[a] * W :]
        add_scaled(word, vector, weights[a], W)
        rows.lengths[b, slots[a]] = length(word, W)


@njit(**EXACT)
def look_up(found, similar, dots, rows, b, keys, count, W, R, K):
    """found [R K] := the slots most similar to every key [R W], -1 for none; similar := k·M[i] / |M[i]| of these."""
    for k in range(R * K):
        found[k] = -1
    for first in range(0, count, BLOCK):
        size = min(BLOCK, count - first)
        clear(dots, R * BLOCK)
        add_product(dots, BLOCK, keys, W, rows.content[b, first * W :], W, R, W, size)
        for r in range(R):
            for k in range(size):
                value = dots[r * BLOCK + k] / rows.lengths[b, first + k]
                at = (r + 1) * K
                # Slots come in ascending order: of equals the lower one is there already, and stays before.
                while at > r * K and (found[at - 1] < 0 or similar[at - 1] < value):
                    at -= 1
                    if at + 1 < (r + 1) * K:
                        found[at + 1], similar[at + 1] = found[at], similar[at]
                    found[at], similar[at] = first + k, value


@njit(**EXACT)
def look_among(found, similar, marks, rows, journal, scratch, b, keys, W, R, K):
    """The same among the slots proposed for a key, those that changed since, and those that this call came to.

    marks [C]: of the slots that the key was compared with; all 0 on entry and on return.
    """
    for k in range(R * K):
        found[k] = -1
    for r in range(R):
        key = keys[r * W :]
        for undo in range(2):
            # A slot may be proposed, have changed and be in the journal: it is compared once.
            for k in range(scratch.proposed[b]):
                compare(found, similar, marks, scratch.proposals[b, r, k], undo, rows, b, key, r, W, K)
            for k in range(scratch.stale[b]):
                compare(found, similar, marks, scratch.changed[b, k], undo, rows, b, key, r, W, K)
            for k in range(journal.held[b]):
                compare(found, similar, marks, journal.slots[b, k], undo, rows, b, key, r, W, K)


@njit(**EXACT)
def compare(found, similar, marks, slot, undo, rows, b, key, r, W, K):
    """Puts a slot in its place among those found for a key, or takes off its mark."""
    if undo or slot < 0 or slot >= rows.counts[b, EXISTING] or marks[slot]:
        if slot >= 0:
            marks[slot] = 1 - undo
        return
    marks[slot] = 1
    value, at = dot(key, rows.content[b, slot * W :], W) / rows.lengths[b, slot], (r + 1) * K
    while at > r * K and (
        found[at - 1] < 0 or similar[at - 1] < value or (similar[at - 1] == value and found[at - 1] > slot)
    ):
        at -= 1
        if at + 1 < (r + 1) * K:
            found[at + 1], similar[at + 1] = found[at], similar[at]
        found[at], similar[at] = slot, value


@njit(**EXACT)
def weigh(weights, similar, found, keys, strengths, W, R, K):
    """The softmax of β cos(k, M[i]) over what is found, best first."""
    for r in range(R):
        scale, total = strengths[r] / length(keys[r * W :], W), weights.dtype.type(0)
        for k in range(r * K, r * K + K):
            weights[k] = math.exp(scale * (similar[k] - similar[r * K])) if found[k] >= 0 else 0
            total += weights[k]
        for k in range(r * K, r * K + K):
            if found[k] >= 0:
                weights[k] /= total


@njit(**EXACT)
def keep_strongest(slots, weights, amounts, mixed, count, K):
    """The K slots of most weight, best first, ties to the lowest; then -1 and 0. Clears the amounts."""
    for k in range(K):
        slots[k], weights[k] = -1, 0
    for a in range(count):
        slot = mixed[a]
        value, at = amounts[slot], K
        amounts[slot] = 0
        while at > 0 and (weights[at - 1] < value or (weights[at - 1] == value and slots[at - 1] > slot)):
            at -= 1
            if at + 1 < K:
                slots[at + 1], weights[at + 1] = slots[at], weights[at]
            slots[at], weights[at] = slot, value


@njit(**EXACT)
def mix_reads(
    slots, weights, found, content, amounts, mixed, rows, journal, b, places_prev, reads_prev, modes, r, K, links
):
    """The strongest of w^r = π_b b + π_c c + π_f f, of head r."""
    count, by_back, by_content, by_ahead = 0, modes[3 * r], modes[3 * r + 1], modes[3 * r + 2]
    for k in range(r * K, r * K + K):
        if found[k] >= 0:
            count = mix(amounts, mixed, count, found[k], by_content * content[k])
        if places_prev[k] < 0:
            continue
        at = journal.slots[b, places_prev[k]] * links
        for q in range(at, at + links):
            if rows.ahead_slots[b, q] >= 0:
                share = by_ahead * rows.ahead[b, q] * reads_prev[k]
                count = mix(amounts, mixed, count, rows.ahead_slots[b, q], share)
            if rows.back_slots[b, q] >= 0:
                share = by_back * rows.back[b, q] * reads_prev[k]
                count = mix(amounts, mixed, count, rows.back_slots[b, q], share)
    keep_strongest(slots[r * K :], weights[r * K :], amounts, mixed, count, K)


@njit(**EXACT)
def link_to(rows, journal, b, slots, places_prev, ahead, back, K, links):
    """ahead, back [K K] := L[i, j] and L[j, i] of every slot i that is read and every j that was read before."""
    for k in range(K):
        for j in range(K):
            here, value, other = k * K + j, ahead.dtype.type(0), ahead.dtype.type(0)
            if slots[k] >= 0 and places_prev[j] >= 0:
                before = journal.slots[b, places_prev[j]]
                at = find(rows.back_slots[b], slots[k] * links, links, before)
                value = rows.back[b, at] if at >= 0 else value
                at = find(rows.ahead_slots[b], slots[k] * links, links, before)
                other = rows.ahead[b, at] if at >= 0 else other
            ahead[here], back[here] = value, other


@njit(**EXACT)
def note_words(places, kept, place, rows, journal, b, slots, sizes):
    """places := of slots in the journal; kept := their words, if the tape is for a backward pass."""
    W = sizes.W
    for k in range(sizes.R * sizes.K):
        places[k] = -1
        if slots[k] >= 0:
            places[k] = touch(rows, journal, b, slots[k], W, sizes.links)
            if sizes.keep:
                copy(kept[place, b, k * W :], rows.content[b, slots[k] * W :], W)


@njit(**EXACT)
def read(reads, rows, b, slots, weights, W, R, K):
    """r := w^r M."""
    clear(reads, R * W)
    for k in range(R * K):
        if slots[k] >= 0:
            add_scaled(reads[k // K * W :], rows.content[b, slots[k] * W :], weights[k], W)


@njit(**EXACT)
def count_accesses(rows, b, slots, weights, count, read_slots, read_weights, amounts, mixed, RK):
    """Slots written and read with more than δ in sum become the newest, in ascending order."""
    found = 0
    for a in range(count):
        found = mix(amounts, mixed, found, slots[a], weights[a])
    for k in range(RK):
        if read_slots[k] >= 0:
            found = mix(amounts, mixed, found, read_slots[k], read_weights[k])
    sort_slots(mixed, found)
    for a in range(found):
        if amounts[mixed[a]] > amounts.dtype.type(ACCESSED):
            access(rows, b, mixed[a])
        amounts[mixed[a]] = 0


@njit(**EXACT)
def step_row(thread, b, place, now, places_prev, reads_prev, rows, journal, sizes, tape, scratch):
    """One step of one row.

    place: of the step on the tape; now: of what it reads; places_prev, reads_prev [R K]: what the step before read.
    """
    W, R, K, links = sizes.W, sizes.R, sizes.K, sizes.links
    xi = tape.interfaces[place, b]
    keys, strengths, vector, write_gate, again_gate, modes = sparse_interface_parts(xi, W, R, links)
    dots, similar, weights, values, pending = number_parts(scratch.numbers[thread], R, K, links)
    found, followed, slots, candidates, origins, mixed = slot_parts(scratch.slots[thread], R, K, links)
    amounts, recent_slots, recent = scratch.mix[thread], scratch.recent_slots[b], scratch.recent[b]
    heads = tape.read_weights[now, b]
    content = tape.found_weights[place, b] if links else heads

    rows.counts[b, CLOCK] += 1
    taken = oldest(rows, b, sizes.N)
    tape.taken[place, b] = touch(rows, journal, b, taken, W, links)
    if taken == rows.counts[b, EXISTING]:
        create(rows, b, taken, links)
    elif links:
        unlink(rows, journal, b, taken, W, links)
    if links:
        remove(recent_slots, recent, 0, links, taken)
    count = choose_writes(
        slots, weights, amounts, journal, b, taken, places_prev, reads_prev, write_gate[0], again_gate[0], R, K
    )
    write(rows, journal, b, slots, weights, count, vector, taken, W, links)

    if scratch.proposed[b] > 0:
        look_among(found, similar, scratch.marks[thread], rows, journal, scratch, b, keys, W, R, K)
    else:
        look_up(found, similar, dots, rows, b, keys, rows.counts[b, EXISTING], W, R, K)
    weigh(content, similar, found, keys, strengths, W, R, K)
    read_at = found
    if links:
        note_words(tape.found_places[place, b], tape.found_rows, place, rows, journal, b, found, sizes)
        link_written(
            rows, journal, b, slots, weights, count, recent_slots, recent, candidates, origins, values, pending, W,
            links,
        )  # fmt: skip
        precede(recent_slots, recent, slots, weights, count, candidates, origins, values, links)
        for r in range(R):
            mix_reads(
                followed, heads, found, content, amounts, mixed, rows, journal, b, places_prev, reads_prev, modes, r, K,
                links,
            )  # fmt: skip
        read_at = followed
    places = tape.read_places[now, b]
    note_words(places, tape.read_rows, place, rows, journal, b, read_at, sizes)
    if links and sizes.keep:
        for r in range(R):
            link_to(
                rows, journal, b, read_at[r * K :], places_prev[r * K :], tape.forward[place, b, r * K * K :],
                tape.backward[place, b, r * K * K :], K, links,
            )  # fmt: skip
    read(tape.reads[now, b], rows, b, read_at, heads, W, R, K)
    count_accesses(rows, b, slots, weights, count, read_at, heads, amounts, mixed, R * K)
