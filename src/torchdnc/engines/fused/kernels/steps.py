"""One step of the memory of a whole batch, there and back; `compiled` compiles `step` and `step_backward`.

States are `MemoryState`s of arrays [B, ·], every row flat; none is
changed: a step fills the next one.
"""

from typing import NamedTuple

from numba import njit

from torchdnc.engines.fused.kernels.arrays import Array
from torchdnc.engines.fused.kernels.layout import tape_parts
from torchdnc.engines.fused.kernels.memory import step_row
from torchdnc.engines.fused.kernels.memory_backward import step_row_backward
from torchdnc.engines.fused.kernels.options import EXACT, INLINED
from torchdnc.engines.fused.kernels.simd import flush_denormals, restore_denormals
from torchdnc.engines.fused.kernels.team import in_parallel, take
from torchdnc.engines.fused.kernels.vectors import copy, length


class StepSizes(NamedTuple):
    """Numbers of a step; through_writes: see `arrays.Sizes`."""

    N: int
    W: int
    R: int
    through_writes: bool


class StepTape(NamedTuple):
    """What a step leaves for its backward pass.

    interfaces [B, X]: squashed. rows [2, B, ·]: before and after the step, see `layout.tape_parts`. orders [B, N]: the
    free lists.
    """

    interfaces: Array
    rows: Array
    orders: Array


def step(team, sizes, interfaces, before, after, reads, tape, work):
    """Fills the state after the step, the words read [B, R·W] and the tape, from the raw interfaces [B, X].

    work [threads, ·]: see `layout.work_size`.
    """
    in_parallel(team, _step, (team, sizes, interfaces, before, after, reads, tape, work))


@njit(**EXACT)
def _step(thread, threads, team, sizes, interfaces, before, after, reads, tape, work):
    N, W, R = sizes.N, sizes.W, sizes.R
    mine = take(thread, threads, interfaces.shape[0], team)
    flushed = flush_denormals()
    for b in range(mine.first, mine.last):
        if mine.piece == 0:
            _begin(b, sizes, interfaces, before, tape)
        step_row(
            mine, tape.rows[0, b], tape.rows[1, b], tape.orders[b], tape.interfaces[b], before.memory[b],
            after.memory[b], before.link[b], after.link[b], reads[b], work, N, W, R,
        )  # fmt: skip
        if mine.piece == 0:
            _hand_out(after, tape.rows[1, b], b, N, R)
    restore_denormals(flushed)


@njit(**INLINED)
def _begin(b, sizes, interfaces, before, tape):
    """What the tape holds of a row before the step."""
    _take_in(tape.rows[0, b], before, b, sizes.N, sizes.W, sizes.R)
    copy(tape.interfaces[b], interfaces[b], interfaces.shape[1])
    for i in range(sizes.N):
        tape.orders[b, i] = i


def step_backward(
    team, sizes, tape, before, memory, since, d_after, d_reads, d_before, d_interfaces, d_states, work
):  # fmt: skip
    """Fills the gradients of the state before the step and of the raw interfaces.

    memory [B, N·W]: after the step. since [0, 0]: steps whose links are to be made again, which are none.
    d_states [threads, ·]: room for the gradient of a row's weightings.
    """
    in_parallel(
        team, _step_backward,
        (team, sizes, tape, before, memory, since, d_after, d_reads, d_before, d_interfaces, d_states, work),
    )  # fmt: skip


@njit(**EXACT)
def _step_backward(
    thread, threads, team, sizes, tape, before, memory, since, d_after, d_reads, d_before, d_interfaces, d_states, work
):
    mine = take(thread, threads, memory.shape[0], team)
    d_state = d_states[mine.thread - mine.piece]
    flushed = flush_denormals()
    for b in range(mine.first, mine.last):
        if mine.piece == 0:
            _begin_backward(b, sizes, d_after, d_before, d_state)
        step_row_backward(
            mine, tape.rows[0, b], tape.rows[1, b], tape.orders[b], tape.interfaces[b], d_interfaces[b],
            before.memory[b], memory[b], before.link[b], tape.rows, since, b, 0, 0, d_before.memory[b],
            d_before.link[b], d_state, d_reads[b], work, sizes.N, sizes.W, sizes.R, sizes.through_writes,
        )  # fmt: skip
        if mine.piece == 0:
            _end_backward(b, sizes, d_before, d_state)
    restore_denormals(flushed)


@njit(**INLINED)
def _begin_backward(b, sizes, d_after, d_before, d_state):
    """The gradients of a row after the step, where those before it are to be."""
    N, W, R = sizes.N, sizes.W, sizes.R
    copy(d_before.memory[b], d_after.memory[b], N * W)
    copy(d_before.link[b], d_after.link[b], N * N)
    copy(d_state, d_after.usage[b], N)
    copy(d_state[N:], d_after.write_weights[b], N)
    copy(d_state[2 * N :], d_after.precedence[b], N)
    copy(d_state[3 * N :], d_after.read_weights[b], R * N)


@njit(**INLINED)
def _end_backward(b, sizes, d_before, d_state):
    """The gradients of a row's weightings before the step."""
    N, R = sizes.N, sizes.R
    copy(d_before.usage[b], d_state, N)
    copy(d_before.write_weights[b], d_state[N:], N)
    copy(d_before.precedence[b], d_state[2 * N :], N)
    copy(d_before.read_weights[b], d_state[3 * N :], R * N)


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
