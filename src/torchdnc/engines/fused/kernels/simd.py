"""Vectors of numbers that fill the machine's registers, as values in compiled code.

Numba leaves it to LLVM to find loops that vector registers can run. In loops over several arrays it often does not:
it has to prove, or to test at run time, that they do not overlap, and a test that depends on addresses makes the
order of sums, hence the last bits, depend on them too. Here the kernels say what is a vector, so that every loop runs
in registers and the same numbers give the same bits.

    x = load(a, at, n)           lanes at, at + 1, ...; those from the n-th on are 0 and are not read
    store(a, at, x, n)           the first n lanes
    prefetch(a, at)              a hint that a[at] will be needed soon
    x + y, x - y, x * y, x / y   lane by lane
    fma(x, y, z)                 x y + z, rounded once
    higher(x, y), lower(x, y)    the larger, the smaller; x where x is not a number
    sum_lanes(x), max_lanes(x)   over the lanes
    sum_lanes_of_four(a, b, c, d)
    where_less(x, y, a, b)       a where x < y, b elsewhere
    count_before(c, x, y, n)     c + 1 where x ≤ y in the first n lanes, where x < y in the others; c elsewhere
    spread(s), like(a, s)        the number s in every lane; of the type of the array or vector a
    first_lanes(x, y, n)         the first n lanes of x, then those of y
    lanes(a)                     numbers in a vector, or in one of the array's type
    two_to_the(x)                see there
    without_lane(x, k)           x with 0 in lane k, if there is such a lane

so that a loop over `size` numbers is

    for j in range(0, size, lanes(a)):
        store(a, j, load(a, j, size - j) * scale, size - j)
"""

import operator
from typing import Any, Final

import llvmlite.binding  # type: ignore[import-untyped]
from llvmlite import ir
from numba import extending, types
from numba.core import cgutils
from numba.extending import models, overload, register_model

# Its type is that of the function which generates code, not of the calls in compiled code.
intrinsic: Any = extending.intrinsic

_WIDE = llvmlite.binding.get_host_cpu_features().get("avx512f", False)
VECTOR_BYTES: Final = 64 if _WIDE else 32
"""Of one vector. Where registers are smaller, LLVM splits it."""
REGISTERS: Final = 32 if _WIDE else 16
"""Vectors that a loop can work on without storing and loading some in every round."""

INDEX = ir.IntType(32)


class Vector(types.Type):
    """Numba's type of a vector of floats."""

    def __init__(self, dtype: Any) -> None:
        self.dtype, self.lanes = dtype, 8 * VECTOR_BYTES // dtype.bitwidth
        super().__init__(f"Vector({dtype}, {self.lanes})")

    @property
    def suffix(self) -> str:
        """The type in the name of an LLVM intrinsic."""
        return f"v{self.lanes}f{self.dtype.bitwidth}"


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Vector) -> None:
        number = manager.lookup(kind.dtype).get_value_type()
        super().__init__(manager, kind, ir.VectorType(number, kind.lanes))


def call_llvm(builder: Any, name: str, returns: Any, arguments: Any, **how: Any) -> Any:
    """Calls an LLVM intrinsic."""
    kind = ir.FunctionType(returns, [argument.type for argument in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments, **how)


def spread_lanes(builder: Any, number: Any, count: int) -> Any:
    kind = ir.VectorType(number.type, count)
    first = builder.insert_element(ir.Constant(kind, ir.Undefined), number, ir.Constant(INDEX, 0))
    zeros = ir.Constant(ir.VectorType(INDEX, count), [0] * count)
    return builder.shuffle_vector(first, ir.Constant(kind, ir.Undefined), zeros)


def _compare_lanes(builder: Any, how: str, number: Any, count: int) -> Any:
    """Per lane whether its index compares so with a number."""
    indices = ir.Constant(ir.VectorType(INDEX, count), list(range(count)))
    # Of a number too large for 32 bits all that counts is that it is beyond the lanes.
    most = ir.Constant(number.type, count)
    number = builder.select(builder.icmp_signed("<", number, most), number, most)
    return builder.icmp_signed(how, indices, spread_lanes(builder, builder.trunc(number, INDEX), count))


def pointer_to(context: Any, builder: Any, kind: Any, array: Any, at: Any) -> Any:
    return builder.gep(context.make_array(kind)(context, builder, array).data, [at])


def load_lanes(context: Any, builder: Any, kind: Vector, pointer: Any, n: Any) -> Any:
    vector, size = context.get_value_type(kind), ir.Constant(INDEX, kind.dtype.bitwidth // 8)
    arguments = [pointer, size, _compare_lanes(builder, "<", n, kind.lanes), ir.Constant(vector, None)]
    return call_llvm(builder, f"llvm.masked.load.{kind.suffix}.p0", vector, arguments)


def store_masked(builder: Any, kind: Vector, pointer: Any, x: Any, n: Any) -> None:
    """The first n lanes, in one instruction."""
    size = ir.Constant(INDEX, kind.dtype.bitwidth // 8)
    arguments = [x, pointer, size, _compare_lanes(builder, "<", n, kind.lanes)]
    call_llvm(builder, f"llvm.masked.store.{kind.suffix}.p0", ir.VoidType(), arguments)


def store_in_parts(builder: Any, kind: Vector, pointer: Any, x: Any, n: Any) -> None:
    """The first n lanes: all of them, or the next half, quarter, ... of them for each digit of n."""
    size, part = kind.dtype.bitwidth // 8, kind.lanes
    # Of what lies wholly behind the end, n is below 0.
    n = builder.select(builder.icmp_signed(">", n, n.type(0)), n, n.type(0))
    with builder.if_else(builder.icmp_signed(">=", n, n.type(part))) as (whole, rest):
        with whole:
            builder.store(x, builder.bitcast(pointer, x.type.as_pointer()), align=size)
        with rest:
            place = cgutils.alloca_once_value(builder, pointer)
            while part > 1:
                part //= 2
                low, high = (
                    builder.shuffle_vector(
                        x, x, ir.Constant(ir.VectorType(INDEX, part), list(range(first, first + part)))
                    )
                    for first in (0, part)
                )
                exists = builder.icmp_signed("!=", builder.and_(n, n.type(part)), n.type(0))
                with builder.if_then(exists):
                    here = builder.load(place)
                    builder.store(low, builder.bitcast(here, low.type.as_pointer()), align=size)
                    builder.store(builder.gep(here, [INDEX(part)]), place)
                x = builder.select(exists, high, low)


# A masked store takes an AVX2 longer than a dozen others.
store_lanes = store_masked if _WIDE else store_in_parts


@intrinsic
def load(typing: Any, a: Any, at: Any, n: Any) -> Any:
    """a[at : at + n] in the first lanes, 0 in the others."""
    kind = Vector(a.dtype)

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        pointer = pointer_to(context, builder, signature.args[0], values[0], values[1])
        return load_lanes(context, builder, kind, pointer, values[2])

    return kind(a, types.intp, types.intp), generate


@intrinsic
def store(typing: Any, a: Any, at: Any, x: Any, n: Any) -> Any:
    """a[at : at + n] := the first lanes."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        pointer = pointer_to(context, builder, signature.args[0], values[0], values[1])
        store_lanes(builder, x, pointer, values[2], values[3])
        return context.get_dummy_value()

    return types.void(a, types.intp, x, types.intp), generate


@intrinsic
def prefetch(typing: Any, a: Any, at: Any) -> Any:
    """Asks for the cache line of a[at], which may lie behind the array's end, ahead of its use."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        pointer = pointer_to(context, builder, signature.args[0], values[0], values[1])
        how = [ir.Constant(INDEX, number) for number in (0, 3, 1)]
        call_llvm(builder, "llvm.prefetch.p0", ir.VoidType(), [pointer, *how])
        return context.get_dummy_value()

    return types.void(a, types.intp), generate


@intrinsic
def spread(typing: Any, number: Any) -> Any:
    """The number in every lane."""
    kind = Vector(number)
    return kind(number), lambda context, builder, signature, values: spread_lanes(builder, values[0], kind.lanes)


@intrinsic
def fma(typing: Any, x: Any, y: Any, z: Any) -> Any:
    """x y + z."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return call_llvm(builder, f"llvm.fma.{x.suffix}", values[0].type, values)

    return x(x, x, x), generate


@intrinsic
def higher(typing: Any, x: Any, y: Any) -> Any:
    """The larger of each lane; x where x is not a number."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.select(builder.fcmp_ordered("<", *values), values[1], values[0])

    return x(x, x), generate


@intrinsic
def lower(typing: Any, x: Any, y: Any) -> Any:
    """The smaller of each lane; x where x is not a number."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.select(builder.fcmp_ordered(">", *values), values[1], values[0])

    return x(x, x), generate


@intrinsic
def where_less(typing: Any, x: Any, y: Any, a: Any, b: Any) -> Any:
    """a in lanes where x < y, b in the others."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.select(builder.fcmp_ordered("<", *values[:2]), *values[2:])

    return a(x, x, a, a), generate


@intrinsic
def count_before(typing: Any, count: Any, x: Any, y: Any, n: Any) -> Any:
    """count + 1 in lanes where x < y, and of the first n also where x = y; count in the others."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        more = builder.fadd(values[0], ir.Constant(values[0].type, [1.0] * count.lanes))
        equal = builder.and_(
            builder.fcmp_ordered("==", *values[1:3]), _compare_lanes(builder, "<", values[3], count.lanes)
        )
        before = builder.or_(builder.fcmp_ordered("<", *values[1:3]), equal)
        return builder.select(before, more, values[0])

    return count(count, count, count, types.intp), generate


@intrinsic
def sum_lanes(typing: Any, x: Any) -> Any:
    """The sum over the lanes, in pairs."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        number = context.get_value_type(x.dtype)
        arguments = [ir.Constant(number, 0.0), values[0]]
        return call_llvm(builder, f"llvm.vector.reduce.fadd.{x.suffix}", number, arguments, fastmath=("reassoc",))

    return x.dtype(x), generate


def sum_four(builder: Any, vectors: Any, lanes: int) -> Any:
    """The sums over the lanes of four vectors, in the first lanes of one."""

    def neighbours(x: Any, y: Any, lanes: int) -> Any:
        """Sums of neighbouring lanes, first of x, then of y."""
        even, odd = (ir.Constant(ir.VectorType(INDEX, lanes), list(range(k, 2 * lanes, 2))) for k in (0, 1))
        return builder.fadd(builder.shuffle_vector(x, y, even), builder.shuffle_vector(x, y, odd))

    a, b, c, d = vectors
    sums = neighbours(neighbours(a, b, lanes), neighbours(c, d, lanes), lanes)
    while lanes > 4:
        lanes //= 2
        sums = neighbours(sums, ir.Constant(sums.type, ir.Undefined), lanes)
    return sums


@intrinsic
def sum_lanes_of_four(typing: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
    """The sums over the lanes of four vectors, in about the time of two."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        sums = sum_four(builder, values, a.lanes)
        each = [builder.extract_element(sums, ir.Constant(INDEX, k)) for k in range(4)]
        return context.make_tuple(builder, signature.return_type, each)

    return types.UniTuple(a.dtype, 4)(a, a, a, a), generate


@intrinsic
def max_lanes(typing: Any, x: Any) -> Any:
    """The largest lane."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return call_llvm(builder, f"llvm.vector.reduce.fmax.{x.suffix}", context.get_value_type(x.dtype), values)

    return x.dtype(x), generate


@intrinsic
def first_lanes(typing: Any, x: Any, y: Any, n: Any) -> Any:
    """The first n lanes of x, then those of y."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.select(_compare_lanes(builder, "<", values[2], x.lanes), values[0], values[1])

    return x(x, x, types.intp), generate


@intrinsic
def without_lane(typing: Any, x: Any, k: Any) -> Any:
    """x, with 0 in lane k."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        zero = ir.Constant(values[0].type, None)
        return builder.select(_compare_lanes(builder, "==", values[1], x.lanes), zero, values[0])

    return x(x, types.intp), generate


@intrinsic
def two_to_the(typing: Any, shifted: Any) -> Any:
    """2^k of k + 1.5 · 2^m, m the bits of the mantissa: such a number has k in its last bits."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        bits, mantissa, bias = (64, 52, 1023) if shifted.dtype.bitwidth == 64 else (32, 23, 127)
        kind = ir.VectorType(ir.IntType(bits), shifted.lanes)
        constant = lambda number: ir.Constant(kind, [number] * shifted.lanes)  # noqa: E731
        exponent = builder.add(builder.bitcast(values[0], kind), constant(bias))
        return builder.bitcast(builder.shl(exponent, constant(mantissa)), values[0].type)

    return shifted(shifted), generate


def _lane_by_lane(symbol: Any, instruction: str) -> None:
    @intrinsic
    def apply(typing: Any, x: Any, y: Any) -> Any:
        return x(x, x), lambda context, builder, signature, values: getattr(builder, instruction)(*values)

    @overload(symbol)
    def operate(x, y):  # numba compares the annotations
        if isinstance(x, Vector) and x == y:
            return lambda x, y: apply(x, y)
        return None


_lane_by_lane(operator.add, "fadd")
_lane_by_lane(operator.sub, "fsub")
_lane_by_lane(operator.mul, "fmul")
_lane_by_lane(operator.truediv, "fdiv")


def _kind(a: Any) -> Vector:
    return a if isinstance(a, Vector) else Vector(a.dtype)


@intrinsic
def lanes(typing: Any, a: Any) -> Any:
    """Numbers in a vector, or in one of this array's type."""
    kind = _kind(a)
    return types.intp(a), lambda context, builder, signature, values: ir.Constant(ir.IntType(64), kind.lanes)


@intrinsic
def like(typing: Any, a: Any, number: Any) -> Any:
    """The number in every lane, of the type of a vector or an array."""
    kind = _kind(a)

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return spread_lanes(builder, context.cast(builder, values[1], signature.args[1], kind.dtype), kind.lanes)

    return kind(a, number), generate
