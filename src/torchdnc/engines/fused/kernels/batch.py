"""The row kernels over a batch, in parallel over its rows; `compiled` compiles them.

alive [B]: rows whose sequence has not ended; the others keep their state. fresh [B]: rows that start afresh, from
`zeros`, before this step. before, now: places of steps t−1 and t on the tape.
"""

from numba import prange

from torchdnc.engines.fused.kernels.controller import lstm_row, lstm_row_backward, tanh_row_backward
from torchdnc.engines.fused.kernels.layout import interface_parts, tape_parts
from torchdnc.engines.fused.kernels.memory import relink, step_row, write
from torchdnc.engines.fused.kernels.memory_backward import step_row_backward
from torchdnc.engines.fused.kernels.vectors import tanh_into


def step(tape, orders, before, now, xi, memory, link, reads, zeros, alive, fresh, work, bits, N, W, R):
    """One step of the memory."""
    for b in prange(memory.shape[0]):
        orders[now, b, :] = orders[before, b]
        if alive[b]:
            if fresh[b]:
                memory[b, :] = 0
                link[b, :] = 0
            prev = zeros if fresh[b] else tape[before, b]
            step_row(
                prev,
                tape[now, b],
                orders[now, b],
                xi[b],
                memory[b],
                link[b],
                reads[now, b],
                work[b],
                bits[b],
                N,
                W,
                R,
            )
        else:
            tape[now, b, :] = tape[before, b]
            reads[now, b, :] = reads[before, b]


def step_backward(
    tape, orders, before, now, xi, d_xi, memory_prev, memory, link_prev, d_memory, d_link, d_state, d_reads, zeros,
    no_memory, alive, fresh, work, N, W, R, through_writes,
):  # fmt: skip
    """The gradient of `step`."""
    for b in prange(memory.shape[0]):
        if alive[b]:
            prev = zeros if fresh[b] else tape[before, b]
            from_memory = no_memory if fresh[b] else memory_prev[b]
            step_row_backward(
                prev, tape[now, b], orders[now, b], xi[b], d_xi[b], from_memory, memory[b], link_prev[b], d_memory[b],
                d_link[b], d_state[b], d_reads[b], work[b], N, W, R, through_writes,
            )  # fmt: skip
            if fresh[b]:
                d_memory[b, :] = 0
                d_link[b, :] = 0
                d_state[b, :] = 0
        else:
            d_xi[b, :] = 0


def replay(tape, xi, first, last, memories, links, zeros, alive, fresh, N, W, R):
    """memories[k], links[k]: what step first + k starts from, from those at k = 0; memories has one more."""
    for b in prange(memories.shape[1]):
        for t in range(first, last):
            k = t - first
            memories[k + 1, b, :] = memories[k, b]
            if fresh[t, b]:
                # memories[k] stays: it is also what the step before ended with.
                memories[k + 1, b, :] = 0
                links[k, b, :] = 0
            if t + 1 < last:
                links[k + 1, b, :] = links[k, b]
            if alive[t, b]:
                prev = zeros if fresh[t, b] else tape[t, b]
                _, weights, _, _, _, _, _ = tape_parts(tape[t + 1, b], N, R)
                _, _, precedence_prev, _, _, _, _ = tape_parts(prev, N, R)
                _, _, _, _, erase, vector, _, _, _, _ = interface_parts(xi[t, b], W, R)
                write(memories[k + 1, b], weights, erase, vector, N, W)
                if t + 1 < last:
                    relink(links[k + 1, b], weights, precedence_prev, N)


def lstm(gates, cells, squashed, hidden, before, now, zeros, alive, fresh, bits, H):
    """One layer of the LSTM."""
    for b in prange(gates.shape[0]):
        if alive[b]:
            cell_prev = zeros if fresh[b] else cells[before, b]
            lstm_row(gates[b], cell_prev, cells[now, b], squashed[b], hidden[now, b], bits[b], H)
        else:
            cells[now, b, :] = cells[before, b]
            hidden[now, b, :] = hidden[before, b]


def lstm_backward(gates, d_gates, cells, squashed, before, d_hidden, d_cell, zeros, alive, fresh, bound, H):
    """The gradient of `lstm`."""
    for b in prange(gates.shape[0]):
        if alive[b]:
            cell_prev = zeros if fresh[b] else cells[before, b]
            lstm_row_backward(gates[b], d_gates[b], cell_prev, squashed[b], d_hidden[b], d_cell[b], bound, H)
            if fresh[b]:
                d_cell[b, :] = 0
        else:
            d_gates[b, :] = 0


def feedforward(gates, hidden, now, alive, bits):
    """One feedforward layer."""
    for b in prange(gates.shape[0]):
        if alive[b]:
            tanh_into(gates[b], hidden[now, b], bits[b])
        else:
            hidden[now, b, :] = 0


def feedforward_backward(d_gates, hidden, now, d_hidden, alive, bound):
    """The gradient of `feedforward`."""
    for b in prange(d_gates.shape[0]):
        if alive[b]:
            tanh_row_backward(d_gates[b], hidden[now, b], d_hidden[b], bound)
        else:
            d_gates[b, :] = 0
