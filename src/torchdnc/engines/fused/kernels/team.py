"""A kernel shared among the threads of the OpenMP library that PyTorch has loaded.

Threads of our own would meet PyTorch's on the same cores: those wait actively, for milliseconds after each of its
operations. Its own team is there at once, and is what `torch.set_num_threads` sets. Numba's parallel loops would load
a second OpenMP. So compiled code calls the library itself, by the addresses of its functions:

    in_parallel(team, work, arguments)    work(thread, threads, *arguments) on every thread
    wait(mine)                            until every thread that works on the same rows is here
"""

from typing import Any, NamedTuple

from llvmlite import ir  # type: ignore[import-untyped]
from numba import njit, types
from numba.core import cgutils

from torchdnc.engines.fused.kernels.arrays import Team
from torchdnc.engines.fused.kernels.options import EXACT, INLINED
from torchdnc.engines.fused.kernels.simd import intrinsic

# Pieces begin at whole cache lines of a row, whatever the type: vectors stay whole, and threads seldom share a line.
LINE = 16


class Share(NamedTuple):
    """What one thread does of a call: the rows of the batch from `first` up to `last`, and of each a piece.

    Where there are as many rows as threads, each has rows of its own, and they never wait for each other. Where there
    are fewer, every thread works on every row: on piece `piece` of `pieces`. thread: which it is.
    """

    thread: int
    first: int
    last: int
    piece: int
    pieces: int
    team: Team


@njit(**INLINED)
def take(thread, threads, rows, team):
    """The share of one of so many threads."""
    if rows < threads:
        return Share(thread, 0, rows, thread, threads, team)
    return Share(thread, thread * rows // threads, (thread + 1) * rows // threads, 0, 1, team)


@njit(**EXACT)
def part(mine, size):
    """The piece's part of so many numbers: where it starts and where it ends."""
    lines = -(-size // LINE)
    first, last = lines * mine.piece // mine.pieces, lines * (mine.piece + 1) // mine.pieces
    return min(size, LINE * first), min(size, LINE * last)


@njit(**INLINED)
def in_parallel(team, work, arguments):
    """work(thread, threads, *arguments), which raises nothing, on every thread of the team."""
    if team.threads == 1:
        work(0, 1, *arguments)
    else:
        _parallel(team, work, arguments)


@njit(**INLINED)
def wait(mine):
    """Until every thread that works on the same rows is here, as each of them has to come."""
    if mine.pieces > 1:
        _barrier(mine.team)


_VOID, _INT, _BYTES = ir.VoidType(), ir.IntType(32), ir.IntType(8).as_pointer()


def _member(builder: Any, team: Any, name: str) -> Any:
    return builder.extract_value(team, Team._fields.index(name))


def _call_address(builder: Any, address: Any, returns: Any, arguments: Any) -> Any:
    kind = ir.FunctionType(returns, [argument.type for argument in arguments])
    return builder.call(builder.inttoptr(address, kind.as_pointer()), arguments)


@intrinsic
def _barrier(typing: Any, team: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        _call_address(builder, _member(builder, values[0], "barrier"), _VOID, [])
        return context.get_dummy_value()

    return types.void(team), generate


@intrinsic
def _parallel(typing: Any, team: Any, work: Any, arguments: Any) -> Any:
    """GOMP_parallel of a function that takes the arguments from where they lie and does its thread's share."""
    call = work.get_call_type(typing, (types.intp, types.intp, *arguments.types), {})
    compiled = work.dispatcher.get_compile_result(call)

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        team_value, _, packed = values
        context.active_code_library.add_linking_library(compiled.library)
        room = cgutils.alloca_once_value(builder, cgutils.pack_struct(builder, [team_value, packed]))
        kind = ir.FunctionType(_VOID, [_BYTES])
        name = f"{builder.function.name}.share"
        outlined = ir.Function(builder.module, kind, name)
        outlined.linkage = "internal"
        _share(context, ir.IRBuilder(outlined.append_basic_block()), call, compiled.fndesc, room.type)
        threads = builder.trunc(_member(builder, team_value, "threads"), _INT)
        given = [outlined, builder.bitcast(room, _BYTES), threads, _INT(0)]
        _call_address(builder, _member(builder, team_value, "parallel"), _VOID, given)
        return context.get_dummy_value()

    return types.void(team, work, arguments), generate


def _share(context: Any, builder: Any, call: Any, described: Any, room: Any) -> None:
    """The body of the function that every thread runs."""
    team, packed = cgutils.unpack_tuple(builder, builder.load(builder.bitcast(builder.function.args[0], room)))
    here = [
        builder.sext(_call_address(builder, _member(builder, team, name), _INT, []), context.get_value_type(types.intp))
        for name in ("which", "members")
    ]
    # Kernels raise nothing, so that there is no status to look at.
    context.call_internal_no_propagate(builder, described, call, [*here, *cgutils.unpack_tuple(builder, packed)])
    builder.ret_void()
