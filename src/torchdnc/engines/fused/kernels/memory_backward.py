"""The gradient of one step of one row's memory. Derivation: ../README.md.

A name d_x is the gradient of x. Products that may hold zeros are never divided: the product of the others is
taken instead.
"""

from numba import njit

from torchdnc.engines.fused.kernels.interface import unsquash
from torchdnc.engines.fused.kernels.layout import interface_parts, part, tape_parts
from torchdnc.engines.fused.kernels.memory import link_row
from torchdnc.engines.fused.kernels.options import EXACT
from torchdnc.engines.fused.kernels.vectors import add_scaled, dot, dot_of_three, length, softmax_backward, total


@njit(**EXACT)
def look_up_backward(memory, lengths, keys, strengths, d_scores, d_memory, d_keys, d_strengths, dots, N, W, R):
    """Gradients of slots, keys and strengths, from those of the scores β k·M[i] / (|k| |M[i]|)."""
    one = memory.dtype.type(1)
    for r in range(R):
        key, d_key, d_score = part(keys, r, W), part(d_keys, r, W), part(d_scores, r, N)
        inverse, strength = one / length(key), strengths[r]
        along = memory.dtype.type(0)
        for i in range(N):
            dots[i] = dot(part(memory, i, W), key)
            along += d_score[i] * dots[i] / lengths[i]
        d_strengths[r] += along * inverse
        add_scaled(d_key, key, -along * strength * inverse * inverse * inverse)
        for i in range(N):
            slot, d_slot = part(memory, i, W), part(d_memory, i, W)
            own = one / lengths[i]
            scale = d_score[i] * strength * inverse * own
            shrink = -scale * dots[i] * own * own
            for k in range(W):
                d_slot[k] += scale * key[k] + shrink * slot[k]
                d_key[k] += scale * slot[k]


@njit(**EXACT)
def follow_backward(
    link_prev, d_link, weights, precedence_prev, read_weights_prev, d_heads, modes, d_weights, d_precedence_prev,
    back, ahead, linked, N, R,
):  # fmt: skip
    """One pass over the links: gradients through f = L w^r, b = Lᵀ w^r and the link update.

    d_heads: gradient of the read weightings. d_link: of L_t from later steps, of L_{t−1} on return.
    back := Lᵀ d_heads and ahead := L d_heads, from which the gradients of the heads before and of the modes follow;
    linked: room for a row of L_t.
    """
    one = link_prev.dtype.type(1)
    back[:] = 0
    for i in range(N):
        old, grad = part(link_prev, i, N), part(d_link, i, N)
        link_row(linked, old, i, weights, precedence_prev)
        for r in range(R):
            head, d_head = part(read_weights_prev, r, N), part(d_heads, r, N)
            mine = d_head[i]
            by_forward, by_backward = modes[3 * r + 2] * mine, modes[3 * r] * head[i]
            ahead[r * N + i] = dot(linked, d_head)
            add_scaled(part(back, r, N), linked, mine)
            for j in range(N):
                grad[j] += by_forward * head[j] + by_backward * d_head[j]
        grad[i] = 0
        d_weights[i] += dot(grad, precedence_prev) - dot(grad, old)
        add_scaled(d_precedence_prev, grad, weights[i])
        keep = one - weights[i]
        for j in range(N):
            d_weights[j] -= grad[j] * old[j]
            grad[j] *= keep - weights[j]


@njit(**EXACT)
def write_backward(memory_prev, d_memory, weights, erase, vector, d_weights, d_erase, d_vector, N, W):
    """Through M_t = M_{t−1} ∘ (1 − w eᵀ) + w vᵀ; d_memory: of M_t on entry, of M_{t−1} on return."""
    one = memory_prev.dtype.type(1)
    for i in range(N):
        old, grad, weight = part(memory_prev, i, W), part(d_memory, i, W), weights[i]
        d_weights[i] += dot(grad, vector) - dot_of_three(grad, old, erase)
        for k in range(W):
            d_erase[k] -= grad[k] * old[k] * weight
            d_vector[k] += grad[k] * weight
            grad[k] *= one - weight * erase[k]


@njit(**EXACT)
def choose_write_backward(
    usage,
    order,
    content,
    d_weights,
    alloc_gate,
    write_gate,
    d_usage,
    d_alloc_gate,
    d_write_gate,
    used_before,
    N,
):
    """Through w^w = g^w (g^a a + (1 − g^a) c) and the allocation; returns nothing of the content's gradient.

    With P_j = Π_{i<j} u_i along the free list and S_j = d_{j+1} (1 − u_{j+1}) + u_{j+1} S_{j+1}, the gradient of
    a_j = (1 − u_j) P_j is d u_j = P_j (S_j − d_j): nothing is divided, so a usage of zero does no harm.
    """
    one, zero = usage.dtype.type(1), usage.dtype.type(0)
    product, through_alloc = one, zero
    for j in range(N):
        slot = order[j]
        used_before[j] = product
        through_alloc += d_weights[slot] * (one - usage[slot]) * product
        product *= usage[slot]
    through_content = dot(d_weights, content)
    d_alloc_gate[0] = write_gate * (through_alloc - through_content)
    d_write_gate[0] = alloc_gate * through_alloc + (one - alloc_gate) * through_content
    later = zero
    for k in range(N):
        j = N - 1 - k
        slot = order[j]
        mine = write_gate * alloc_gate * d_weights[slot]
        d_usage[slot] += used_before[j] * (later - mine)
        later = mine * (one - usage[slot]) + usage[slot] * later


@njit(**EXACT)
def count_usage_backward(
    usage_prev, write_weights_prev, read_weights_prev, free_gates, d_usage, d_write, d_heads, d_free, kept, others,
    through_writes, N, R,
):  # fmt: skip
    """Through u_t = (1 − (1 − u)(1 − w^w)) Π_r (1 − f^r w^r); d_usage: of u_t on entry, of u_{t−1} on return."""
    one = usage_prev.dtype.type(1)
    for i in range(N):
        kept[i] = one
    for r in range(R):
        head, gate = part(read_weights_prev, r, N), free_gates[r]
        for i in range(N):
            kept[i] *= one - gate * head[i]
    for r in range(R):
        head, gate, d_head = part(read_weights_prev, r, N), free_gates[r], part(d_heads, r, N)
        for i in range(N):
            others[i] = d_usage[i] * (one - (one - usage_prev[i]) * (one - write_weights_prev[i]))
        for q in range(R):
            if q != r:
                other, other_gate = part(read_weights_prev, q, N), free_gates[q]
                for i in range(N):
                    others[i] *= one - other_gate * other[i]
        d_free[r] = -dot(others, head)
        add_scaled(d_head, others, -gate)
    for i in range(N):
        through = d_usage[i] * kept[i]
        d_usage[i] = through * (one - write_weights_prev[i])
        d_write[i] = through * (one - usage_prev[i]) * through_writes


@njit(**EXACT)
def step_row_backward(
    prev, row, order, xi, d_xi, memory_prev, memory, link_prev, d_memory, d_link, d_state, d_reads, work, N, W, R,
    through_writes,
):  # fmt: skip
    """The gradient of `step_row`, in reverse order.

    prev, row, order, xi: as the tape kept them. memory_prev, memory, link_prev: replayed.
    d_memory, d_link, d_state = [d usage, d write_weights, d precedence, d read_weights]: of step t on entry, from
    later steps; of step t−1 on return. d_reads: of the words read. d_xi: of the raw interface, on return.
    through_writes: 1 lets gradients flow from the usage into the write weights before, 0 stops them.
    """
    keys, strengths, write_key, write_strength, erase, vector, free_gates, alloc_gate, write_gate, modes = (
        interface_parts(xi, W, R)
    )
    (
        d_keys, d_strengths, d_write_key, d_write_strength, d_erase, d_vector, d_free, d_alloc_gate, d_write_gate,
        d_modes,
    ) = interface_parts(d_xi, W, R)  # fmt: skip
    usage, write_weights, _, lengths, write_content, read_weights, content = tape_parts(row, N, R)
    usage_prev, write_weights_prev, precedence_prev, lengths_prev, _, read_weights_prev, _ = tape_parts(prev, N, R)
    d_usage, d_write, d_precedence, d_heads = (
        d_state[:N],
        d_state[N : 2 * N],
        d_state[2 * N : 3 * N],
        d_state[3 * N :],
    )
    back, ahead, d_scores = work[: R * N], work[R * N : 2 * R * N], work[2 * R * N : 3 * R * N]
    spare = work[3 * R * N :]
    one_slot, two_slot, d_precedence_prev, linked = (
        part(spare, 0, N),
        part(spare, 1, N),
        part(spare, 2, N),
        part(spare, 3, N),
    )
    one = memory.dtype.type(1)
    d_xi[:] = 0

    # read_words, and the content mode of read_weights
    for r in range(R):
        head, d_head, d_word = part(read_weights, r, N), part(d_heads, r, N), part(d_reads, r, W)
        for i in range(N):
            d_head[i] += dot(part(memory, i, W), d_word)
            add_scaled(part(d_memory, i, W), d_word, head[i])
        found, d_found = part(content, r, N), part(d_scores, r, N)
        d_modes[3 * r + 1] = dot(found, d_head)
        softmax_backward(found, d_head, d_found)
        for i in range(N):
            d_found[i] *= modes[3 * r + 1]
    look_up_backward(memory, lengths, keys, strengths, d_scores, d_memory, d_keys, d_strengths, one_slot, N, W, R)

    # precedence
    stays, lost = one - total(write_weights), dot(d_precedence, precedence_prev)
    for i in range(N):
        d_precedence_prev[i] = stays * d_precedence[i]
        d_write[i] += d_precedence[i] - lost

    # link and directional_weights
    follow_backward(
        link_prev, d_link, write_weights, precedence_prev, read_weights_prev, d_heads, modes, d_write,
        d_precedence_prev, back, ahead, linked, N, R,
    )  # fmt: skip
    for r in range(R):
        to, fro, head, d_head = (
            part(back, r, N),
            part(ahead, r, N),
            part(read_weights_prev, r, N),
            part(d_heads, r, N),
        )
        d_modes[3 * r], d_modes[3 * r + 2] = dot(fro, head), dot(to, head)
        for i in range(N):
            d_head[i] = modes[3 * r + 2] * to[i] + modes[3 * r] * fro[i]
    d_precedence[:] = d_precedence_prev

    # erase_and_write, write_weights, allocation_weights
    write_backward(memory_prev, d_memory, write_weights, erase, vector, d_write, d_erase, d_vector, N, W)
    choose_write_backward(
        usage, order, write_content, d_write, alloc_gate[0], write_gate[0], d_usage, d_alloc_gate, d_write_gate,
        one_slot, N,
    )  # fmt: skip
    d_found = d_scores[:N]
    softmax_backward(write_content, d_write, d_found)
    for i in range(N):
        d_found[i] *= write_gate[0] * (one - alloc_gate[0])
    look_up_backward(
        memory_prev, lengths_prev, write_key, write_strength, d_found, d_memory, d_write_key, d_write_strength,
        one_slot, N, W, 1,
    )  # fmt: skip

    # usage and retention
    count_usage_backward(
        usage_prev, write_weights_prev, read_weights_prev, free_gates, d_usage, d_write, d_heads, d_free, one_slot,
        two_slot, through_writes, N, R,
    )  # fmt: skip
    unsquash(xi, d_xi, W, R)
