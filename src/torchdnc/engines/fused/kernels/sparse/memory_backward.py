"""The gradient of one step of one row's sparse memory."""

import math

from numba import njit

from torchdnc.engines.fused.kernels.interface import unsquash_modes
from torchdnc.engines.fused.kernels.options import EXACT
from torchdnc.engines.fused.kernels.sparse.layout import number_parts, sparse_interface_parts
from torchdnc.engines.fused.kernels.sparse.memory import add_scaled
from torchdnc.engines.fused.kernels.vectors import clear, copy, dot, length


@njit(**EXACT)
def unsquash(xi, d_xi, W, R, links):
    """d_xi: gradient of the squashed parts -> of the raw interface, in place; needs the squashed values only."""
    one = xi.dtype.type(1)
    _, strengths, _, write_gate, again_gate, modes = sparse_interface_parts(xi, W, R, links)
    _, d_strengths, _, d_write_gate, d_again_gate, d_modes = sparse_interface_parts(d_xi, W, R, links)
    d_write_gate[0] *= write_gate[0] * (one - write_gate[0])
    d_again_gate[0] *= again_gate[0] * (one - again_gate[0])
    for r in range(R):
        # With s = 1 + log(1 + e^x), the derivative e^x / (1 + e^x) is 1 - e^(1 - s).
        d_strengths[r] *= -math.expm1(one - strengths[r])
    unsquash_modes(modes, d_modes)


@njit(**EXACT)
def read_backward(d_heads, d_rows, d_reads, places, heads, words, W, R, K):
    """Adds to the gradients of the read weights [R K] and of the words."""
    for k in range(R * K):
        if places[k] >= 0:
            d_read = d_reads[k // K * W :]
            d_heads[k] += dot(d_read, words[k * W :], W)
            add_scaled(d_rows[places[k] * W :], d_read, heads[k], W)


@njit(**EXACT)
def mix_backward(
    d_content, d_modes, d_prev, d_heads, places, found, content, ahead, back, reads_prev, modes, R, K
):  # fmt: skip
    """Through w^r = π_b b + π_c c + π_f f: to the content weights, the modes and the read weights before."""
    zero = d_heads.dtype.type(0)
    for r in range(R):
        to_back, to_content, to_ahead = zero, zero, zero
        for k in range(r * K, r * K + K):
            d_content[k] = 0
        for k in range(r * K, r * K + K):
            if places[k] < 0:
                continue
            d_head, by_ahead, by_back = d_heads[k], zero, zero
            for j in range(K):
                at = k * K + j
                by_ahead += ahead[at] * reads_prev[r * K + j]
                by_back += back[at] * reads_prev[r * K + j]
                d_prev[r * K + j] += d_head * (modes[3 * r + 2] * ahead[at] + modes[3 * r] * back[at])
            to_back += d_head * by_back
            to_ahead += d_head * by_ahead
            for q in range(r * K, r * K + K):
                if found[q] == places[k]:
                    d_content[q] = modes[3 * r + 1] * d_head
                    to_content += content[q] * d_head
        d_modes[3 * r], d_modes[3 * r + 1], d_modes[3 * r + 2] = to_back, to_content, to_ahead


@njit(**EXACT)
def look_up_backward(d_keys, d_strengths, d_rows, d_content, found, content, words, keys, strengths, W, R, K):
    """Through c = softmax(β cos(k, M[i])) over what was found, to keys, strengths and words."""
    for r in range(R):
        key, d_key = keys[r * W :], d_keys[r * W :]
        clear(d_key, W)
        key_length, along = length(key, W), key.dtype.type(0)
        d_strength, d_length = key.dtype.type(0), key.dtype.type(0)
        for q in range(r * K, r * K + K):
            if found[q] >= 0:
                along += content[q] * d_content[q]
        for q in range(r * K, r * K + K):
            if found[q] < 0:
                continue
            word, d_score = words[q * W :], content[q] * (d_content[q] - along)
            word_length = length(word, W)
            cosine = dot(key, word, W) / (key_length * word_length)
            d_cosine = strengths[r] * d_score
            d_strength += d_score * cosine
            d_length += d_cosine * cosine
            add_scaled(d_key, word, d_cosine / (key_length * word_length), W)
            d_word = d_rows[found[q] * W :]
            add_scaled(d_word, key, d_cosine / (key_length * word_length), W)
            add_scaled(d_word, word, -d_cosine * cosine / (word_length * word_length), W)
        add_scaled(d_key, key, -d_length / (key_length * key_length), W)
        d_strengths[r] = d_strength


@njit(**EXACT)
def write_backward(
    d_vector, d_write_gate, d_again_gate, d_prev, d_rows, taken, places_prev, reads_prev, vector, alpha, gamma, W, R, K
):  # fmt: skip
    """Through M_t = (1 − e) M + w^w vᵀ and w^w = α (γ w̄^r + (1 − γ) e); d_rows: of M_t on entry, of M on return."""
    one, again, heads = vector.dtype.type(1), vector.dtype.type(0), vector.dtype.type(R)
    share = alpha * gamma / heads
    clear(d_vector, W)
    for k in range(R * K):
        if places_prev[k] >= 0:
            d_word = d_rows[places_prev[k] * W :]
            d_weight = dot(d_word, vector, W)
            again += d_weight * reads_prev[k] / heads
            d_prev[k] += share * d_weight
            add_scaled(d_vector, d_word, share * reads_prev[k], W)
    d_word = d_rows[taken * W :]
    fresh = dot(d_word, vector, W)
    add_scaled(d_vector, d_word, alpha * (one - gamma), W)
    clear(d_word, W)
    d_write_gate[0] = gamma * again + (one - gamma) * fresh
    d_again_gate[0] = alpha * (again - fresh)


@njit(**EXACT)
def step_row_backward(thread, b, t, places_prev, reads_prev, d_xi, sizes, tape, carried, scratch):
    """Turns the gradients of a row's state after a step into those before, and fills that of the raw interface."""
    W, R, K, links = sizes.W, sizes.R, sizes.K, sizes.links
    xi, d_rows, d_heads = tape.interfaces[t, b], carried.rows[b], carried.weights[b]
    keys, strengths, vector, write_gate, again_gate, modes = sparse_interface_parts(xi, W, R, links)
    d_keys, d_strengths, d_vector, d_write_gate, d_again_gate, d_modes = sparse_interface_parts(d_xi, W, R, links)
    _, d_content, d_prev, _, _ = number_parts(scratch.numbers[thread], R, K, links)
    clear(d_prev, R * K)
    places, heads = tape.read_places[t + 1, b], tape.read_weights[t + 1, b]
    found, content, words = places, heads, tape.read_rows[t, b]
    read_backward(d_heads, d_rows, carried.reads[b], places, heads, words, W, R, K)
    if links:
        found, content, words = tape.found_places[t, b], tape.found_weights[t, b], tape.found_rows[t, b]
        mix_backward(
            d_content, d_modes, d_prev, d_heads, places, found, content, tape.forward[t, b], tape.backward[t, b],
            reads_prev, modes, R, K,
        )  # fmt: skip
    else:
        copy(d_content, d_heads, R * K)
    look_up_backward(d_keys, d_strengths, d_rows, d_content, found, content, words, keys, strengths, W, R, K)
    write_backward(
        d_vector, d_write_gate, d_again_gate, d_prev, d_rows, tape.taken[t, b], places_prev, reads_prev, vector,
        write_gate[0], again_gate[0], W, R, K,
    )  # fmt: skip
    copy(d_heads, d_prev, R * K)
    unsquash(xi, d_xi, W, R, links)
