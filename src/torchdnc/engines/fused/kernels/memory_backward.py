"""The gradient of `memory.step_row`, one function for each of its functions; derived in the engine's README.md."""

from numba import njit

from torchdnc.engines.fused.kernels.interface import unsquash
from torchdnc.engines.fused.kernels.layout import (
    interface_parts,
    mask_parts,
    masking_parts,
    reclaim_parts,
    slots_of,
    tape_parts,
)
from torchdnc.engines.fused.kernels.links_backward import follow_backward, precede_backward, turn_heads
from torchdnc.engines.fused.kernels.masking import score_masked_backward
from torchdnc.engines.fused.kernels.memory import compare, held
from torchdnc.engines.fused.kernels.options import EXACT, INLINED
from torchdnc.engines.fused.kernels.overflow import release_backward
from torchdnc.engines.fused.kernels.product import add_product, add_product_back
from torchdnc.engines.fused.kernels.simd import (
    first_lanes,
    fma,
    lanes,
    like,
    load,
    spread,
    store,
    sum_lanes,
)
from torchdnc.engines.fused.kernels.slots_backward import slots_backward
from torchdnc.engines.fused.kernels.team import part, wait
from torchdnc.engines.fused.kernels.vectors import add, clear, copy, dot, length, softmax_backward


@njit(**EXACT)
def look_up_backward(d_scores, dots, memory, lengths, keys, strengths, d_keys, d_strengths, shrink, N, W, R):
    """Through the scores z = β k·M[i] / (|k| |M[i]|), but for the slots.

    d_scores: d z -> the factor of k in d M[i], which is also that of M[i] in d k; dots: M[i]·k;
    shrink: the factor of M[i] in d M[i].
    """
    one = like(shrink, 1)
    clear(shrink, N)
    for r in range(R):
        inverse = strengths.dtype.type(1) / length(keys[r * W :], W)
        scale, acc = spread(strengths[r] * inverse), like(shrink, 0)
        for i in range(0, N, lanes(shrink)):
            at, n = r * N + i, N - i
            # Behind the last slot the length is 0, and nothing may be divided by it.
            own = one / first_lanes(load(lengths, i, n), one, n)
            along = load(d_scores, at, n) * own
            product = along * load(dots, at, n)
            acc = acc + product
            store(d_scores, at, along * scale, n)
            store(shrink, i, load(shrink, i, n) - product * scale * own * own, n)
        rate = sum_lanes(acc) * inverse
        d_strengths[r] = rate
        lost = -rate * strengths[r] * inverse * inverse
        for k in range(0, W, lanes(shrink)):
            n = W - k
            store(d_keys, r * W + k, spread(lost) * load(keys, r * W + k, n), n)
    add_product_back(d_keys, W, d_scores, N, memory, W, R, N, W)


@njit(**EXACT)
def choose_write_backward(
    usage, order, content, d_weights, alloc_gate, write_gate, d_usage, d_alloc_gate, d_write_gate, used_before, n, N
):
    """Through w^w = g^w (g^a a + (1 − g^a) c) and the allocation; returns nothing of the content's gradient.

    With P_j = Π_{i<j} u_i along the free list and S_j = d_{j+1} (1 − u_{j+1}) + u_{j+1} S_{j+1}, the gradient of
    a_j = (1 − u_j) P_j is d u_j = P_j (S_j − d_j): nothing is divided, so a usage of zero does no harm.
    """
    one, zero = usage.dtype.type(1), usage.dtype.type(0)
    product, through_alloc = one, zero
    for j in range(n):
        slot = order[j]
        used_before[j] = product
        through_alloc += d_weights[slot] * (one - usage[slot]) * product
        product *= usage[slot]
    through_content = dot(d_weights, content, N)
    d_alloc_gate[0] = write_gate * (through_alloc - through_content)
    d_write_gate[0] = alloc_gate * through_alloc + (one - alloc_gate) * through_content
    later = zero
    for k in range(n):
        j = n - 1 - k
        slot = order[j]
        mine = write_gate * alloc_gate * d_weights[slot]
        d_usage[slot] += used_before[j] * (later - mine)
        later = mine * (one - usage[slot]) + usage[slot] * later


@njit(**EXACT)
def write_key_backward(memory_prev, d_memory, scales, shrink, key, N, W):
    """d M_{t−1}[i] += scale k^w + shrink M_{t−1}[i]."""
    for i in range(N):
        scale, less = spread(scales[i]), spread(shrink[i])
        for k in range(0, W, lanes(memory_prev)):
            at, n = i * W + k, W - k
            slot = load(memory_prev, at, n)
            store(d_memory, at, fma(scale, load(key, k, n), fma(less, slot, load(d_memory, at, n))), n)


@njit(**EXACT)
def wipe(memory, memory_prev, heads_prev, free_gates, released, N, W, R, options):
    """memory := what is `held` of M_{t−1}."""
    for i in range(N):
        kept = spread(held(i, heads_prev, free_gates, released, N, R, options))
        for k in range(0, W, lanes(memory)):
            store(memory, i * W + k, kept * load(memory_prev, i * W + k, W - k), W - k)


@njit(**EXACT)
def wipe_backward(memory_prev, d_memory, d_kept, heads_prev, free_gates, released, N, W, R, options):
    """d_memory: of what is held of M_{t−1} on entry, of M_{t−1} on return; d_kept := of ψ."""
    for i in range(N):
        kept, acc = spread(held(i, heads_prev, free_gates, released, N, R, options)), like(d_memory, 0)
        for k in range(0, W, lanes(d_memory)):
            at, n = i * W + k, W - k
            grad = load(d_memory, at, n)
            acc = fma(grad, load(memory_prev, at, n), acc)
            store(d_memory, at, kept * grad, n)
        if options.wipes and not (options.reclaims and released[i] != 0):
            d_kept[i] = sum_lanes(acc)


@njit(**EXACT)
def count_usage_backward(
    usage_prev,
    write_weights_prev,
    heads,
    free_gates,
    d_usage,
    d_kept_too,
    d_write,
    d_heads,
    d_free,
    through_writes,
    N,
    R,
):
    """Through u_t = (1 − (1 − u)(1 − w^w)) ψ, ψ = Π_r (1 − f^r w^r); d_usage: of u_t on entry, of u_{t−1} on return.

    d_kept_too: what else comes to ψ.
    """
    one = like(d_usage, 1)
    for i in range(0, N, lanes(d_usage)):
        n = N - i
        grad = load(d_usage, i, n)
        unused, unwritten = one - load(usage_prev, i, n), one - load(write_weights_prev, i, n)
        kept, d_kept = one, fma(grad, one - unused * unwritten, load(d_kept_too, i, n))
        for r in range(R):
            others = d_kept
            for q in range(R):
                if q != r:
                    others = others * (one - spread(free_gates[q]) * load(heads, q * N + i, n))
            head, gate = load(heads, r * N + i, n), spread(free_gates[r])
            d_free[r] -= sum_lanes(others * head)
            store(d_heads, r * N + i, load(d_heads, r * N + i, n) - others * gate, n)
            kept = kept * (one - gate * head)
        through = grad * kept
        store(d_usage, i, through * unwritten, n)
        store(d_write, i, through * unused * like(d_usage, 1 if through_writes else 0), n)


@njit(**EXACT)
def _work_parts(work, N, R):
    """ahead, back, d_scores [R N]; shrink, write_dots, d_precedence_prev [N]; linked [8 N]; factors [8 R]; d_kept [N];
    wiped [N W], where it is asked for."""
    heads = R * N
    spare = work[3 * heads :]
    return (
        work[:heads],
        work[heads : 2 * heads],
        work[2 * heads : 3 * heads],
        spare[:N],
        spare[N : 2 * N],
        spare[2 * N : 3 * N],
        spare[3 * N : 11 * N],
        spare[11 * N : 11 * N + 8 * R],
        spare[11 * N + 8 * R : 12 * N + 8 * R],
        spare[12 * N + 8 * R :],
    )


@njit(**INLINED)
def step_row_backward(
    mine, prev, row, order, xi, d_xi, memory_prev, memory, link, rows, alive, b, first, t, d_memory, d_link, d_state,
    d_reads, work, N, W, R, options,
):  # fmt: skip
    """The gradient of `step_row`, in reverse order.

    mine: the thread's share. prev, row, order, xi: as the tape kept them. memory_prev, memory: replayed. link, rows,
    alive, b, first, t: where the link matrix before this step comes from, see `link_rows`.
    d_memory, d_link, d_state = [d usage, d write_weights, d precedence, d read_weights]: of step t on entry, from
    later steps; of step t−1 on return. d_reads: of the words read. d_xi: of the raw interface, on return.
    work: for every thread, see `layout.work_size`.
    """
    keys, strengths, write_key, write_strength, erase, vector, free_gates, alloc_gate, write_gate, modes = (
        interface_parts(xi, W, R, options)
    )
    (
        d_keys, d_strengths, d_write_key, d_write_strength, d_erase, d_vector, d_free, d_alloc_gate, d_write_gate,
        d_modes,
    ) = interface_parts(d_xi, W, R, options)  # fmt: skip
    read_masks, write_mask = mask_parts(xi, W, R, options)
    d_read_masks, d_write_mask = mask_parts(d_xi, W, R, options)
    usage, weights, _, lengths, write_content, heads, content = tape_parts(row, N, R)
    usage_prev, weights_prev, precedence_prev, lengths_prev, _, heads_prev, _ = tape_parts(prev, N, R)
    d_usage, d_write, d_precedence, d_heads = d_state[:N], d_state[N : 2 * N], d_state[2 * N : 3 * N], d_state[3 * N :]
    _, back, d_scores, shrink, write_dots, d_precedence_prev, linked, factors, d_kept, wiped = _work_parts(
        work[mine.thread], N, R
    )
    ahead, one = work[mine.thread - mine.piece, : R * N], memory.dtype.type(1)
    first_row, last_row = part(mine, N)

    if mine.piece == 0:
        clear(d_xi, d_xi.shape[0])
        # read_words, the content mode of read_weights; `ahead` lends its room until the links need it
        add_product(d_heads, N, d_reads, W, memory, W, R, W, N)
        for r in range(R):
            by_content = modes[3 * r + 1] if options.linked else one
            d_mode = softmax_backward(content[r * N :], d_heads[r * N :], d_scores[r * N :], by_content, N)
            if options.linked:
                d_modes[3 * r + 1] = d_mode
        compared = keys
        if options.masked:
            _, _, compared, _, _ = masking_parts(work[mine.thread], N, W, R)
            score_masked_backward(
                d_scores, ahead, memory, d_memory, keys, read_masks, strengths, d_keys, d_read_masks, d_strengths,
                shrink, work[mine.thread], N, W, R, R,
            )  # fmt: skip
        else:
            compare(ahead, memory, keys, N, W, R)
            look_up_backward(d_scores, ahead, memory, lengths, keys, strengths, d_keys, d_strengths, shrink, N, W, R)
        before = memory_prev
        released = reclaim_parts(row, N, R)[2]
        if options.wipes or options.reclaims:
            before = wiped
            wipe(before, memory_prev, heads_prev, free_gates, released, N, W, R, options)
        slots_backward(
            before, memory, d_memory, weights, erase, vector, write_key, heads, d_reads, d_scores, compared, shrink,
            d_write, d_erase, d_vector, write_dots, N, W, R,
        )  # fmt: skip
        clear(d_kept, N)
        if options.wipes or options.reclaims:
            wipe_backward(memory_prev, d_memory, d_kept, heads_prev, free_gates, released, N, W, R, options)
            compare(write_dots, memory_prev, write_key, N, W, write_strength.shape[0])

    # link and directional_weights
    if options.linked:
        if mine.piece == 0:
            precede_backward(d_precedence, d_precedence_prev, d_write, weights, precedence_prev, N)
        wait(mine)
        d_weights = d_write
        if mine.piece > 0:
            # Sums of its own, to be added up after: `shrink` has no other use here.
            d_weights = shrink
            clear(d_weights, N)
            clear(d_precedence_prev, N)
        follow_backward(
            link, rows, alive, b, first, t, d_link, weights, precedence_prev, heads_prev, d_heads, modes, d_weights,
            d_precedence_prev, back, ahead, linked, factors, first_row, last_row, N, R,
        )  # fmt: skip
        wait(mine)
    if mine.piece > 0:
        return
    if options.linked:
        for other in range(1, mine.pieces):
            _, its_back, _, its_d_weights, _, its_d_precedence_prev, _, _, _, _ = _work_parts(work[other], N, R)
            add(back, its_back, R * N)
            add(d_write, its_d_weights, N)
            add(d_precedence_prev, its_d_precedence_prev, N)
        turn_heads(d_heads, heads_prev, back, ahead, modes, d_modes, N, R)
        copy(d_precedence, d_precedence_prev, N)
    else:
        clear(d_heads, R * N)

    # write_weights, allocation_weights, content_weights of the write key
    choose_write_backward(
        usage, order, write_content, d_write, alloc_gate[0], write_gate[0], d_usage, d_alloc_gate, d_write_gate,
        d_scores, slots_of(row, N, R, options), N,
    )  # fmt: skip
    if options.reclaims:
        release_backward(d_usage, row, N, R)
    softmax_backward(write_content, d_write, d_scores, write_gate[0] * (alloc_gate.dtype.type(1) - alloc_gate[0]), N)
    one_key, compared = write_strength.shape[0], write_key
    if options.masked:
        _, _, compared, _, _ = masking_parts(work[mine.thread], N, W, R)
        score_masked_backward(
            d_scores, write_dots, memory_prev, d_memory, write_key, write_mask, write_strength, d_write_key,
            d_write_mask, d_write_strength, shrink, work[mine.thread], N, W, R, one_key,
        )  # fmt: skip
    else:
        look_up_backward(
            d_scores, write_dots, memory_prev, lengths_prev, write_key, write_strength, d_write_key, d_write_strength,
            shrink, N, W, one_key,
        )  # fmt: skip
    write_key_backward(memory_prev, d_memory, d_scores, shrink, compared, N, W)

    # usage and retention
    count_usage_backward(
        usage_prev, weights_prev, heads_prev, free_gates, d_usage, d_kept, d_write, d_heads, d_free,
        options.through_writes, N, R,
    )  # fmt: skip
    unsquash(xi, d_xi, W, R, options)
