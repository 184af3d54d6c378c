"""Functions of vectors and of arrays.

Constants of vectors carry the array's type: a bare number would turn float32 into float64. Arrays are flat;
of each the first `size` numbers are meant.
"""

import math

from numba import njit

from torchdnc.engines.fused.kernels.options import EXACT
from torchdnc.engines.fused.kernels.simd import (
    VECTOR_BYTES,
    first_lanes,
    fma,
    higher,
    lanes,
    like,
    load,
    lower,
    max_lanes,
    spread,
    store,
    sum_lanes,
    two_to_the,
    where_less,
)
from torchdnc.ops.content import COSINE_EPSILON

LOG2_E = 1.4426950408889634
# ln 2 in two parts: whole multiples of the first are exact.
LN2_HIGH = 0.693145751953125
LN2_LOW = 1.4286068203094172321e-06


@njit(**EXACT)
def copy(out, a, size):
    """out := a."""
    for k in range(0, size, lanes(out)):
        store(out, k, load(a, k, size - k), size - k)


@njit(**EXACT)
def clear(out, size):
    """out := 0."""
    for k in range(0, size, lanes(out)):
        store(out, k, like(out, 0), size - k)


@njit(**EXACT)
def add(out, a, size):
    """out += a."""
    for k in range(0, size, lanes(out)):
        store(out, k, load(out, k, size - k) + load(a, k, size - k), size - k)


@njit(**EXACT)
def dot(a, b, size):
    """Σ a b."""
    acc = like(a, 0)
    for k in range(0, size, lanes(a)):
        acc = fma(load(a, k, size - k), load(b, k, size - k), acc)
    return sum_lanes(acc)


@njit(**EXACT)
def total(a, size):
    """Σ a."""
    acc = like(a, 0)
    for k in range(0, size, lanes(a)):
        acc = acc + load(a, k, size - k)
    return sum_lanes(acc)


@njit(**EXACT)
def length(a, size):
    """sqrt(|a|² + ε)."""
    return a.dtype.type(math.sqrt(dot(a, a, size) + a.dtype.type(COSINE_EPSILON)))


@njit(**EXACT)
def _exp_parts(x):
    """(2^k, e^f − 1) with x = k ln 2 + f and |f| ≤ ½ ln 2; the series' remainder is below rounding."""
    double = VECTOR_BYTES // lanes(x) == 8
    shift = like(x, 1.5 * 2.0**52 if double else 1.5 * 2.0**23)
    x = lower(higher(x, like(x, -708.0 if double else -87.0)), like(x, 709.0 if double else 88.0))
    shifted = fma(x, like(x, LOG2_E), shift)
    k = shifted - shift
    f = fma(k, like(x, -LN2_LOW), fma(k, like(x, -LN2_HIGH), x))
    series = like(x, 1 / 5040)
    if double:
        series = like(x, 1 / 6227020800)
        series = fma(series, f, like(x, 1 / 479001600))
        series = fma(series, f, like(x, 1 / 39916800))
        series = fma(series, f, like(x, 1 / 3628800))
        series = fma(series, f, like(x, 1 / 362880))
        series = fma(series, f, like(x, 1 / 40320))
        series = fma(series, f, like(x, 1 / 5040))
    series = fma(series, f, like(x, 1 / 720))
    series = fma(series, f, like(x, 1 / 120))
    series = fma(series, f, like(x, 1 / 24))
    series = fma(series, f, like(x, 1 / 6))
    series = fma(series, f, like(x, 1 / 2))
    return two_to_the(shifted), fma(series, f * f, f)


@njit(**EXACT)
def exp(x):
    """e^x; x beyond the range of normal numbers as at its end."""
    power, rest = _exp_parts(x)
    return fma(power, rest, power)


@njit(**EXACT)
def sigmoid(x):
    """1 / (1 + e^−x)."""
    return like(x, 1) / (like(x, 1) + exp(like(x, 0) - x))


@njit(**EXACT)
def tanh(x):
    """(e^2x − 1) / (e^2x + 1), without the difference of nearly equal numbers."""
    twice = lower(higher(x + x, like(x, -40)), like(x, 40))
    power, rest = _exp_parts(twice)
    grown = fma(power, rest, power - like(x, 1))
    return grown / (grown + like(x, 2))


@njit(**EXACT)
def softmax(z, size):
    """z := softmax(z)."""
    least = like(z, -math.inf)
    top = least
    for j in range(0, size, lanes(z)):
        top = higher(first_lanes(load(z, j, size - j), least, size - j), top)
    shift, acc = spread(max_lanes(top)), like(z, 0)
    for j in range(0, size, lanes(z)):
        grown = exp(load(z, j, size - j) - shift)
        acc = acc + first_lanes(grown, like(z, 0), size - j)
        store(z, j, grown, size - j)
    scale = spread(z.dtype.type(1) / sum_lanes(acc))
    for j in range(0, size, lanes(z)):
        store(z, j, load(z, j, size - j) * scale, size - j)


@njit(**EXACT)
def softmax_where_finite(z, lengths, size):
    """z := softmax(z) over the places whose length is finite, 0 elsewhere; all 0 where none is."""
    least, endless = like(z, -math.inf), like(z, math.inf)
    top = least
    for j in range(0, size, lanes(z)):
        n = size - j
        known = where_less(load(lengths, j, n), endless, load(z, j, n), least)
        top = higher(first_lanes(known, least, n), top)
    shift, acc, none = spread(max_lanes(top)), like(z, 0), like(z, 0)
    for j in range(0, size, lanes(z)):
        n = size - j
        grown = where_less(load(lengths, j, n), endless, exp(load(z, j, n) - shift), none)
        acc = acc + first_lanes(grown, none, n)
        store(z, j, grown, n)
    summed = sum_lanes(acc)
    if summed > 0:
        scale = spread(z.dtype.type(1) / summed)
        for j in range(0, size, lanes(z)):
            store(z, j, load(z, j, size - j) * scale, size - j)


@njit(**EXACT)
def softmax_backward(weights, gradient, out, scale, size):
    """out := scale · gradient of the scores, from that of the weights; returns weights · gradient."""
    along = dot(weights, gradient, size)
    mean, by = spread(along), spread(scale)
    for k in range(0, size, lanes(out)):
        n = size - k
        store(out, k, by * load(weights, k, n) * (load(gradient, k, n) - mean), n)
    return along


@njit(**EXACT)
def sigmoid_in_place(z, size):
    """z := 1 / (1 + e^−z)."""
    for j in range(0, size, lanes(z)):
        store(z, j, sigmoid(load(z, j, size - j)), size - j)


@njit(**EXACT)
def oneplus(x):
    """1 + log(1 + e^x), of a number."""
    return 1.0 + max(x, 0.0) + math.log1p(math.exp(-abs(x)))
