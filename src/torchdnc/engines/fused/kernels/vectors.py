"""Vector functions. Constants carry the array's type: a bare number would turn float32 loops into float64."""

import math

import numpy as np
from numba import njit

from torchdnc.engines.fused.kernels.options import EXACT, SUMMING
from torchdnc.ops.content import COSINE_EPSILON

# Below this 2^x is under the smallest normal float32, and the exponent bits would wrap around.
LEAST_EXPONENT = -126.0
# tanh by its series up to here: the quotient of exponentials would lose the digits of small numbers.
SMALL = 0.35


@njit(**SUMMING)
def dot(a, b):
    """Σ a b."""
    total = a.dtype.type(0)
    for i in range(a.shape[0]):
        total += a[i] * b[i]
    return total


@njit(**SUMMING)
def dot_of_three(a, b, c):
    """Σ a b c."""
    total = a.dtype.type(0)
    for i in range(a.shape[0]):
        total += a[i] * b[i] * c[i]
    return total


@njit(**SUMMING)
def total(a):
    """Σ a."""
    result = a.dtype.type(0)
    for i in range(a.shape[0]):
        result += a[i]
    return result


@njit(**EXACT)
def add_scaled(out, a, scale):
    """out += scale a."""
    for i in range(out.shape[0]):
        out[i] += a[i] * scale


@njit(**EXACT)
def length(a):
    """sqrt(|a|² + ε)."""
    return a.dtype.type(math.sqrt(dot(a, a) + a.dtype.type(COSINE_EPSILON)))


@njit(**EXACT)
def exp_in_place(z, bits):
    """z := e^z.

    float32: 2^(k + f) with k whole and |f| ≤ ½; 2^f is its Taylor series to f⁷ (remainder below 1e-8), 2^k is
    written into the exponent bits. Two loops without branches or calls, which vector registers take.
    """
    if z.itemsize == 8:
        for i in range(z.shape[0]):
            z[i] = math.exp(z[i])
        return
    for i in range(z.shape[0]):
        y = max(z[i] * np.float32(1.4426950408889634), np.float32(LEAST_EXPONENT))
        k = np.floor(y + np.float32(0.5))
        f = y - k
        series = np.float32(1.5252734e-05)
        series = series * f + np.float32(1.5403530e-04)
        series = series * f + np.float32(1.3333558e-03)
        series = series * f + np.float32(9.6181291e-03)
        series = series * f + np.float32(5.5504109e-02)
        series = series * f + np.float32(2.4022651e-01)
        series = series * f + np.float32(6.9314718e-01)
        z[i] = series * f + np.float32(1)
        bits[i] = (np.int32(k) + np.int32(127)) << np.int32(23)
    powers = bits.view(np.float32)
    for i in range(z.shape[0]):
        z[i] *= powers[i]


@njit(**EXACT)
def softmax_in_place(z, bits):
    """z := softmax(z)."""
    top = z[0]
    for i in range(z.shape[0]):
        top = max(top, z[i])
    for i in range(z.shape[0]):
        z[i] -= top
    exp_in_place(z, bits)
    scale = z.dtype.type(1) / total(z)
    for i in range(z.shape[0]):
        z[i] *= scale


@njit(**EXACT)
def softmax_backward(weights, gradient, out):
    """out := gradient of the scores, from that of the weights."""
    mean = dot(weights, gradient)
    for i in range(weights.shape[0]):
        out[i] = weights[i] * (gradient[i] - mean)


@njit(**EXACT)
def sigmoid_in_place(z, bits):
    """z := 1 / (1 + e^−z)."""
    one = z.dtype.type(1)
    most = z.dtype.type(87)
    for i in range(z.shape[0]):
        z[i] = min(-z[i], most)
    exp_in_place(z, bits)
    for i in range(z.shape[0]):
        z[i] = one / (one + z[i])


@njit(**EXACT)
def tanh_into(z, out, bits):
    """out := tanh(z)."""
    if z.itemsize == 8:
        for i in range(z.shape[0]):
            out[i] = math.tanh(z[i])
        return
    one = z.dtype.type(1)
    for i in range(z.shape[0]):
        out[i] = np.float32(-2) * abs(z[i])
    exp_in_place(out, bits)
    for i in range(z.shape[0]):
        x = z[i]
        y = x * x
        series = np.float32(-8.8632355e-03)
        series = series * y + np.float32(2.1869488e-02)
        series = series * y - np.float32(5.3968254e-02)
        series = series * y + np.float32(1.3333333e-01)
        series = series * y - np.float32(3.3333333e-01)
        far = (one - out[i]) / (one + out[i])
        out[i] = x + x * y * series if abs(x) < np.float32(SMALL) else (far if x > 0 else -far)


@njit(**EXACT)
def sigmoid(x):
    """1 / (1 + e^−x)."""
    return 1.0 / (1.0 + math.exp(-x))


@njit(**EXACT)
def oneplus(x):
    """1 + log(1 + e^x)."""
    return 1.0 + max(x, 0.0) + math.log1p(math.exp(-abs(x)))
