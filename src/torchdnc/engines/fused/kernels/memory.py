"""One step of one row's memory: the functions of `torchdnc.ops`, composed as `ops.access` composes them."""

import math

from numba import njit

from torchdnc.engines.fused.kernels.blocks import spread_rows
from torchdnc.engines.fused.kernels.interface import squash
from torchdnc.engines.fused.kernels.layout import interface_parts, mask_parts, reclaim_parts, slots_of, tape_parts
from torchdnc.engines.fused.kernels.masking import score_masked
from torchdnc.engines.fused.kernels.options import BODY, EXACT, INLINED
from torchdnc.engines.fused.kernels.overflow import grow_older, reclaim
from torchdnc.engines.fused.kernels.product import add_product, add_product_back
from torchdnc.engines.fused.kernels.simd import (
    count_before,
    first_lanes,
    fma,
    lanes,
    like,
    load,
    prefetch,
    spread,
    store,
    sum_lanes,
    sum_lanes_of_four,
)
from torchdnc.engines.fused.kernels.team import part, wait
from torchdnc.engines.fused.kernels.vectors import add, clear, copy, length, softmax, softmax_where_finite, total
from torchdnc.ops.content import COSINE_EPSILON

# Rows of the link matrix that are at hand at a time.
BLOCK = 4


@njit(**EXACT)
def sort_free_list(order, usage, N):
    """order := slots by ascending usage, ties to the lowest slot.

    A slot's place is the number of slots before it. To count them for every slot takes N² comparisons, a vector of them
    at a time and none that has to be guessed: less than the links take, and than a sort does, up to thousands of slots.
    """
    for i in range(N):
        order[i] = -1
    for i in range(0, N, BLOCK):
        for q, place in enumerate(_four_places(usage, i, N)):
            if i + q < N:
                order[int(place)] = i + q
    for i in range(N):
        if order[i] < 0:
            # Something is not a number, which is neither before nor behind another: any order will do.
            for j in range(N):
                order[j] = j
            return


@njit(**EXACT)
def _four_places(usage, i, N):
    """How many slots come before each of slots i to i + 3: those of less usage, and lower ones of as much."""
    u0, u1 = spread(usage[i]), spread(usage[min(i + 1, N - 1)])
    u2, u3 = spread(usage[min(i + 2, N - 1)]), spread(usage[min(i + 3, N - 1)])
    c0 = c1 = c2 = c3 = like(usage, 0)
    L = lanes(usage)
    own = i - i % L
    # What all lanes have in common is left to the compiler to simplify, outside the vector that these slots are in.
    for j in range(0, own, L):
        x = load(usage, j, L)
        c0, c1 = count_before(c0, x, u0, L), count_before(c1, x, u1, L)
        c2, c3 = count_before(c2, x, u2, L), count_before(c3, x, u3, L)
    x, lower = first_lanes(load(usage, own, N - own), like(usage, math.inf), N - own), i - own
    c0, c1 = count_before(c0, x, u0, lower), count_before(c1, x, u1, lower + 1)
    c2, c3 = count_before(c2, x, u2, lower + 2), count_before(c3, x, u3, lower + 3)
    for j in range(own + L, N, L):
        x = first_lanes(load(usage, j, N - j), like(usage, math.inf), N - j)
        c0, c1 = count_before(c0, x, u0, 0), count_before(c1, x, u1, 0)
        c2, c3 = count_before(c2, x, u2, 0), count_before(c3, x, u3, 0)
    return sum_lanes_of_four(c0, c1, c2, c3)


@njit(**EXACT)
def count_usage(usage, usage_prev, write_weights_prev, read_weights_prev, free_gates, N, R):
    """u := (1 − (1 − u)(1 − w^w)) Π_r (1 − f^r w^r)."""
    one = like(usage, 1)
    for i in range(0, N, lanes(usage)):
        n = N - i
        used = one - (one - load(usage_prev, i, n)) * (one - load(write_weights_prev, i, n))
        for r in range(R):
            used = used * (one - spread(free_gates[r]) * load(read_weights_prev, r * N + i, n))
        store(usage, i, used, n)


@njit(**EXACT)
def choose_write(weights, content, usage, order, alloc_gate, write_gate, n, N):
    """w^w := g^w (g^a a + (1 − g^a) c), the allocation a taken along the free list of the n slots that there are."""
    one = weights.dtype.type(1)
    fresh, found, used_before = write_gate * alloc_gate, write_gate * (one - alloc_gate), one
    clear(weights[n:], N - n)
    for j in range(n):
        slot = order[j]
        weights[slot] = fresh * (one - usage[slot]) * used_before + found * content[slot]
        used_before *= usage[slot]


@njit(**BODY)
def _write_at(at, n, memory, memory_prev, kept, weight, erase, vector, k, square):
    old = kept * load(memory_prev, at, n)
    new = fma(weight, load(vector, k, n) - load(erase, k, n) * old, old)
    store(memory, at, new, n)
    return fma(new, new, square)


@njit(**EXACT)
def held(i, heads_prev, free_gates, released, N, R, options):
    """What is left of a slot before it is written: nothing where it is released, ψ[i] = Π_r (1 − f^r w^r[i]) where what
    is freed is wiped."""
    one = heads_prev.dtype.type(1)
    kept = one
    if options.reclaims and released[i] != 0:
        return one - one
    if not options.wipes:
        return kept
    for r in range(R):
        kept *= one - free_gates[r] * heads_prev[r * N + i]
    return kept


@njit(**EXACT)
def write(
    memory, memory_prev, lengths, lengths_prev, weights, erase, vector, heads_prev, free_gates, released, first, last,
    N, W, R, options,
):  # fmt: skip
    """M := M_{t−1} ∘ (1 − w eᵀ) + w vᵀ, which may be done in place, and the lengths, of slots `first` up to `last`.

    What is not `held` is forgotten first. A slot that was never written, or since released, is of infinite length.
    """
    L = lanes(memory)
    whole, kept = W - W % L, like(memory, 1)
    for i in range(first, last):
        weight, square = spread(weights[i]), like(memory, 0)
        gone = options.reclaims and released[i] != 0
        if options.wipes or options.reclaims:
            kept = spread(held(i, heads_prev, free_gates, released, N, R, options))
        for k in range(0, whole, L):
            square = _write_at(i * W + k, L, memory, memory_prev, kept, weight, erase, vector, k, square)
        if whole < W:
            square = _write_at(
                i * W + whole, W - whole, memory, memory_prev, kept, weight, erase, vector, whole, square
            )
        if options.skips and weights[i] == 0 and (gone or lengths_prev[i] == math.inf):
            lengths[i] = math.inf
        else:
            lengths[i] = math.sqrt(sum_lanes(square) + memory.dtype.type(COSINE_EPSILON))


@njit(**EXACT)
def compare(dots, memory, keys, N, W, R):
    """dots := k·M[i], of every key [R W] and slot."""
    clear(dots, R * N)
    add_product(dots, N, keys, W, memory, W, R, W, N)


@njit(**EXACT)
def score(scores, memory, lengths, keys, strengths, N, W, R):
    """scores := β k·M[i] / (|k| |M[i]|), of every key [R W] and slot."""
    compare(scores, memory, keys, N, W, R)
    for r in range(R):
        scale = spread(strengths[r] / length(keys[r * W :], W))
        for i in range(0, N, lanes(scores)):
            store(scores, r * N + i, load(scores, r * N + i, N - i) * scale / load(lengths, i, N - i), N - i)


@njit(**EXACT)
def look_up(content, memory, lengths, keys, masks, strengths, work, n, N, W, R, heads, options):
    """content := C(M, k, β, m), of every key [heads W]; 0 behind the n slots that there are and, where such slots are
    skipped, at slots of infinite length."""
    if options.masked:
        score_masked(content, memory, keys, masks, strengths, work, N, W, R, heads)
    else:
        score(content, memory, lengths, keys, strengths, N, W, heads)
    for r in range(heads):
        if options.skips:
            softmax_where_finite(content[r * N :], lengths, N)
        else:
            softmax(content[r * N :], n)
            clear(content[r * N + n :], N - n)


@njit(**BODY)
def _links_at(j, n, links, links_prev, row1, row2, row3, own, weights, precedence_prev):
    """A vector of each of four rows; own: their w[i], in every lane."""
    w0, w1, w2, w3 = own
    stays, before = like(weights, 1) - load(weights, j, n), load(precedence_prev, j, n)
    x0, x1 = load(links_prev, j, n), load(links_prev, row1 + j, n)
    x2, x3 = load(links_prev, row2 + j, n), load(links_prev, row3 + j, n)
    # Backwards: what a missing row has become is stored over by the last one, which lies in the same place.
    store(links, row3 + j, fma(stays - w3, x3, w3 * before), n)
    store(links, row2 + j, fma(stays - w2, x2, w2 * before), n)
    store(links, row1 + j, fma(stays - w1, x1, w1 * before), n)
    store(links, j, fma(stays - w0, x0, w0 * before), n)


@njit(**EXACT)
def update_links(links, links_prev, i, count, weights, precedence_prev, N):
    """links := `count` ≤ 4 rows, from the i-th on, of L = (1 − w[i] − w[j]) L_{t−1} + w[i] p[j], with no link to
    itself; may be done in place.

    Four rows at a time share what is loaded. links, links_prev: from the i-th row on. weights: with more numbers behind
    the last slot's, for missing rows, which nobody uses.
    """
    row1, row2, row3 = min(1, count - 1) * N, min(2, count - 1) * N, min(3, count - 1) * N
    own, L = spread_rows(weights, i, 1, 4), lanes(links)
    whole = N - N % L
    for j in range(0, whole, L):
        for q in range(BLOCK):
            prefetch(links_prev, (BLOCK + q) * N + j)
        _links_at(j, L, links, links_prev, row1, row2, row3, own, weights, precedence_prev)
    if whole < N:
        _links_at(whole, N - whole, links, links_prev, row1, row2, row3, own, weights, precedence_prev)
    for q in range(count):
        links[q * N + i + q] = 0


@njit(**BODY)
def _follow_at(j, n, rows, row1, row2, row3, heads, back, at, weights, sums):
    """A vector of what `follow` does of a head."""
    (w0, w1, w2, w3), (sum0, sum1, sum2, sum3), head = weights, sums, load(heads, at + j, n)
    x0, x1 = load(rows, j, n), load(rows, row1 + j, n)
    x2, x3 = load(rows, row2 + j, n), load(rows, row3 + j, n)
    store(back, at + j, fma(w3, x3, fma(w2, x2, fma(w1, x1, fma(w0, x0, load(back, at + j, n))))), n)
    return fma(x0, head, sum0), fma(x1, head, sum1), fma(x2, head, sum2), fma(x3, head, sum3)


@njit(**EXACT)
def follow(rows, first, count, heads, ahead, back, N, R):
    """Of `count` ≤ 4 rows L[i] from i = `first` on: ahead[i] := L[i] · w and back += w[i] L[i], for
    every head w. Four rows at a time share what is loaded; a missing one is the last once more, with weight 0."""
    zero, L, none = rows.dtype.type(0), lanes(rows), like(rows, 0)
    q1, q2, q3 = min(1, count - 1), min(2, count - 1), min(3, count - 1)
    row1, row2, row3, whole = q1 * N, q2 * N, q3 * N, N - N % L
    for r in range(R):
        at, o = r * N, r * N + first
        weights = (
            spread(heads[o]),
            spread(heads[o + q1] if count > 1 else zero),
            spread(heads[o + q2] if count > 2 else zero),
            spread(heads[o + q3] if count > 3 else zero),
        )
        sums = (none, none, none, none)
        for j in range(0, whole, L):
            sums = _follow_at(j, L, rows, row1, row2, row3, heads, back, at, weights, sums)
        if whole < N:
            sums = _follow_at(whole, N - whole, rows, row1, row2, row3, heads, back, at, weights, sums)
        ahead[o], ahead[o + q1], ahead[o + q2], ahead[o + q3] = sum_lanes_of_four(sums[0], sums[1], sums[2], sums[3])


@njit(**INLINED)
def link_and_follow(link, link_prev, weights, precedence_prev, read_weights_prev, forward, backward, first, last, N, R):
    """The link update of rows `first` up to `last`, their f = L w^r of every head while they are at hand, and
    backward := what they give to b = Lᵀ w^r."""
    clear(backward, R * N)
    for block in range(first, last, BLOCK):
        count = min(BLOCK, last - block)
        update_links(link[block * N :], link_prev[block * N :], block, count, weights, precedence_prev, N)
        follow(link[block * N :], block, count, read_weights_prev, forward, backward, N, R)


@njit(**EXACT)
def precede(precedence, precedence_prev, weights, N):
    """p := (1 − Σ w^w) p + w^w."""
    stays = spread(weights.dtype.type(1) - total(weights, N))
    for i in range(0, N, lanes(precedence)):
        n = N - i
        store(precedence, i, fma(stays, load(precedence_prev, i, n), load(weights, i, n)), n)


@njit(**EXACT)
def choose_reads(weights, backward, content, forward, modes, N, R):
    """w^r := π_b b + π_c c + π_f f."""
    for r in range(R):
        by_back, by_content, by_ahead = spread(modes[3 * r]), spread(modes[3 * r + 1]), spread(modes[3 * r + 2])
        for i in range(0, N, lanes(weights)):
            at, n = r * N + i, N - i
            mixed = by_content * load(content, at, n)
            mixed = fma(by_back, load(backward, at, n), mixed)
            store(weights, at, fma(by_ahead, load(forward, at, n), mixed), n)


@njit(**EXACT)
def read(words, memory, weights, N, W, R):
    """r := w^r M."""
    clear(words, R * W)
    add_product_back(words, W, weights, N, memory, W, R, N, W)


@njit(**INLINED)
def step_row(mine, prev, row, order, xi, memory_prev, memory, link_prev, link, reads, work, N, W, R, options):
    """One step of one row.

    mine: the thread's share. prev, row: what the tape holds of step t−1 and will hold of step t, of which it holds how
    many slots the row has; order: its free
    list; xi: the raw interface, squashed on return; memory, link: may be those of step t−1; reads: the
    words read; work: for every thread, see `layout.work_size`.
    """
    keys, strengths, write_key, write_strength, erase, vector, free_gates, alloc_gate, write_gate, modes = (
        interface_parts(xi, W, R, options)
    )
    read_masks, write_mask = mask_parts(xi, W, R, options)
    usage, write_weights, precedence, lengths, write_content, read_weights, content = tape_parts(row, N, R)
    usage_prev, write_weights_prev, precedence_prev, lengths_prev, _, read_weights_prev, _ = tape_parts(prev, N, R)
    heads = R * N
    forward, backward = work[mine.thread - mine.piece, :heads], work[mine.thread, heads : 2 * heads]
    first, last = part(mine, N)
    n = slots_of(row, N, R, options) if mine.piece == 0 else N

    if mine.piece == 0:
        squash(xi, W, R, options)
        count_usage(usage, usage_prev, write_weights_prev, read_weights_prev, free_gates, N, R)
        if options.reclaims:
            reclaim(row, prev, N, R, options)
        look_up(
            write_content, memory_prev, lengths_prev, write_key, write_mask, write_strength, work[mine.thread], n, N, W,
            R, write_strength.shape[0], options,
        )  # fmt: skip
        sort_free_list(order, usage, n)
        choose_write(write_weights, write_content, usage, order, alloc_gate[0], write_gate[0], n, N)
        write(
            memory, memory_prev, lengths, lengths_prev, write_weights, erase, vector, read_weights_prev, free_gates,
            reclaim_parts(row, N, R)[2], 0, N, N, W, R, options,
        )  # fmt: skip
    if options.linked:
        if mine.piece == 0:
            precede(precedence, precedence_prev, write_weights, N)
        wait(mine)
        link_and_follow(
            link, link_prev, write_weights, precedence_prev, read_weights_prev, forward, backward, first, last, N, R
        )
        wait(mine)
    if mine.piece == 0:
        look_up(content, memory, lengths, keys, read_masks, strengths, work[mine.thread], n, N, W, R, R, options)
        if options.linked:
            for other in range(1, mine.pieces):
                add(backward, work[other, heads : 2 * heads], heads)
            choose_reads(read_weights, backward, content, forward, modes, N, R)
        else:
            copy(read_weights, content, heads)
        read(reads, memory, read_weights, N, W, R)
        if options.reclaims:
            grow_older(row, prev, N, R)
