"""The element-wise parts of a controller's layer, one row at a time; its matrix products are PyTorch's."""

from numba import njit

from torchdnc.engines.fused.kernels.options import EXACT
from torchdnc.engines.fused.kernels.vectors import sigmoid_in_place, tanh_into


@njit(**EXACT)
def lstm_row(gates, cell_prev, cell, squashed, hidden, bits, H):
    """s := σ(f) s + σ(i) tanh(c), h := σ(o) tanh(s); gates [i, f, c, o] are squashed in place, tanh(s) is kept."""
    sigmoid_in_place(gates[: 2 * H], bits)
    sigmoid_in_place(gates[3 * H :], bits)
    tanh_into(gates[2 * H : 3 * H], squashed, bits)
    for j in range(H):
        gates[2 * H + j] = squashed[j]
        cell[j] = gates[H + j] * cell_prev[j] + gates[j] * squashed[j]
    tanh_into(cell, squashed, bits)
    for j in range(H):
        hidden[j] = gates[3 * H + j] * squashed[j]


@njit(**EXACT)
def lstm_row_backward(gates, d_gates, cell_prev, squashed, d_hidden, d_cell, bound, H):
    """d_gates: of the raw gates; d_cell: of s_t on entry, of s_{t−1} on return; d_hidden is clipped to the bound."""
    one = gates.dtype.type(1)
    for j in range(H):
        i, f, candidate, o = gates[j], gates[H + j], gates[2 * H + j], gates[3 * H + j]
        d_h = min(max(d_hidden[j], -bound), bound)
        d_s = d_cell[j] + d_h * o * (one - squashed[j] * squashed[j])
        d_gates[j] = d_s * candidate * i * (one - i)
        d_gates[H + j] = d_s * cell_prev[j] * f * (one - f)
        d_gates[2 * H + j] = d_s * i * (one - candidate * candidate)
        d_gates[3 * H + j] = d_h * squashed[j] * o * (one - o)
        d_cell[j] = d_s * f


@njit(**EXACT)
def tanh_row_backward(d_gates, hidden, d_hidden, bound):
    """d_gates: of a, where h = tanh(a); d_hidden is clipped to the bound."""
    one = hidden.dtype.type(1)
    for j in range(hidden.shape[0]):
        d_h = min(max(d_hidden[j], -bound), bound)
        d_gates[j] = d_h * (one - hidden[j] * hidden[j])
