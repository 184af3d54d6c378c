"""The element-wise parts of a controller's layer, for units `first` up to `last` of one row."""

from numba import njit

from torchdnc.engines.fused.kernels.options import EXACT
from torchdnc.engines.fused.kernels.simd import fma, higher, lanes, like, load, lower, spread, store
from torchdnc.engines.fused.kernels.vectors import sigmoid, tanh


@njit(**EXACT)
def lstm_row(gates, cell_prev, cell, squashed, hidden, first, last, H):
    """s := σ(f) s + σ(i) tanh(c), h := σ(o) tanh(s); gates [i, f, c, o] are squashed in place, tanh(s) is kept."""
    for j in range(first, last, lanes(gates)):
        n = last - j
        i, f = sigmoid(load(gates, j, n)), sigmoid(load(gates, H + j, n))
        candidate, o = tanh(load(gates, 2 * H + j, n)), sigmoid(load(gates, 3 * H + j, n))
        s = fma(f, load(cell_prev, j, n), i * candidate)
        squash = tanh(s)
        store(gates, j, i, n)
        store(gates, H + j, f, n)
        store(gates, 2 * H + j, candidate, n)
        store(gates, 3 * H + j, o, n)
        store(cell, j, s, n)
        store(squashed, j, squash, n)
        store(hidden, j, o * squash, n)


@njit(**EXACT)
def lstm_row_backward(gates, d_gates, cell_prev, squashed, d_hidden, d_cell, bound, first, last, H):
    """d_gates: of the raw gates; d_cell: of s_t on entry, of s_{t−1} on return; d_hidden is clipped to the bound."""
    one, most = like(gates, 1), spread(bound)
    for j in range(first, last, lanes(gates)):
        n = last - j
        i, f = load(gates, j, n), load(gates, H + j, n)
        candidate, o = load(gates, 2 * H + j, n), load(gates, 3 * H + j, n)
        squash = load(squashed, j, n)
        d_h = lower(higher(load(d_hidden, j, n), like(gates, 0) - most), most)
        d_s = fma(d_h * o, one - squash * squash, load(d_cell, j, n))
        store(d_gates, j, d_s * candidate * i * (one - i), n)
        store(d_gates, H + j, d_s * load(cell_prev, j, n) * f * (one - f), n)
        store(d_gates, 2 * H + j, d_s * i * (one - candidate * candidate), n)
        store(d_gates, 3 * H + j, d_h * squash * o * (one - o), n)
        store(d_cell, j, d_s * f, n)


@njit(**EXACT)
def feedforward_row(gates, hidden, first, last):
    """h := tanh(a)."""
    for j in range(first, last, lanes(gates)):
        store(hidden, j, tanh(load(gates, j, last - j)), last - j)


@njit(**EXACT)
def feedforward_row_backward(d_gates, hidden, d_hidden, bound, first, last):
    """d_gates: of a, where h = tanh(a); d_hidden is clipped to the bound."""
    one, most = like(d_gates, 1), spread(bound)
    for j in range(first, last, lanes(d_gates)):
        n = last - j
        h = load(hidden, j, n)
        d_h = lower(higher(load(d_hidden, j, n), like(d_gates, 0) - most), most)
        store(d_gates, j, d_h * (one - h * h), n)
