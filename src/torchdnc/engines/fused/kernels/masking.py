"""Look-ups that compare parts of a word only, and their gradient; derived in the engine's README.md.

The slots' lengths |M[i]∘m| are those of one head alone here: sums of squares, which are a product as k∘m²·M[i] is.
"""

import math

from numba import njit

from torchdnc.engines.fused.kernels.layout import masking_parts
from torchdnc.engines.fused.kernels.options import EXACT
from torchdnc.engines.fused.kernels.product import add_product, add_product_back
from torchdnc.engines.fused.kernels.simd import first_lanes, fma, lanes, like, load, spread, store, sum_lanes
from torchdnc.engines.fused.kernels.vectors import clear, dot, sigmoid_in_place
from torchdnc.ops.content import COSINE_EPSILON


@njit(**EXACT)
def squash_masks(masks, floor):
    """m := floor + (1 − floor) / (1 + e^−m)."""
    least, share, size = like(masks, floor), like(masks, 1 - floor), masks.shape[0]
    sigmoid_in_place(masks, size)
    for k in range(0, size, lanes(masks)):
        store(masks, k, fma(share, load(masks, k, size - k), least), size - k)


@njit(**EXACT)
def unsquash_masks(masks, d_masks, floor):
    """d m := d m (m − floor) (1 − m) / (1 − floor), of the raw mask."""
    one, least, share, size = like(masks, 1), like(masks, floor), like(masks, 1 / (1 - floor)), masks.shape[0]
    for k in range(0, size, lanes(masks)):
        n = size - k
        mask = load(masks, k, n)
        store(d_masks, k, load(d_masks, k, n) * (mask - least) * share * (one - mask), n)


@njit(**EXACT)
def _multiply(out, a, b, size):
    """out := a ∘ b."""
    for k in range(0, size, lanes(out)):
        store(out, k, load(a, k, size - k) * load(b, k, size - k), size - k)


@njit(**EXACT)
def _masked_length(masked_key, key, W):
    """|k∘m|, of k∘m² and k."""
    return key.dtype.type(math.sqrt(dot(masked_key, key, W) + key.dtype.type(COSINE_EPSILON)))


@njit(**EXACT)
def _compare_masked(dots, parts, memory, keys, masks, N, W, R):
    """dots := k∘m²·M[i], of every key [R W] and slot; parts: all but what slots shrink by."""
    squares, mask_squares, masked_keys, lengths, _ = parts
    _multiply(squares, memory, memory, N * W)
    _multiply(mask_squares, masks, masks, R * W)
    _multiply(masked_keys, keys, mask_squares, R * W)
    clear(dots, R * N)
    add_product(dots, N, masked_keys, W, memory, W, R, W, N)
    clear(lengths, R * N)
    add_product(lengths, N, mask_squares, W, squares, W, R, W, N)
    for i in range(R * N):
        lengths[i] = math.sqrt(lengths[i] + lengths.dtype.type(COSINE_EPSILON))


@njit(**EXACT)
def score_masked(scores, memory, keys, masks, strengths, work, N, W, R, heads):
    """scores := β k∘m²·M[i] / (|k∘m| |M[i]∘m|), of every key [heads W] and slot; R: at most so many."""
    parts = masking_parts(work, N, W, R)
    _, _, masked_keys, lengths, _ = parts
    _compare_masked(scores, parts, memory, keys, masks, N, W, heads)
    for r in range(heads):
        scale = spread(strengths[r] / _masked_length(masked_keys[r * W :], keys[r * W :], W))
        for i in range(0, N, lanes(scores)):
            at, n = r * N + i, N - i
            store(scores, at, load(scores, at, n) * scale / load(lengths, at, n), n)


@njit(**EXACT)
def score_masked_backward(
    d_scores, dots, memory, d_memory, keys, masks, strengths, d_keys, d_masks, d_strengths, shrink, work, N, W, R, heads
):
    """`memory_backward.look_up_backward` where there are masks; leaves k∘m², which stands for k in d M[i], in the room.

    d_memory, d_keys, d_masks: added to, of d_memory what no number alone is the factor of; shrink: 0 for that reason.
    """
    parts = masking_parts(work, N, W, R)
    squares, mask_squares, masked_keys, lengths, shrinks = parts
    _compare_masked(dots, parts, memory, keys, masks, N, W, heads)
    one = like(shrink, 1)
    clear(shrink, N)
    for r in range(heads):
        inverse = strengths.dtype.type(1) / _masked_length(masked_keys[r * W :], keys[r * W :], W)
        scale, acc = spread(strengths[r] * inverse), like(shrink, 0)
        for i in range(0, N, lanes(shrink)):
            at, n = r * N + i, N - i
            own = one / first_lanes(load(lengths, at, n), one, n)
            along = load(d_scores, at, n) * own
            product = along * load(dots, at, n)
            acc = acc + product
            store(d_scores, at, along * scale, n)
            store(shrinks, at, product * scale * own * own, n)
        d_strengths[r] = sum_lanes(acc) * inverse
    add_product_back(d_keys, W, d_scores, N, memory, W, heads, N, W)
    add_product_back(d_masks, W, shrinks, N, squares, W, heads, N, W)
    for r in range(heads):
        of_key = _masked_length(masked_keys[r * W :], keys[r * W :], W)
        lost = spread(-d_strengths[r] * strengths[r] / (of_key * of_key))
        for k in range(0, W, lanes(shrink)):
            at, n = r * W + k, W - k
            key, mask, along = load(keys, at, n), load(masks, at, n), load(d_keys, at, n)
            slope = fma(lost, key, along)
            store(d_keys, at, mask * mask * slope, n)
            store(d_masks, at, mask * (key * (along + slope) - load(d_masks, at, n)), n)
    _shrink_masked(memory, d_memory, shrinks, mask_squares, N, W, heads)


@njit(**EXACT)
def _shrink_masked(memory, d_memory, shrinks, mask_squares, N, W, R):
    """d M[i] −= M[i] ∘ Σ_r shrink m²."""
    for i in range(N):
        for k in range(0, W, lanes(memory)):
            at, n, less = i * W + k, W - k, like(memory, 0)
            for r in range(R):
                less = fma(spread(shrinks[r * N + i]), load(mask_squares, r * W + k, n), less)
            store(d_memory, at, load(d_memory, at, n) - less * load(memory, at, n), n)
