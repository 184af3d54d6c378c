"""One step of the memory of a whole batch, there and back; `compiled` compiles `step` and `step_backward`.

Each does one of `sizes.shares` shares of the batch. States are `MemoryState`s of arrays [B, ·], every row flat; none is
changed: a step fills the next one.
"""

from typing import NamedTuple

from numba import njit

from torchdnc.engines.fused.kernels.arrays import Array
from torchdnc.engines.fused.kernels.layout import tape_parts
from torchdnc.engines.fused.kernels.memory import step_row
from torchdnc.engines.fused.kernels.memory_backward import step_row_backward
from torchdnc.engines.fused.kernels.options import INLINED
from torchdnc.engines.fused.kernels.simd import flush_denormals, restore_denormals
from torchdnc.engines.fused.kernels.vectors import copy, length


class StepSizes(NamedTuple):
    """Numbers of a step; through_writes, shares: see `arrays.Sizes`."""

    N: int
    W: int
    R: int
    through_writes: bool
    shares: int


class StepTape(NamedTuple):
    """What a step leaves for its backward pass.

    interfaces [B, X]: squashed. rows [2, B, ·]: before and after the step, see `layout.tape_parts`. orders [B, N]: the
    free lists.
    """

    interfaces: Array
    rows: Array
    orders: Array


def step(share, sizes, interfaces, before, after, reads, tape, work):
    """Fills the state after the step, the words read [B, R·W] and the tape, from the raw interfaces [B, X].

    work [shares, ·]: see `layout.work_size`.
    """
    N, W, R, B = sizes.N, sizes.W, sizes.R, interfaces.shape[0]
    flushed = flush_denormals()
    for b in range(share * B // sizes.shares, (share + 1) * B // sizes.shares):
        _take_in(tape.rows[0, b], before, b, N, W, R)
        copy(tape.interfaces[b], interfaces[b], interfaces.shape[1])
        copy(after.memory[b], before.memory[b], N * W)
        copy(after.link[b], before.link[b], N * N)
        for i in range(N):
            tape.orders[b, i] = i
        step_row(
            tape.rows[0, b], tape.rows[1, b], tape.orders[b], tape.interfaces[b], after.memory[b], after.link[b],
            reads[b], work[share], N, W, R,
        )  # fmt: skip
        _hand_out(after, tape.rows[1, b], b, N, R)
    restore_denormals(flushed)


def step_backward(
    share, sizes, tape, before, memory, since, d_after, d_reads, d_before, d_interfaces, d_states, work
):  # fmt: skip
    """Fills the gradients of the state before the step and of the raw interfaces.

    memory [B, N·W]: after the step. since [0, 0]: steps whose links are to be made again, which are none.
    d_states [shares, ·]: room for the gradient of a row's weightings.
    """
    N, W, R, B = sizes.N, sizes.W, sizes.R, memory.shape[0]
    d_state = d_states[share]
    flushed = flush_denormals()
    for b in range(share * B // sizes.shares, (share + 1) * B // sizes.shares):
        copy(d_before.memory[b], d_after.memory[b], N * W)
        copy(d_before.link[b], d_after.link[b], N * N)
        copy(d_state, d_after.usage[b], N)
        copy(d_state[N:], d_after.write_weights[b], N)
        copy(d_state[2 * N :], d_after.precedence[b], N)
        copy(d_state[3 * N :], d_after.read_weights[b], R * N)
        step_row_backward(
            tape.rows[0, b], tape.rows[1, b], tape.orders[b], tape.interfaces[b], d_interfaces[b], before.memory[b],
            memory[b], before.link[b], tape.rows, since, b, 0, 0, d_before.memory[b], d_before.link[b], d_state,
            d_reads[b], work[share], N, W, R, sizes.through_writes,
        )  # fmt: skip
        copy(d_before.usage[b], d_state, N)
        copy(d_before.write_weights[b], d_state[N:], N)
        copy(d_before.precedence[b], d_state[2 * N :], N)
        copy(d_before.read_weights[b], d_state[3 * N :], R * N)
    restore_denormals(flushed)


@njit(**INLINED)
def _take_in(row, state, b, N, W, R):
    """The tape's row of a state, but for the content weightings, which only the step that made it knows."""
    usage, write_weights, precedence, lengths, _, read_weights, _ = tape_parts(row, N, R)
    copy(usage, state.usage[b], N)
    copy(write_weights, state.write_weights[b], N)
    copy(precedence, state.precedence[b], N)
    copy(read_weights, state.read_weights[b], R * N)
    for i in range(N):
        lengths[i] = length(state.memory[b, i * W :], W)


@njit(**INLINED)
def _hand_out(state, row, b, N, R):
    """The state's weightings, from the tape's row."""
    usage, write_weights, precedence, _, _, read_weights, _ = tape_parts(row, N, R)
    copy(state.usage[b], usage, N)
    copy(state.write_weights[b], write_weights, N)
    copy(state.precedence[b], precedence, N)
    copy(state.read_weights[b], read_weights, R * N)
