"""The gradient of the links: of their update, of what is read along them, and of the precedence."""

from numba import njit

from torchdnc.engines.fused.kernels.blocks import add_outer, load_block, spread_rows
from torchdnc.engines.fused.kernels.memory import BLOCK, follow, update_links
from torchdnc.engines.fused.kernels.options import BODY, EXACT, INLINED
from torchdnc.engines.fused.kernels.simd import (
    fma,
    lanes,
    like,
    load,
    prefetch,
    spread,
    store,
    sum_lanes,
    sum_lanes_of_four,
    without_lane,
)
from torchdnc.engines.fused.kernels.vectors import clear, dot, total


@njit(**INLINED)
def link_rows(room, link, i, count, rows, alive, b, first, t, N):
    """`count` ≤ 4 rows, from the i-th on, of what the link matrix was before step t.

    They are returned where they lie: in `room`, which is for four rows, or in `link` if nothing happened since. link:
    before step `first`. rows, alive: as on the tape; b: the row of the batch.
    """
    links = link[i * N :]
    for s in range(first, t):
        if alive[s, b]:
            update_links(room, links, i, count, rows[s + 1, b, N:], rows[s, b, 2 * N :], N)
            links = room
    return links


@njit(**BODY)
def link_backward(grad, old, j, n, d_link, at, weight, keep, weights, precedence_prev, acc, d_weight, d_precedence):
    """A vector of d L[i, j] through the link update, to be added to d w[i] (acc), d w[j] and d p_{t−1}[j]."""
    lost = grad * old
    store(d_link, at + j, grad * (keep - load(weights, j, n)), n)
    return fma(grad, load(precedence_prev, j, n), acc - lost), d_weight - lost, fma(grad, weight, d_precedence)


@njit(**EXACT)
def link_row_backward(
    d_link, past, q, i, weights, precedence_prev, heads, d_heads, factors, d_weights, d_precedence_prev, N, R
):
    """One row of the links' gradient: that of f and b comes in, then it goes through the link update.

    d_link: of L_t from later steps on entry, of L_{t−1} on return. past, factors: of some rows, this being the q-th.
    """
    weight, keep, acc = spread(weights[i]), spread(weights.dtype.type(1) - weights[i]), like(d_link, 0)
    for j in range(0, N, lanes(d_link)):
        n = N - j
        grad = load(d_link, i * N + j, n)
        for r in range(R):
            grad = fma(spread(factors[8 * r + q]), load(heads, r * N + j, n), grad)
            grad = fma(spread(factors[8 * r + 4 + q]), load(d_heads, r * N + j, n), grad)
        acc, d_weight, d_precedence = link_backward(
            without_lane(grad, i - j), load(past, q * N + j, n), j, n, d_link, i * N, weight, keep, weights,
            precedence_prev, acc, load(d_weights, j, n), load(d_precedence_prev, j, n),
        )  # fmt: skip
        store(d_weights, j, d_weight, n)
        store(d_precedence_prev, j, d_precedence, n)
    d_weights[i] += sum_lanes(acc)


@njit(**BODY)
def _four_links_at(j, n, grads, d_link, past, i, weights, own, precedence_prev, d_weights, d_precedence_prev, acc, N):
    """A vector of each of four rows, through the link update; own: w and 1 − w of the rows, in every lane."""
    (w0, w1, w2, w3), (k0, k1, k2, k3) = own
    (a0, a1, a2, a3), (g0, g1, g2, g3) = acc, grads
    at0, at1, at2, at3 = i * N, (i + 1) * N, (i + 2) * N, (i + 3) * N
    if j < i + BLOCK and i < j + lanes(d_link):
        g0, g1 = without_lane(g0, i - j), without_lane(g1, i + 1 - j)
        g2, g3 = without_lane(g2, i + 2 - j), without_lane(g3, i + 3 - j)
    x0, x1, x2, x3 = load_block(past, j, N, n, 4, 1)
    d_w, d_p = load(d_weights, j, n), load(d_precedence_prev, j, n)
    a0, d_w, d_p = link_backward(g0, x0, j, n, d_link, at0, w0, k0, weights, precedence_prev, a0, d_w, d_p)
    a1, d_w, d_p = link_backward(g1, x1, j, n, d_link, at1, w1, k1, weights, precedence_prev, a1, d_w, d_p)
    a2, d_w, d_p = link_backward(g2, x2, j, n, d_link, at2, w2, k2, weights, precedence_prev, a2, d_w, d_p)
    a3, d_w, d_p = link_backward(g3, x3, j, n, d_link, at3, w3, k3, weights, precedence_prev, a3, d_w, d_p)
    store(d_weights, j, d_w, n)
    store(d_precedence_prev, j, d_p, n)
    return a0, a1, a2, a3


@njit(**BODY)
def _twice_four_links_at(
    j, n, d_link, past, i, weights, own, precedence_prev, heads, d_heads, factors, d_weights, d_precedence_prev, acc, N,
    R,
):  # fmt: skip
    """Two vectors of each of four rows."""
    L, grads = lanes(d_link), load_block(d_link, i * N + j, N, n, 4, 2)
    for r in range(R):
        grads = add_outer(grads, spread_rows(factors, 8 * r, 1, 4), load_block(heads, r * N + j, 0, n, 1, 2))
        grads = add_outer(grads, spread_rows(factors, 8 * r + 4, 1, 4), load_block(d_heads, r * N + j, 0, n, 1, 2))
    g0, h0, g1, h1, g2, h2, g3, h3 = grads
    acc = _four_links_at(
        j, n, (g0, g1, g2, g3), d_link, past, i, weights, own, precedence_prev, d_weights, d_precedence_prev, acc, N
    )
    return _four_links_at(
        j + L, n - L, (h0, h1, h2, h3), d_link, past, i, weights, own, precedence_prev, d_weights, d_precedence_prev,
        acc, N,
    )  # fmt: skip


@njit(**EXACT)
def four_link_rows_backward(
    d_link, past, i, weights, precedence_prev, heads, d_heads, factors, d_weights, d_precedence_prev, N, R
):
    """`link_row_backward` of rows i to i + 3, which share what is loaded."""
    one, none, two = like(d_link, 1), like(d_link, 0), 2 * lanes(d_link)
    w0, w1, w2, w3 = spread_rows(weights, i, 1, 4)
    own = ((w0, w1, w2, w3), (one - w0, one - w1, one - w2, one - w3))
    acc, whole = (none, none, none, none), N - N % two
    for j in range(0, whole, two):
        for q in range(BLOCK):
            prefetch(d_link, (i + BLOCK + q) * N + j)
            prefetch(d_link, (i + BLOCK + q) * N + j + lanes(d_link))
        acc = _twice_four_links_at(
            j, two, d_link, past, i, weights, own, precedence_prev, heads, d_heads, factors, d_weights,
            d_precedence_prev, acc, N, R,
        )  # fmt: skip
    if whole < N:
        acc = _twice_four_links_at(
            whole, N - whole, d_link, past, i, weights, own, precedence_prev, heads, d_heads, factors, d_weights,
            d_precedence_prev, acc, N, R,
        )  # fmt: skip
    for q, each in enumerate(sum_lanes_of_four(acc[0], acc[1], acc[2], acc[3])):
        d_weights[i + q] += each


@njit(**INLINED)
def follow_backward(
    link, rows, alive, b, first, t, d_link, weights, precedence_prev, heads, d_heads, modes, d_weights,
    d_precedence_prev, back, ahead, linked, factors, first_row, last_row, N, R,
):  # fmt: skip
    """One pass over the links: gradients through f = L w^r, b = Lᵀ w^r and the link update.

    first_row, last_row: the rows to go through, up to the last: what d_weights, d_precedence_prev and `back` get is
    their part. link: before step `first`, see `link_rows`; t: this step. heads: w^r_{t−1}; d_heads: gradient of
    w^r_t.
    back := Lᵀ d_heads and ahead := L d_heads, from which the gradients of the heads before and of the modes follow;
    linked: room for four rows of L_{t−1} and of L_t; factors: for 8 R numbers.
    """
    room, now = linked[: 4 * N], linked[4 * N : 8 * N]
    clear(back, R * N)
    for i in range(first_row, last_row, BLOCK):
        count = min(BLOCK, last_row - i)
        past = link_rows(room, link, i, count, rows, alive, b, first, t, N)
        update_links(now, past, i, count, weights, precedence_prev, N)
        for q in range(count):
            for r in range(R):
                factors[8 * r + q] = modes[3 * r + 2] * d_heads[r * N + i + q]
                factors[8 * r + 4 + q] = modes[3 * r] * heads[r * N + i + q]
        follow(now, i, count, d_heads, ahead, back, N, R)
        if count == BLOCK:
            four_link_rows_backward(
                d_link, past, i, weights, precedence_prev, heads, d_heads, factors, d_weights, d_precedence_prev, N, R
            )
        else:
            for q in range(count):
                link_row_backward(
                    d_link, past, q, i + q, weights, precedence_prev, heads, d_heads, factors, d_weights,
                    d_precedence_prev, N, R,
                )  # fmt: skip


@njit(**EXACT)
def turn_heads(d_heads, heads, back, ahead, modes, d_modes, N, R):
    """d_heads: of w^r_t -> of w^r_{t−1}, and the gradients of the modes backward and forward."""
    for r in range(R):
        at = r * N
        d_modes[3 * r] = dot(ahead[at:], heads[at:], N)
        d_modes[3 * r + 2] = dot(back[at:], heads[at:], N)
        by_back, by_ahead = spread(modes[3 * r]), spread(modes[3 * r + 2])
        for i in range(0, N, lanes(d_heads)):
            n = N - i
            turned = fma(by_ahead, load(back, at + i, n), by_back * load(ahead, at + i, n))
            store(d_heads, at + i, turned, n)


@njit(**EXACT)
def precede_backward(d_precedence, d_precedence_prev, d_weights, weights, precedence_prev, N):
    """Through p = (1 − Σ w^w) p_{t−1} + w^w."""
    stays = spread(weights.dtype.type(1) - total(weights, N))
    lost = spread(dot(d_precedence, precedence_prev, N))
    for i in range(0, N, lanes(d_weights)):
        n = N - i
        grad = load(d_precedence, i, n)
        store(d_precedence_prev, i, stays * grad, n)
        store(d_weights, i, load(d_weights, i, n) + (grad - lost), n)
