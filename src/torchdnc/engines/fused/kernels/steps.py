"""One step of the memory of a whole batch, there and back; `compiled` compiles `step` and `step_backward`.

States are `MemoryState`s of arrays [B, ·], every row flat; none is changed: a step fills the next one.
"""

from typing import NamedTuple

from numba import njit

from torchdnc.engines.fused.kernels.arrays import Array, Options
from torchdnc.engines.fused.kernels.denormals import flush_denormals, restore_denormals
from torchdnc.engines.fused.kernels.layout import slots_place
from torchdnc.engines.fused.kernels.memory import step_row
from torchdnc.engines.fused.kernels.memory_backward import step_row_backward
from torchdnc.engines.fused.kernels.options import EXACT
from torchdnc.engines.fused.kernels.states import hand_out, hand_out_gradient, take_in, take_in_gradient
from torchdnc.engines.fused.kernels.team import in_parallel, take
from torchdnc.engines.fused.kernels.vectors import copy


class StepSizes(NamedTuple):
    """Numbers of a step."""

    N: int
    W: int
    R: int
    options: Options


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
    N, W, R, options = sizes.N, sizes.W, sizes.R, sizes.options
    mine = take(thread, threads, interfaces.shape[0], team)
    flushed = flush_denormals()
    for b in range(mine.first, mine.last):
        if mine.piece == 0:
            take_in(tape.rows[0, b], before, b, N, W, R, options)
            if options.grows:
                tape.rows[1, b][slots_place(N, R)] = before.slots[b, 0]
            copy(tape.interfaces[b], interfaces[b], interfaces.shape[1])
        step_row(
            mine, tape.rows[0, b], tape.rows[1, b], tape.orders[b], tape.interfaces[b], before.memory[b],
            after.memory[b], before.link[b], after.link[b], reads[b], work, N, W, R, options,
        )  # fmt: skip
        if mine.piece == 0:
            hand_out(after, tape.rows[1, b], b, N, R, options)
    restore_denormals(flushed)


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
    N, W, R, options = sizes.N, sizes.W, sizes.R, sizes.options
    mine = take(thread, threads, memory.shape[0], team)
    d_state = d_states[mine.thread - mine.piece]
    flushed = flush_denormals()
    for b in range(mine.first, mine.last):
        if mine.piece == 0:
            take_in_gradient(d_state, d_before, d_after, b, N, W, R, options)
        step_row_backward(
            mine, tape.rows[0, b], tape.rows[1, b], tape.orders[b], tape.interfaces[b], d_interfaces[b],
            before.memory[b], memory[b], before.link[b], tape.rows, since, b, 0, 0, d_before.memory[b],
            d_before.link[b], d_state, d_reads[b], work, N, W, R, options,
        )  # fmt: skip
        if mine.piece == 0:
            hand_out_gradient(d_before, d_state, b, N, R, options)
    restore_denormals(flushed)
