"""The gradients that meet in a slot: of what is read of it, and of what is written to it."""

from numba import njit

from torchdnc.engines.fused.kernels.blocks import add_outer, load_block, repeat, spread_rows, store_block
from torchdnc.engines.fused.kernels.options import BODY, EXACT, INLINED
from torchdnc.engines.fused.kernels.simd import (
    fma,
    lanes,
    like,
    load,
    spread,
    store,
    sum_lanes,
    sum_lanes_of_four,
)


@njit(**EXACT)
def slot_backward(
    i, memory_prev, memory, d_memory, weights, erase, vector, write_key, heads, d_reads, scales, keys, shrink, d_erase,
    d_vector, d_weights, write_dots, N, W, R,
):  # fmt: skip
    """All gradients that meet in a slot: of the words read and of the keys, then through the write
    M_t = M_{t−1} ∘ (1 − w eᵀ) + w vᵀ.

    d_memory: of M_t from later steps on entry, of M_{t−1} but for the write key on return; write_dots[i] :=
    M_{t−1}[i]·k^w, which the write key's gradient needs.
    """
    weight, less, one = spread(weights[i]), spread(shrink[i]), like(memory, 1)
    d_weight = along_key = like(memory, 0)
    for k in range(0, W, lanes(memory)):
        at, n = i * W + k, W - k
        old, erased = load(memory_prev, at, n), load(erase, k, n)
        grad = fma(less, load(memory, at, n), load(d_memory, at, n))
        for r in range(R):
            grad = fma(spread(heads[r * N + i]), load(d_reads, r * W + k, n), grad)
            grad = fma(spread(scales[r * N + i]), load(keys, r * W + k, n), grad)
        written = grad * weight
        store(d_erase, k, load(d_erase, k, n) - written * old, n)
        store(d_vector, k, load(d_vector, k, n) + written, n)
        store(d_memory, at, grad * (one - weight * erased), n)
        d_weight = fma(grad, load(vector, k, n) - erased * old, d_weight)
        along_key = fma(old, load(write_key, k, n), along_key)
    d_weights[i] += sum_lanes(d_weight)
    write_dots[i] = sum_lanes(along_key)


@njit(**BODY)
def _four_slots_at(
    k, n, i, memory_prev, memory, d_memory, weights, erase, vector, write_key, heads, d_reads, scales, keys, shrink,
    d_erase, d_vector, sums, N, W, R,
):  # fmt: skip
    """A vector of each of the four slots; sums: those of d w, then those of M_{t−1}·k^w."""
    at, one = i * W + k, like(memory, 1)
    x0, x1, x2, x3 = load_block(memory, at, W, n, 4, 1)
    l0, l1, l2, l3 = spread_rows(shrink, i, 1, 4)
    g0, g1, g2, g3 = load_block(d_memory, at, W, n, 4, 1)
    grads = fma(l0, x0, g0), fma(l1, x1, g1), fma(l2, x2, g2), fma(l3, x3, g3)
    for r in range(R):
        grads = add_outer(grads, spread_rows(heads, r * N + i, 1, 4), load_block(d_reads, r * W + k, 0, n, 1, 1))
        grads = add_outer(grads, spread_rows(scales, r * N + i, 1, 4), load_block(keys, r * W + k, 0, n, 1, 1))
    g0, g1, g2, g3 = grads
    x0, x1, x2, x3 = load_block(memory_prev, at, W, n, 4, 1)
    w0, w1, w2, w3 = spread_rows(weights, i, 1, 4)
    erased, value, key = load(erase, k, n), load(vector, k, n), load(write_key, k, n)
    v0, v1, v2, v3 = w0 * g0, w1 * g1, w2 * g2, w3 * g3
    store(d_erase, k, load(d_erase, k, n) - fma(v0, x0, fma(v1, x1, fma(v2, x2, v3 * x3))), n)
    store(d_vector, k, load(d_vector, k, n) + ((v0 + v1) + (v2 + v3)), n)
    after = g0 * (one - w0 * erased), g1 * (one - w1 * erased), g2 * (one - w2 * erased), g3 * (one - w3 * erased)
    store_block(d_memory, at, W, after, n, 4, 1)
    s0, s1, s2, s3, a0, a1, a2, a3 = sums
    return (
        fma(g0, value - erased * x0, s0),
        fma(g1, value - erased * x1, s1),
        fma(g2, value - erased * x2, s2),
        fma(g3, value - erased * x3, s3),
        fma(x0, key, a0),
        fma(x1, key, a1),
        fma(x2, key, a2),
        fma(x3, key, a3),
    )


@njit(**EXACT)
def four_slots_backward(
    i, memory_prev, memory, d_memory, weights, erase, vector, write_key, heads, d_reads, scales, keys, shrink, d_erase,
    d_vector, d_weights, write_dots, N, W, R,
):  # fmt: skip
    """`slot_backward` of slots i to i + 3, which share what is loaded."""
    sums, L = repeat(like(memory, 0), 8), lanes(memory)
    whole = W - W % L
    for k in range(0, whole, L):
        sums = _four_slots_at(
            k, L, i, memory_prev, memory, d_memory, weights, erase, vector, write_key, heads, d_reads, scales, keys,
            shrink, d_erase, d_vector, sums, N, W, R,
        )  # fmt: skip
    if whole < W:
        sums = _four_slots_at(
            whole, W - whole, i, memory_prev, memory, d_memory, weights, erase, vector, write_key, heads, d_reads,
            scales, keys, shrink, d_erase, d_vector, sums, N, W, R,
        )  # fmt: skip
    for q, each in enumerate(sum_lanes_of_four(sums[0], sums[1], sums[2], sums[3])):
        d_weights[i + q] += each
    for q, each in enumerate(sum_lanes_of_four(sums[4], sums[5], sums[6], sums[7])):
        write_dots[i + q] = each


@njit(**INLINED)
def slots_backward(
    memory_prev, memory, d_memory, weights, erase, vector, write_key, heads, d_reads, scales, keys, shrink, d_weights,
    d_erase, d_vector, write_dots, N, W, R,
):  # fmt: skip
    """`slot_backward` of every slot."""
    for i in range(0, N - N % 4, 4):
        four_slots_backward(
            i, memory_prev, memory, d_memory, weights, erase, vector, write_key, heads, d_reads, scales, keys, shrink,
            d_erase, d_vector, d_weights, write_dots, N, W, R,
        )  # fmt: skip
    for i in range(N - N % 4, N):
        slot_backward(
            i, memory_prev, memory, d_memory, weights, erase, vector, write_key, heads, d_reads, scales, keys, shrink,
            d_erase, d_vector, d_weights, write_dots, N, W, R,
        )  # fmt: skip
